"""What every network of the zoo expects of its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from autosplit.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageInput:
    """How photographs become the input of a network.

    Attributes:
      resize_pixels: length of the short side after scaling; of the long side where
        ``letterbox`` is True.
      crop_pixels: height and width of the network's input.
      mean: what is subtracted, on the scale 0 to 255, in the order of ``channels``.
      std: what is divided by thereafter, likewise.
      channels: the order that the network takes colours in.
      letterbox: the whole photograph is scaled into the input and padded; otherwise its
        centre is cut out.
    """

    resize_pixels: int = 256
    crop_pixels: int = 224
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Literal["rgb", "bgr"] = "rgb"
    letterbox: bool = False

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Computes ``(images - mean) / std``, colours in the network's order.

        Args:
          images: u8[..., 3], red first.

        Returns:
          f32[..., 3].

        Raises:
          InputError: the images are not of type uint8, or the last axis is not 3.

        >>> image_input("mobilenet_v1").normalize(np.array([0, 51, 255], np.uint8)).tolist()
        [-1.0, -0.6000000238418579, 1.0]
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[-1:] != (3,):
            raise InputError(
                f"images are {images.dtype}{list(images.shape)}; expected uint8[..., 3], red "
                "first. Normalize photographs once, before any other arithmetic."
            )
        ordered = images[..., ::-1] if self.channels == "bgr" else images
        mean, std = np.array((self.mean, self.std), np.float32)
        return (ordered.astype(np.float32) - mean) / std


# Mean and standard deviation of ImageNet's training images on the scale 0 to 1 are .485 .456
# .406 and .229 .224 .225.
TORCHVISION = ImageInput(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
MINUS_ONE_TO_ONE = ImageInput(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
CAFFE = ImageInput(mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), channels="bgr")
DARKNET = ImageInput(
    resize_pixels=416,
    crop_pixels=416,
    mean=(0.0, 0.0, 0.0),
    std=(255.0, 255.0, 255.0),
    letterbox=True,
)
LITE = ImageInput(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))

INPUTS: Mapping[str, ImageInput] = {
    "resnet18": TORCHVISION,
    "resnet34": TORCHVISION,
    "resnet50": TORCHVISION,
    "resnet50_v1": CAFFE,
    "resnet101": TORCHVISION,
    "resnext50_32x4d": TORCHVISION,
    "mobilenet_v1": MINUS_ONE_TO_ONE,
    "mobilenet_v2": TORCHVISION,
    "mnasnet1_0": TORCHVISION,
    "googlenet": MINUS_ONE_TO_ONE,
    "googlenet_aux": MINUS_ONE_TO_ONE,
    "efficientnet_lite0": LITE,
    # TensorFlow trained them on crops with a margin of 32 pixels.
    "efficientnet_lite1": dataclasses.replace(LITE, resize_pixels=272, crop_pixels=240),
    "efficientnet_lite2": dataclasses.replace(LITE, resize_pixels=292, crop_pixels=260),
    "yolov3": DARKNET,
    "yolov3_spp": DARKNET,
    "yolov3_tiny": DARKNET,
}


def image_input(name: str) -> ImageInput:
    """Returns what a model of `autosplit.models.MODELS` expects of its images.

    Args:
      name: key of `autosplit.models.MODELS`.

    Returns:
      The preprocessing that the published weights were trained with.

    Raises:
      InputError: the name is not in `autosplit.models.MODELS`.

    >>> image_input("resnet50_v1").channels
    'bgr'
    """
    if name not in INPUTS:
        raise InputError(
            f"there is no model named {name!r}; expected one of {', '.join(INPUTS)}. For a "
            "network of your own, build an ImageInput."
        )
    return INPUTS[name]
