"""What reading a file of another framework has in common: its errors name file and cure."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from autosplit.errors import ArtefactError, AutosplitError, ConversionError, InputError


def existing_file(path: str | os.PathLike[str], kind: str) -> pathlib.Path:
    """Returns the path of a file that exists.

    Args:
      path: of the file.
      kind: what the file should be, with its article: ``"an ONNX model"``.

    Raises:
      InputError: there is no such file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected {kind}.")
    return path


@contextlib.contextmanager
def reading(path: pathlib.Path, kind: str) -> Iterator[None]:
    """Turns whatever goes wrong in the block into an error of ours that names the file.

    >>> with reading(pathlib.Path("net.onnx"), "an ONNX model"):
    ...     {}["graph"]
    Traceback (most recent call last):
    ...
    autosplit.errors.ArtefactError: net.onnx cannot be read as an ONNX model (KeyError: 'graph'); \
it is truncated, damaged or of another format. Download it again.

    Args:
      path: of the file that is read.
      kind: what it should be, with its article.

    Raises:
      AutosplitError: as the block raised it, the path put before its message.
      ArtefactError: the block raised anything else.
    """
    try:
        yield
    except AutosplitError as error:
        raise type(error)(f"{path}: {error}") from error
    # A damaged file can fail a parser in any way: wrong types, missing keys, bad text, no end.
    except Exception as error:
        raise ArtefactError(
            f"{path} cannot be read as {kind} ({type(error).__name__}: {error}); "
            "it is truncated, damaged or of another format. Download it again."
        ) from error


@contextlib.contextmanager
def optional_library(suffix: str) -> Iterator[None]:
    """Says, where the block's import fails, what to install for files of this suffix.

    Raises:
      ConversionError: the library is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ConversionError(
            f"a {suffix} file needs a library that is not installed ({error}); "
            "install autosplit[converters]."
        ) from error
