"""Decodes image files, and raises or lists what is wrong with them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator

import PIL.Image

from autosplit.errors import CalibrationError, InputError

ON_ERROR = ("raise", "skip")
"""What to do with a file or an annotation that is wrong."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that was left out because it is wrong.

    Attributes:
      what: file, row or annotation.
      reason: what is wrong with it, what was expected.
    """

    what: str
    reason: str


def check_on_error(on_error: str) -> None:
    """Raises `InputError` for a value that is not in `ON_ERROR`."""
    if on_error not in ON_ERROR:
        raise InputError(f"on_error is {on_error!r}; expected {' or '.join(map(repr, ON_ERROR))}.")


def raise_or_list(skipped: list[Skipped], on_error: str, what: str, reason: str) -> None:
    """Raises what is wrong with a row or an annotation, or appends it to a list.

    Args:
      skipped: to append to.
      on_error: ``"raise"`` or ``"skip"``.
      what: is wrong.
      reason: what was found and expected, as the end of a sentence.

    Raises:
      InputError: on_error is ``"raise"``.

    >>> skipped = []
    >>> raise_or_list(skipped, "skip", "row 3", "has 1 column; expected 2.")
    >>> skipped[0].what
    'row 3'
    """
    if on_error == "raise":
        raise InputError(f"{what} {reason} Correct it, or pass on_error='skip'.")
    skipped.append(Skipped(what=what, reason=reason))


def decode_image(
    source: str | os.PathLike[str] | bytes, name: str | None = None
) -> PIL.Image.Image:
    """Decodes a whole image with Pillow.

    Orientation marks of cameras are not followed, as in torchvision and in COCO.

    Args:
      source: file, or the bytes of one.
      name: to call bytes by in the error.

    Returns:
      Red, green and blue, 8 bits each; other modes are converted.

    Raises:
      CalibrationError: it is missing, truncated or no image.

    >>> buffer = io.BytesIO()
    >>> PIL.Image.new("L", (4, 3)).save(buffer, "png")
    >>> decode_image(buffer.getvalue())
    <PIL.Image.Image image mode=RGB size=4x3 ...>
    """
    shown = name or ("an encoded image" if isinstance(source, bytes) else pathlib.Path(source))
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with _decodable(shown), PIL.Image.open(stream) as image:
        return image.convert("RGB")


def image_size(path: pathlib.Path) -> tuple[int, int]:
    """Reads width and height out of an image's header, in pixels; raises as `decode_image`."""
    with _decodable(path), PIL.Image.open(path) as image:
        return image.size


def decode_or_list(
    path: pathlib.Path, on_error: str, skipped: list[Skipped]
) -> PIL.Image.Image | None:
    """As `decode_image`; with ``"skip"`` a wrong file is appended to a list and gives None."""
    try:
        return decode_image(path)
    except CalibrationError as error:
        if on_error == "raise":
            raise
        skipped.append(Skipped(what=str(path), reason=str(error)))
        return None


@contextlib.contextmanager
def _decodable(shown: str | pathlib.Path) -> Iterator[None]:
    """Names the file in what Pillow raises."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise CalibrationError(
            f"{shown} cannot be decoded ({error}); expected an intact image. Replace or remove it."
        ) from error
