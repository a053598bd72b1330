"""Reads COCO-format annotations: a JSON file of boxes beside a folder of images."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from autosplit.data.decoding import (
    Skipped,
    check_on_error,
    decode_or_list,
    image_size,
    raise_or_list,
)
from autosplit.errors import CalibrationError, InputError

SLACK_PIXELS = 1.0
"""How far a box may reach beyond its image: annotators' polygons are rounded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """One image and the boxes drawn on it.

    Attributes:
      image_id: number in the annotation file.
      path: of the image.
      width_pixels, height_pixels: of the image file.
      boxes: f64[B, 4], x1 y1 x2 y2 in pixels of the image; B may be 0.
      classes: i64[B], class indices.
      areas: f64[B], square pixels of the object, which may be less than its box's.
      is_crowd: bool[B]; such a box stands for many objects and scores nothing.
    """

    image_id: int
    path: pathlib.Path
    width_pixels: int
    height_pixels: int
    boxes: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    is_crowd: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotatedImages:
    """Images with boxes.

    Attributes:
      images: N, by ascending image id; those without a box are among them.
      categories: name by category id, in the order of the class indices.
      skipped: what was left out because it is wrong.
    """

    images: tuple[AnnotatedImage, ...]
    categories: Mapping[int, str]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class index."""
        return tuple(self.categories.values())


def load_annotations(
    annotations: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    categories: Mapping[int, str] | None = None,
    limit: int | None = None,
    on_error: str = "raise",
) -> AnnotatedImages:
    """Reads boxes and finds their images.

    Args:
      annotations: JSON file with ``images``, ``annotations`` and ``categories``.
      folder: that the ``file_name`` of an image is relative to.
      categories: name by category id in the order of the detector's classes, e.g.
        `COCO_CATEGORIES`; None means the file's own by ascending id.
      limit: at most so many images, the ones with the lowest ids; None means all.
      on_error: ``"raise"``, or ``"skip"`` to leave out wrong images and annotations and
        list them in ``skipped``. Every image is then decoded once, to know.

    Returns:
      Images with their boxes. With ``"raise"`` only their headers have been read.

    Raises:
      InputError: the JSON file is not of this form; an image is missing, is named twice
        or has another size; an annotation has an id that another one has, an image that
        is not listed, an unknown category, or a box that has no area, is not finite or
        reaches out of its image.
      CalibrationError: an image cannot be decoded, or no image is left.
    """
    check_on_error(on_error)
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected 1 or more, or None for all.")
    path = pathlib.Path(annotations)
    document = _read_document(path)
    known = _categories(document["categories"], categories, path)
    skipped: list[Skipped] = []
    images = _images(document["images"], pathlib.Path(folder), path, limit, on_error, skipped)
    indices = {key: index for index, key in enumerate(known)}
    boxes = _boxes(document, images, indices, path, on_error, skipped)
    found = tuple(
        _annotated(image_id, file, size, boxes[image_id])
        for image_id, (file, size) in images.items()
        if size is not None
    )
    if not found:
        raise CalibrationError(
            f"{path} names no usable image in {folder} ({len(skipped)} left out); expected one."
        )
    return AnnotatedImages(images=found, categories=known, skipped=tuple(skipped))


def _read_document(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is no complete JSON file ({error}); expected COCO annotations."
        ) from error
    for key in ("images", "annotations", "categories"):
        rows = document.get(key) if isinstance(document, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path} has no list {key!r} of objects; expected COCO annotations.")
    return document


def _categories(
    rows: list[dict[str, Any]], wanted: Mapping[int, str] | None, path: pathlib.Path
) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in rows:
        key = _integer(row, "id")
        if key is None or not isinstance(row.get("name"), str) or key in found:
            raise InputError(f"{path} has the category {row}; expected a new id and a name.")
        found[key] = row["name"]
    if wanted is None:
        return dict(sorted(found.items()))
    for key in sorted(found.keys() & wanted.keys()):
        if found[key] != wanted[key]:
            raise InputError(
                f"category {key} of {path} is {found[key]!r}; expected {wanted[key]!r}. Pass the "
                "categories that the detector was trained with."
            )
    return dict(wanted)


def _integer(row: Mapping[str, Any], key: str) -> int | None:
    value = row.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# ---- Images

_Size = tuple[int, int]


def _images(
    rows: list[dict[str, Any]],
    folder: pathlib.Path,
    path: pathlib.Path,
    limit: int | None,
    on_error: str,
    skipped: list[Skipped],
) -> dict[int, tuple[pathlib.Path, _Size | None]]:
    """Returns file and size by ascending image id; no size for an image that is left out."""
    listed: dict[int, dict[str, Any]] = {}
    for position, row in enumerate(rows):
        key = _integer(row, "id")
        if key is None or not isinstance(row.get("file_name"), str):
            fault = "lacks an integer id or a file_name; expected both."
            raise_or_list(skipped, on_error, f"image {position} of {path}", fault)
        elif key in listed:
            both = f"{listed[key]['file_name']}, {row['file_name']}"
            fault = f"is listed twice ({both}); expected once."
            raise_or_list(skipped, on_error, f"image id {key} of {path}", fault)
        else:
            listed[key] = row
    chosen = set(sorted(listed)[:limit])
    return {
        key: (
            folder / listed[key]["file_name"],
            _size(listed[key], folder, on_error, skipped) if key in chosen else None,
        )
        for key in sorted(listed)
    }


def _size(
    row: dict[str, Any], folder: pathlib.Path, on_error: str, skipped: list[Skipped]
) -> _Size | None:
    """Returns width and height of an image file that is there, intact and as described."""
    file = folder / row["file_name"]
    if not file.is_file():
        raise_or_list(skipped, on_error, str(file), "is not there; expected an image.")
        return None
    if on_error == "skip":
        image = decode_or_list(file, on_error, skipped)
        if image is None:
            return None
        size = image.size
    else:
        size = image_size(file)
    stated = (row.get("width", size[0]), row.get("height", size[1]))
    if stated != size:
        found, expected = (f"{width} x {height}" for width, height in (size, stated))
        fault = f"has {found} pixels; expected {expected}, as annotated."
        raise_or_list(skipped, on_error, str(file), fault)
        return None
    return size


# ---- Boxes


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Box:
    corners: tuple[float, float, float, float]
    index: int
    area: float
    is_crowd: bool


def _boxes(
    document: Mapping[str, list[dict[str, Any]]],
    images: Mapping[int, tuple[pathlib.Path, _Size | None]],
    indices: Mapping[int, int],
    path: pathlib.Path,
    on_error: str,
    skipped: list[Skipped],
) -> dict[int, list[_Box]]:
    """Returns the boxes by image id, in the order of the file."""
    boxes: dict[int, list[_Box]] = defaultdict(list)
    seen: set[int] = set()
    listed = {_integer(row, "id") for row in document["images"]}
    for position, row in enumerate(document["annotations"]):
        key, image_id = _integer(row, "id"), _integer(row, "image_id")
        fault: str | None = None
        if key is None or key in seen:
            fault = "has no integer id; expected one." if key is None else "is there twice."
        elif image_id is None or image_id not in listed:
            fault = f"has the image_id {row.get('image_id')!r}, which is not listed; expected one."
        elif image_id in images and (size := images[image_id][1]) is not None:
            fault = _box_fault(row, size, indices)
            if not fault:
                boxes[image_id].append(_box(row, indices))
        if fault:
            what = f"annotation {position if key is None else key} of {path}"
            raise_or_list(skipped, on_error, what, fault)
        elif key is not None:
            seen.add(key)
    return boxes


def _box_fault(row: dict[str, Any], size: _Size, indices: Mapping[int, int]) -> str | None:
    """Returns what is wrong with an annotation of an image, or None."""
    if _integer(row, "category_id") not in indices:
        found = row.get("category_id")
        return f"has the category_id {found!r}; expected one of {', '.join(map(str, indices))}."
    bbox = row.get("bbox")
    numbers = [value for value in bbox if _is_finite(value)] if isinstance(bbox, list) else []
    if not isinstance(bbox, list) or not len(bbox) == len(numbers) == 4:
        return f"has the bbox {bbox!r}; expected four finite numbers x, y, width, height."
    x, y, width, height = numbers
    if width <= 0 or height <= 0:
        return f"has a box of {width} x {height} pixels; expected both above 0."
    low, right, below = -SLACK_PIXELS, size[0] + SLACK_PIXELS, size[1] + SLACK_PIXELS
    if x < low or y < low or x + width > right or y + height > below:
        return (
            f"has the box x {x} to {x + width:g}, y {y} to {y + height:g}; expected it inside the "
            f"image of {size[0]} x {size[1]} pixels."
        )
    area = row.get("area", 1.0)
    if not _is_finite(area) or area < 0:
        return f"has the area {area!r}; expected a finite number of square pixels."
    return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _box(row: dict[str, Any], indices: Mapping[int, int]) -> _Box:
    x, y, width, height = map(float, row["bbox"])
    return _Box(
        corners=(x, y, x + width, y + height),
        index=indices[row["category_id"]],
        area=float(row.get("area", width * height)),
        is_crowd=bool(row.get("iscrowd", 0)),
    )


def _annotated(
    image_id: int, file: pathlib.Path, size: _Size, boxes: list[_Box]
) -> AnnotatedImage:
    return AnnotatedImage(
        image_id=image_id,
        path=file,
        width_pixels=size[0],
        height_pixels=size[1],
        boxes=np.array([box.corners for box in boxes], np.float64).reshape(-1, 4),
        classes=np.array([box.index for box in boxes], np.int64),
        areas=np.array([box.area for box in boxes], np.float64),
        is_crowd=np.array([box.is_crowd for box in boxes], bool),
    )
