"""Sizes are what the codecs write; what is called lossless is."""

import io

import numpy as np
import PIL.Image
import pytest

from autosplit.errors import CalibrationError, InputError
from autosplit.profiling.image_codecs import decode_roundtrip, encodings


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    smooth = 127 + 90 * np.sin(x / 9 + y / 13)[None, ..., None] * np.array([1, 0.5, -1])
    return np.clip(smooth + rng.normal(0, 8, (3, 48, 64, 3)), 0, 255).astype(np.uint8)


def test_names_sizes_and_times(images):
    found = encodings(images, jpeg_quality=(90, 50))
    raw, png, good, small = found
    assert [e.name for e in found] == ["raw", "png", "jpeg-q90", "jpeg-q50"]
    assert [e.lossless for e in found] == [True, True, False, False]
    assert raw.payload_bytes == 48 * 64 * 3
    assert raw.encode_s == raw.decode_s == 0
    assert small.payload_bytes < good.payload_bytes < png.payload_bytes < raw.payload_bytes
    assert all(e.encode_s > 0 and e.decode_s > 0 for e in (png, good, small))


def test_payload_is_the_mean_of_pillows_files(images):
    sizes = []
    for image in images:
        stream = io.BytesIO()
        PIL.Image.fromarray(image).save(stream, "JPEG", quality=75)
        sizes.append(len(stream.getvalue()))
    (_, _, jpeg) = encodings(images, jpeg_quality=(75,))
    assert jpeg.payload_bytes == pytest.approx(np.mean(sizes))


def test_the_default_qualities_run_downwards(images):
    sizes = [e.payload_bytes for e in encodings(images)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_round_trip_loses_more_at_lower_quality(images):
    errors = []
    for quality in (95, 75, 25):
        decoded = decode_roundtrip(images, quality)
        assert decoded.shape == images.shape
        assert decoded.dtype == np.uint8
        errors.append(np.mean(np.square(decoded.astype(float) - images)))
    assert 0 < errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("quality", [0, 96])
def test_a_quality_out_of_range_is_refused(images, quality):
    with pytest.raises(InputError, match="expected 1"):
        decode_roundtrip(images, quality)
    with pytest.raises(InputError, match="expected 1"):
        encodings(images, jpeg_quality=(quality,))


def test_images_of_another_kind_are_refused(images):
    with pytest.raises(InputError, match="before normalization"):
        encodings(images.astype(np.float32))
    with pytest.raises(InputError, match="before normalization"):
        encodings(images[0])
    with pytest.raises(CalibrationError, match="no images"):
        encodings(images[:0])
