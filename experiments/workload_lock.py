"""Keeps a work directory to one run at a time."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from autosplit.errors import InputError

LOCK = ".lock"


@contextlib.contextmanager
def only_run(workdir: pathlib.Path) -> Iterator[None]:
    """Holds a work directory while the block runs.

    The system frees the lock when its process ends, however it ends; the file stays, and
    says who held it last.

    >>> import tempfile
    >>> with only_run(pathlib.Path(tempfile.mkdtemp())):
    ...     pass

    Args:
      workdir: made where it is missing.

    Raises:
      InputError: another run holds it; the message says which.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{workdir} is in use by {_holder(workdir / LOCK)}; expected no other run there. "
                "Wait for it, end it, or take another --workdir."
            ) from error
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since_utc": now}, file)
        file.flush()
        yield


def _holder(path: pathlib.Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} since {found['since_utc']} UTC"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has not yet written who it is
