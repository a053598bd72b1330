"""Reads a folder of photographs, with labels where names or subfolders give them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import PIL.Image

from autosplit.data.imagenet import CROP_PIXELS, RESIZE_PIXELS, resize_and_crop
from autosplit.errors import CalibrationError, InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# Narrow on purpose: a telephone's IMG_20260314_120000 has no class 120000.
LABELLED_NAMES = (
    re.compile(r"(?P<label>\d+)_n\d{8}"),  # 0107_n01910747
    re.compile(r"imagenet_\d+_(?P<label>\d+)"),  # imagenet_00_243
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Photographs before normalization.

    Attributes:
      images: u8[N, H, W, 3], red first.
      labels: i64[N], class indices; None where the folder does not say.
      paths: N files.
    """

    images: np.ndarray
    labels: np.ndarray | None
    paths: tuple[pathlib.Path, ...]

    def __len__(self) -> int:
        return len(self.images)


def load_images(
    folder: str | os.PathLike[str],
    limit: int | None = None,
    resize: int = RESIZE_PIXELS,
    crop: int = CROP_PIXELS,
) -> LabelledImages:
    """Loads the photographs of a folder, scaled and cropped.

    Labels come from subfolders (class = rank of the subfolder's name), else from
    names like ``0107_n01910747.jpg`` (first number) or ``imagenet_00_243.jpg``
    (last number) where every file has one of the same form, else there are none.

    Args:
      folder: of image files, or of one subfolder for each class.
      limit: at most so many, evenly spaced over the sorted files, so that few of
        many sorted classes are not the first few; None means all.
      resize: length of the short side after scaling, in pixels.
      crop: height and width of the images, in pixels.

    Returns:
      The images in the order of their sorted paths.

    Raises:
      InputError: there is no such folder, or limit is below 1.
      CalibrationError: the folder has no images, or images both in itself and in
        subfolders, or a file cannot be decoded.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected one with photographs.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected 1 or more, or None for all.")
    paths, labels = _list_images(folder)
    if limit is not None and limit < len(paths):
        chosen = np.arange(limit) * len(paths) // limit
        paths = [paths[i] for i in chosen]
        labels = None if labels is None else labels[chosen]
    images = np.stack([_decode(path, resize, crop) for path in paths])
    return LabelledImages(images=images, labels=labels, paths=tuple(paths))


def load_files(
    paths: Sequence[str | os.PathLike[str]], resize: int = RESIZE_PIXELS, crop: int = CROP_PIXELS
) -> LabelledImages:
    """As `load_images`, for given files in the given order; labels from their names."""
    files = [pathlib.Path(path) for path in paths]
    if not files:
        raise CalibrationError("no image files are given; expected one or more.")
    images = np.stack([_decode(path, resize, crop) for path in files])
    return LabelledImages(images=images, labels=_labels_of_names(files), paths=tuple(files))


def _list_images(folder: pathlib.Path) -> tuple[list[pathlib.Path], np.ndarray | None]:
    direct = _image_files(folder)
    classes = [(d, _image_files(d)) for d in sorted(folder.iterdir()) if d.is_dir()]
    nested = [(path, label) for label, (_, files) in enumerate(classes) for path in files]
    if direct and nested:
        raise CalibrationError(
            f"{folder} has {len(direct)} images beside {len(nested)} in subfolders; expected "
            "either. Move the images or name one subfolder."
        )
    if not direct and not nested:
        raise CalibrationError(
            f"{folder} has no images; expected files that end in {', '.join(SUFFIXES)}."
        )
    if direct:
        return direct, _labels_of_names(direct)
    return [path for path, _ in nested], np.array([label for _, label in nested], np.int64)


def _image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _labels_of_names(paths: Sequence[pathlib.Path]) -> np.ndarray | None:
    for pattern in LABELLED_NAMES:
        matches = [pattern.fullmatch(path.stem) for path in paths]
        labels = [int(match["label"]) for match in matches if match]
        if len(labels) == len(paths):
            return np.array(labels, np.int64)
    return None


def _decode(path: pathlib.Path, resize: int, crop: int) -> np.ndarray:
    try:
        with PIL.Image.open(path) as image:
            return resize_and_crop(image, resize, crop)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise CalibrationError(
            f"{path} cannot be decoded ({error}); expected an intact image. Replace or remove it."
        ) from error
