"""ImageNet's class names, and photographs made ready as torchvision does it."""

from __future__ import annotations

import functools
import pathlib

import numpy as np
import PIL.Image

from autosplit.errors import InputError

RESIZE_PIXELS = 256
CROP_PIXELS = 224
# Of the red, green and blue of ImageNet's training images, scaled to 0..1.
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)


def resize_and_crop(
    image: PIL.Image.Image, resize: int = RESIZE_PIXELS, crop: int = CROP_PIXELS
) -> np.ndarray:
    """Scales the short side and cuts out the centre.

    Equal, byte for byte, to torchvision's ``Resize`` and ``CenterCrop`` on a PIL
    image: bilinear with antialiasing, the long side rounded down.

    Args:
      image: of any size and mode.
      resize: length of the short side after scaling, in pixels.
      crop: height and width of the result, in pixels; at most ``resize``.

    Returns:
      u8[crop, crop, 3], red first.

    Raises:
      InputError: the crop is larger than the scaled image.

    >>> resize_and_crop(PIL.Image.new("L", (640, 480))).shape
    (224, 224, 3)
    """
    if not 0 < crop <= resize:
        raise InputError(f"crop is {crop} pixels; expected 1 to {resize}, the scaled short side.")
    width, height = image.size
    short = min(width, height)
    size = (int(resize * width / short), int(resize * height / short))
    scaled = image.convert("RGB").resize(size, PIL.Image.Resampling.BILINEAR)
    left, top = (round((length - crop) / 2) for length in size)
    return np.array(scaled.crop((left, top, left + crop, top + crop)))


def normalize(images: np.ndarray) -> np.ndarray:
    """Computes ``(images / 255 - MEAN) / STD``, what torchvision's classifiers take.

    Args:
      images: u8[..., 3], red first.

    Returns:
      f32[..., 3].

    Raises:
      InputError: the images are not of type uint8, or the last axis is not 3.

    >>> [f"{value:.3f}" for value in normalize(np.zeros(3, np.uint8))]
    ['-2.118', '-2.036', '-1.804']
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.shape[-1:] != (3,):
        raise InputError(
            f"images are {images.dtype}{list(images.shape)}; expected uint8[..., 3], red first."
        )
    return (images.astype(np.float32) / 255 - MEAN) / STD


@functools.cache
def class_names() -> tuple[str, ...]:
    """Returns the names of ImageNet's 1,000 classes by index.

    >>> len(class_names()), class_names()[0]
    (1000, 'tench')
    """
    path = pathlib.Path(__file__).with_name("imagenet_classes.txt")
    return tuple(path.read_text(encoding="utf-8").splitlines())
