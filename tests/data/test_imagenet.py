"""Scaling and cropping are torchvision's, byte for byte."""

import numpy as np
import PIL.Image
import pytest

from autosplit import data
from autosplit.errors import InputError

SIZES = [(640, 480), (333, 500), (224, 224), (300, 257), (100, 151), (257, 1023)]


def photograph(width, height, mode="RGB"):
    """Smooth colours and fine noise, so that resampling matters."""
    rng = np.random.default_rng(width + height)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 17), np.cos(y / 23), np.sin((x + y) / 31)], axis=-1)
    pixels = 127 + 80 * waves + rng.normal(0, 20, (height, width, 3))
    return PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("size", SIZES)
def test_crops_equal_torchvisions(torchvision, size):
    image = photograph(*size)
    transforms = torchvision.transforms
    cropped = transforms.CenterCrop(224)(transforms.Resize(256)(image))
    crop = data.resize_and_crop(image)
    np.testing.assert_array_equal(crop, np.asarray(cropped), strict=True)


def test_class_names_are_torchvisions(torchvision):
    expected = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert data.class_names() == tuple(expected)


def test_class_names_are_distinct():
    assert len(set(data.class_names())) == 1000
    assert all(name == name.strip() and name for name in data.class_names())


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_mode_becomes_three_channels(mode):
    assert data.resize_and_crop(photograph(50, 40, mode), 32, 24).shape == (24, 24, 3)


def test_the_crop_is_the_centre():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6] = 255
    crop = data.resize_and_crop(PIL.Image.fromarray(pixels), resize=8, crop=4)
    assert np.all(crop == 255)


@pytest.mark.parametrize("crop", [0, 33])
def test_a_crop_that_does_not_fit_is_refused(crop):
    with pytest.raises(InputError, match="expected 1 to 32"):
        data.resize_and_crop(photograph(50, 40), resize=32, crop=crop)
