"""Draws found boxes and their names on a photograph."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import ArrayLike

from autosplit.errors import InputError

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#C0399F", "#7F3FBF", "#A67C00", "#C1272D", "#1B7F8C",
    "#4B5CC4", "#5A7D0C", "#8B4513", "#E0457B", "#2F4F9F", "#00796B", "#6A1B9A", "#B34700",
    "#3D7A3D", "#9C2A5B", "#5D6470", "#0B8FD1",
)  # fmt: skip
"""Of the boxes; dark enough for white letters on them."""

_Rectangle = tuple[float, float, float, float]


def draw_boxes(
    image: np.ndarray,
    boxes: ArrayLike,
    labels: Sequence[str],
    scores: ArrayLike | None = None,
) -> np.ndarray:
    """Returns a copy of a photograph with boxes and their labels.

    A label has one colour on every picture. The box with the highest score lies on top,
    and its label has the first choice of a corner where it covers no other. Lines and
    letters grow with the picture.

    Args:
      image: u8[H, W, 3], red first.
      boxes: float[D, 4], x1 y1 x2 y2 in pixels; parts outside of the image are cut off.
      labels: D.
      scores: float[D], 0 to 1, written behind the labels in percent; None writes none.

    Returns:
      u8[H, W, 3].

    Raises:
      InputError: a shape differs, or a box is not finite.

    >>> picture = draw_boxes(np.zeros((60, 80, 3), np.uint8), [[5, 5, 70, 50]], ["bus"], [0.9])
    >>> picture.shape, bool(picture.any())
    ((60, 80, 3), True)
    """
    corners, order = _checked(image, boxes, labels, scores)
    picture = PIL.Image.fromarray(image)
    draw = PIL.ImageDraw.Draw(picture)
    width = max(1, round(min(picture.size) / 180))
    corners = np.clip(corners, 0, np.tile(picture.size, 2) - 1)
    colours = [COLOURS[zlib.crc32(label.encode()) % len(COLOURS)] for label in labels]
    texts = list(labels)
    if scores is not None:
        percents = 100 * np.asarray(scores, np.float64)
        texts = [f"{label} {value:.0f}%" for label, value in zip(labels, percents, strict=True)]
    for index in order:
        draw.rectangle(corners[index].tolist(), outline=colours[index], width=width)
    taken: list[_Rectangle] = []
    for index in reversed(order):  # the best box has the first choice of a place
        box, colour = corners[index], colours[index]
        taken.append(_write(draw, texts[index], colour, box, picture.size, taken))
    return np.array(picture)


def _checked(
    image: np.ndarray, boxes: ArrayLike, labels: Sequence[str], scores: ArrayLike | None
) -> tuple[np.ndarray, list[int]]:
    """Returns the boxes and the order to draw them in."""
    image, boxes = np.asarray(image), np.asarray(boxes, np.float64).reshape(-1, 4)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"the image is {image.dtype}{list(image.shape)}; expected uint8[H, W, 3], red first."
        )
    values = np.arange(len(boxes))[::-1] if scores is None else np.asarray(scores)
    if len(labels) != len(boxes) or values.shape != (len(boxes),):
        raise InputError(
            f"{len(boxes)} boxes have {len(labels)} labels and {values.size} scores; expected one "
            "of each for every box."
        )
    if not np.isfinite(boxes).all():
        raise InputError("the boxes hold NaN or infinity; expected pixels.")
    if (boxes[:, :2] > boxes[:, 2:]).any():
        raise InputError("a box has its corners swapped; expected x1 <= x2 and y1 <= y2.")
    return boxes, np.argsort(values, kind="stable").tolist()


def _write(
    draw: PIL.ImageDraw.ImageDraw,
    text: str,
    colour: str,
    box: np.ndarray,
    picture: tuple[int, int],
    taken: Sequence[_Rectangle],
) -> _Rectangle:
    """Writes a label at its box and returns what it covers."""
    font = PIL.ImageFont.load_default(max(9, min(picture) / 30))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = max(2.0, (bottom - top) / 4)
    place = _place(box, (right - left + 2 * pad, bottom - top + 2 * pad), picture, taken)
    draw.rectangle(place, fill=colour)
    draw.text((place[0] + pad - left, place[1] + pad - top), text, fill="white", font=font)
    return place


def _place(
    box: np.ndarray,
    size: tuple[float, float],
    picture: tuple[int, int],
    taken: Sequence[_Rectangle],
) -> _Rectangle:
    """Returns where a label goes: at a corner of its box, within the picture, free if possible."""
    wide, high = size
    x1, y1, x2, y2 = box.tolist()
    places = []
    for top in (y1 - high, y1, y2, y2 - high):
        for left in (x1, x2 - wide):
            left = max(0.0, min(left, picture[0] - wide))
            if 0 <= top <= picture[1] - high:
                places.append((left, top, left + wide, top + high))
    free = [place for place in places if not any(_overlap(place, other) for other in taken)]
    first = (max(0.0, min(x1, picture[0] - wide)), y1, x1 + wide, y1 + high)
    return next(iter([*free, *places, first]))


def _overlap(one: _Rectangle, other: _Rectangle) -> bool:
    return (
        one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
    )
