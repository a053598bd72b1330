"""Prices the ways to send a photograph as it is: raw, PNG, JPEG."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Sequence

import numpy as np
import PIL.Image

from autosplit.errors import CalibrationError, InputError
from autosplit.profiling.table import InputEncoding

JPEG_QUALITIES = (95, 90, 80, 75, 60, 50)


def encodings(
    images: np.ndarray, jpeg_quality: Sequence[int] = JPEG_QUALITIES
) -> tuple[InputEncoding, ...]:
    """Measures size and time of every way to send the images to the cloud.

    One image is one request. JPEG is Pillow's: baseline, 4:2:0 chroma. What it does
    to the outputs is to be measured on the images of `decode_roundtrip`.

    Args:
      images: u8[N, H, W, 3], after resizing and cropping, before normalization.
      jpeg_quality: one encoding for each, 1 (small) to 95 (good).

    Returns:
      ``raw`` (one byte an element), ``png``, then ``jpeg-qNN`` in the given order;
      bytes are means, seconds are medians over the images.

    Raises:
      InputError: the images are not uint8[N, H, W, 3], or a quality is out of range.
      CalibrationError: there are no images.

    >>> images = np.zeros((2, 8, 8, 3), np.uint8)
    >>> [(e.name, e.lossless) for e in encodings(images, jpeg_quality=(90,))]
    [('raw', True), ('png', True), ('jpeg-q90', False)]
    """
    _require_images(images)
    raw = InputEncoding(name="raw", payload_bytes=float(images[0].size), lossless=True)
    jpegs = (_measure(images, f"jpeg-q{_checked(q)}", quality=q) for q in jpeg_quality)
    return (raw, _measure(images, "png", quality=None), *jpegs)


def decode_roundtrip(images: np.ndarray, quality: int) -> np.ndarray:
    """Returns the images as the cloud sees them after JPEG.

    Args:
      images: u8[N, H, W, 3].
      quality: of the JPEG, 1 to 95.

    Returns:
      u8[N, H, W, 3].

    Raises:
      InputError: the images are not uint8[N, H, W, 3], or the quality is out of range.
      CalibrationError: there are no images.

    >>> decode_roundtrip(np.full((1, 8, 8, 3), 128, np.uint8), 90).max()
    np.uint8(128)
    """
    _require_images(images)
    quality = _checked(quality)
    return np.stack([_decode(_encode(image, quality)) for image in images])


def _measure(images: np.ndarray, name: str, quality: int | None) -> InputEncoding:
    sizes, encode_s, decode_s = [], [], []
    _decode(_encode(images[0], quality))  # the first call loads Pillow's plugins
    for image in images:
        start = time.perf_counter()
        payload = _encode(image, quality)
        middle = time.perf_counter()
        _decode(payload)
        decode_s.append(time.perf_counter() - middle)
        encode_s.append(middle - start)
        sizes.append(len(payload))
    return InputEncoding(
        name=name,
        payload_bytes=statistics.fmean(sizes),
        lossless=quality is None,
        encode_s=statistics.median(encode_s),
        decode_s=statistics.median(decode_s),
    )


def _encode(image: np.ndarray, quality: int | None) -> bytes:
    """Encodes as JPEG of a quality, or as PNG where it is None."""
    stream = io.BytesIO()
    if quality is None:
        PIL.Image.fromarray(image).save(stream, "PNG")
    else:
        PIL.Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _decode(payload: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(payload)) as image:
        return np.array(image)


def _checked(quality: int) -> int:
    if not 1 <= quality <= 95:
        raise InputError(f"JPEG quality is {quality}; expected 1 (small) to 95 (good).")
    return quality


def _require_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(
            f"images are {images.dtype}{list(images.shape)}; expected uint8[N, H, W, 3] "
            "before normalization."
        )
    if not len(images):
        raise CalibrationError("there are no images to encode; expected one or more.")
