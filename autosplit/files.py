"""Files that are whole or absent, and documents that prove they were not changed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from autosplit.errors import ArtefactError, InputError


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file that nobody ever sees half-written.

    The bytes go to a temporary name in the same folder, to the disk, and take the
    final name last. A failure leaves what was there before and no temporary file.

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> write_bytes(folder / "a.bin", b"abc")
    >>> [file.name for file in folder.iterdir()], (folder / "a.bin").read_bytes()
    (['a.bin'], b'abc')

    Args:
      path: file to write; missing folders are made.
      content: all of it.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_directory(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a new folder that takes the place of ``path`` once the block has ended.

    A failure leaves what was there before and no draft.

    >>> import tempfile
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "new"
    >>> with whole_directory(target) as draft:
    ...     _ = (draft / "a").write_text("b")
    >>> [file.name for file in target.iterdir()], len(list(target.parent.iterdir()))
    (['a'], 1)

    Args:
      path: directory; an older one is replaced, missing parents are made.

    Yields:
      The draft, beside ``path``.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, older = (target.with_name(f".{target.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        draft.mkdir()
        yield draft
        if target.exists():
            os.replace(target, older)
        os.replace(draft, target)
    except BaseException:
        if older.exists():
            os.replace(older, target)
        raise
    finally:
        for rest in (draft, older):
            shutil.rmtree(rest, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Writes JSON, as `write_bytes` does; see `to_plain` for what may be in it."""
    write_text(path, json.dumps(to_plain(data), indent=2, ensure_ascii=False) + "\n")


def to_plain(data: Any) -> Any:
    """Converts to what JSON can hold.

    Arrays and NumPy scalars become lists and numbers, dataclasses and mappings
    objects, paths text. NaN and infinities, which JSON lacks, become text.

    >>> to_plain({"bits": np.arange(3), "limit": np.float32("inf"), "seed": np.int64(1)})
    {'bits': [0, 1, 2], 'limit': 'inf', 'seed': 1}

    Raises:
      InputError: a value of another type.
    """
    if isinstance(data, (np.ndarray, np.generic)):
        return to_plain(data.tolist())
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if isinstance(data, os.PathLike):
        return os.fspath(data)
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        fields = dataclasses.fields(data)
        return {field.name: to_plain(getattr(data, field.name)) for field in fields}
    if isinstance(data, Mapping):
        return {str(key): to_plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [to_plain(value) for value in data]
    raise InputError(
        f"A value of type {type(data).__name__} cannot be written as JSON; expected numbers, text, "
        f"arrays, dataclasses, lists or mappings. Convert it first."
    )


def write_document(path: str | os.PathLike[str], kind: str, version: int, body: Any) -> None:
    """Writes a JSON document with its kind, format version and checksum, as `write_bytes` does.

    Args:
      path: file to write.
      kind: what it holds, e.g. ``"autosplit.plan"``.
      version: of the format.
      body: JSON values only; floats are kept exactly.
    """
    content = {"kind": kind, "version": version, "sha256": _digest(body), "body": body}
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_document(path: str | os.PathLike[str], kind: str, version: int) -> Any:
    """Reads what `write_document` wrote.

    Returns:
      The body.

    Raises:
      ArtefactError: missing, truncated, changed since, or of another kind or version.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"{path} is no complete JSON file ({error}); expected a document of kind {kind!r}. "
            "Save it again."
        ) from error
    found = (content.get("kind"), content.get("version")) if isinstance(content, dict) else ()
    if found != (kind, version):
        raise ArtefactError(
            f"{path} has kind and version {found}; expected {(kind, version)}. Save it again with "
            "this version of autosplit."
        )
    if content.get("sha256") != _digest(content.get("body")):
        raise ArtefactError(
            f"{path} was changed after it was saved: its SHA-256 differs. Save it again."
        )
    return content["body"]


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
