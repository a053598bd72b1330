"""Photographs fitted into a detector's input, and boxes brought back to the photograph."""

from __future__ import annotations

import dataclasses

import numpy as np
import PIL.Image

from autosplit.errors import InputError

GREY = 114


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the scaled photograph lies within the network's input, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def place(image_size: tuple[int, int], size: tuple[int, int]) -> Placement:
    """Computes where `letterbox` puts a photograph.

    ``scale = min(H / h, W / w)``; height and width are ``round(scale * h)`` and
    ``round(scale * w)``. The rest is divided between both sides, and of an odd rest
    the larger part is below or right.

    Args:
      image_size: (h, w) of the photograph, in pixels.
      size: (H, W) of the network's input, in pixels.

    Returns:
      The place.

    Raises:
      InputError: a length is less than 1.

    >>> place((480, 640), (416, 416))
    Placement(top=52, left=0, height=312, width=416)
    """
    if min(*image_size, *size) < 1:
        raise InputError(
            f"a photograph of {image_size} pixels goes into {size}; expected lengths of at least 1."
        )
    scale = min(size[0] / image_size[0], size[1] / image_size[1])
    height, width = (max(1, round(scale * length)) for length in image_size)
    # As ultralytics rounds: 2.4 down where the rest is 5.
    top, left = round((size[0] - height) / 2 - 0.1), round((size[1] - width) / 2 - 0.1)
    return Placement(top=top, left=left, height=height, width=width)


def letterbox(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales a photograph to fit, keeping its shape, and fills the rest with grey.

    Args:
      image: u8[h, w, 3].
      size: (H, W) of the network's input, in pixels.

    Returns:
      u8[H, W, 3]; see `place`.

    Raises:
      InputError: the photograph is not uint8[h, w, 3], or a length is less than 1.

    Reference:
      ultralytics' yolov3 of 2020: sizes, rounding and the grey of 114. Deviation: Pillow's
      bilinear filter, which averages where it shrinks; OpenCV's takes the nearest four.

    >>> letterbox(np.zeros((1, 2, 3), np.uint8), (3, 2))[:, 0, 0].tolist()
    [114, 0, 114]
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"the photograph is {image.dtype}{list(image.shape)}; expected uint8[h, w, 3]. "
            "Decode it as RGB."
        )
    at = place(image.shape[:2], size)
    scaled = PIL.Image.fromarray(image).resize(
        (at.width, at.height), PIL.Image.Resampling.BILINEAR
    )
    filled = np.full((*size, 3), GREY, np.uint8)
    filled[at.top : at.top + at.height, at.left : at.left + at.width] = np.asarray(scaled)
    return filled


def boxes_in_photograph(
    boxes: np.ndarray, image_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Brings boxes from the network's input back to the photograph.

    ``x = (x' - left) * w / width``, clipped to 0..w; y alike.

    Args:
      boxes: f32[..., 4], left, top, right, bottom in pixels of the network's input.
      image_size: (h, w) of the photograph, in pixels.
      size: (H, W) of the network's input, in pixels.

    Returns:
      f32[..., 4] in pixels of the photograph.

    Raises:
      InputError: the last axis is not 4, or a length is less than 1.

    Reference:
      ultralytics' yolov3 of 2020. Deviation: it divides by the scale before rounding
      and subtracts half a pixel where the rest is odd; this is the inverse of what
      `letterbox` does to the pixels.

    >>> boxes_in_photograph(np.array([0, 52, 416, 500]), (480, 640), (416, 416)).tolist()
    [0.0, 0.0, 640.0, 480.0]
    """
    boxes = np.asarray(boxes, np.float32)
    if boxes.shape[-1:] != (4,):
        raise InputError(f"the boxes have the shape {list(boxes.shape)}; expected [..., 4].")
    at = place(image_size, size)
    shift = np.array([at.left, at.top] * 2, np.float32)
    whole = np.array([image_size[1], image_size[0]] * 2, np.float32)
    scaled = np.array([at.width, at.height] * 2, np.float32)
    return np.clip((boxes - shift) * (whole / scaled), 0, whole)
