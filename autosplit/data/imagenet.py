"""ImageNet's class names, and photographs scaled and cropped as torchvision does it."""

from __future__ import annotations

import functools
import pathlib

import numpy as np
import PIL.Image

from autosplit.errors import InputError

RESIZE_PIXELS = 256
CROP_PIXELS = 224


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


@functools.cache
def class_names() -> tuple[str, ...]:
    """Returns the names of ImageNet's 1,000 classes by index.

    >>> len(class_names()), class_names()[0]
    (1000, 'tench')
    """
    path = pathlib.Path(__file__).with_name("imagenet_classes.txt")
    return tuple(path.read_text(encoding="utf-8").splitlines())
