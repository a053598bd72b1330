"""The document that a finished step leaves, and whether it still holds."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from autosplit.errors import ArtefactError
from autosplit.files import read_document, to_plain, write_document

KIND, VERSION = "autosplit.workload.step", 1

Document = dict[str, Any]


def digest(body: Any) -> str:
    """Returns the SHA-256 of plain values.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(to_plain(body), sort_keys=True).encode()).hexdigest()


def write_step(
    workdir: pathlib.Path,
    step: str,
    *,
    settings: Mapping[str, Any],
    after: str,
    files: Sequence[str],
    result: Mapping[str, Any],
    record: Mapping[str, Any],
    step_s: float,
) -> Document:
    """Writes ``STEP.json``, which says that a step is finished; call it last.

    Args:
      workdir: of the workload.
      step: its name.
      settings: all of the configuration that the step depends on.
      after: digest of the document of the step before.
      files: what the step wrote, by name.
      result: its figures.
      record: from `autosplit.reporting.run_record`.
      step_s: how long it took.

    Returns:
      The document.
    """
    document = to_plain({
        "step": step, "settings": settings, "settings_sha256": digest(settings), "after": after,
        "files": {name: file_digest(workdir / name) for name in files},
        "result": result, "step_s": step_s, "record": record,
    })  # fmt: skip
    write_document(workdir / f"{step}.json", KIND, VERSION, document)
    return document


def finished(
    workdir: pathlib.Path, step: str, settings: Mapping[str, Any], after: str
) -> Document | None:
    """Returns the document of a step that need not run again; None where it must.

    It must where there is no document, where the configuration or the step before it is not
    the one that it was made of, or where one of its files is missing or was changed.
    """
    document = read_step(workdir, step)
    if document is None:
        return None
    made_of = (document["settings_sha256"], document["after"])
    if made_of != (digest(settings), after):
        return None
    intact = all(
        file_digest(workdir / name) == expected for name, expected in document["files"].items()
    )
    return document if intact else None


def read_step(workdir: pathlib.Path, step: str) -> Document | None:
    """Returns the document of a step, whatever it was made of; None without one."""
    try:
        return read_document(workdir / f"{step}.json", KIND, VERSION)
    except ArtefactError:
        return None  # absent, of another version or broken: the step runs again


def file_digest(path: pathlib.Path) -> str | None:
    """Returns the SHA-256 of a file, None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
