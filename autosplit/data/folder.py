"""Reads a folder of photographs, with labels where names or subfolders give them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from autosplit.data.decoding import Skipped, check_on_error, decode_or_list
from autosplit.data.imagenet import CROP_PIXELS, RESIZE_PIXELS, resize_and_crop
from autosplit.errors import CalibrationError, InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# Narrow on purpose: a telephone's IMG_20260314_120000 has no class 120000.
LABELLED_NAMES = (
    re.compile(r"(?P<label>\d+)_n\d{8}"),  # 0107_n01910747
    re.compile(r"imagenet_\d+_(?P<label>\d+)"),  # imagenet_00_243
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledFiles:
    """Photographs that are not decoded yet.

    Attributes:
      paths: N files.
      labels: i64[N], class indices; None where nothing says.
      class_names: by class index; None where only numbers are known.
      skipped: what was left out on the way.
    """

    paths: tuple[pathlib.Path, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None = None
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Photographs before normalization.

    Attributes:
      images: u8[N, H, W, 3], red first.
      labels: i64[N], class indices; None where the folder does not say.
      paths: N files.
      skipped: what was left out on the way.
    """

    images: np.ndarray
    labels: np.ndarray | None
    paths: tuple[pathlib.Path, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


def load_images(
    folder: str | os.PathLike[str],
    limit: int | None = None,
    resize: int = RESIZE_PIXELS,
    crop: int = CROP_PIXELS,
    on_error: str = "raise",
) -> LabelledImages:
    """Loads the photographs of a folder, scaled and cropped.

    Args:
      folder, limit: as for `list_images`.
      resize: length of the short side after scaling, in pixels.
      crop: height and width of the images, in pixels.
      on_error: ``"raise"``, or ``"skip"`` to leave out what cannot be decoded and list
        it in ``skipped``.

    Returns:
      The images in the order of their sorted paths.

    Raises:
      InputError: as `list_images`, or on_error is neither.
      CalibrationError: as `list_images`; a file cannot be decoded, or none can.
    """
    return load_labelled(list_images(folder, limit), resize, crop, on_error)


def load_files(
    paths: Sequence[str | os.PathLike[str]], resize: int = RESIZE_PIXELS, crop: int = CROP_PIXELS
) -> LabelledImages:
    """As `load_images`, for given files in the given order; labels from their names."""
    files = [pathlib.Path(path) for path in paths]
    if not files:
        raise CalibrationError("no image files are given; expected one or more.")
    labels = _labels_of_names(files)
    return load_labelled(LabelledFiles(paths=tuple(files), labels=labels), resize, crop)


def load_labelled(
    files: LabelledFiles,
    resize: int = RESIZE_PIXELS,
    crop: int = CROP_PIXELS,
    on_error: str = "raise",
) -> LabelledImages:
    """As `load_images`, for files that `list_images` or `read_label_csv` found."""
    check_on_error(on_error)
    images, kept, skipped = [], [], list(files.skipped)
    for index, path in enumerate(files.paths):
        if (image := decode_or_list(path, on_error, skipped)) is not None:
            images.append(resize_and_crop(image, resize, crop))
            kept.append(index)
    rest = _keep(files, kept, skipped)
    return LabelledImages(
        images=np.stack(images), labels=rest.labels, paths=rest.paths, skipped=rest.skipped
    )


def keep_intact(files: LabelledFiles) -> LabelledFiles:
    """Decodes every file once and lists those that cannot be in ``skipped``.

    For a set that is too large to load at once: what is left can be read in any order
    without a surprise.

    Raises:
      CalibrationError: none is left.
    """
    skipped = list(files.skipped)
    kept = [
        index
        for index, path in enumerate(files.paths)
        if decode_or_list(path, "skip", skipped) is not None
    ]
    return _keep(files, kept, skipped)


def list_images(folder: str | os.PathLike[str], limit: int | None = None) -> LabelledFiles:
    """Lists the photographs of a folder.

    Labels come from subfolders (class = rank of the subfolder's name), else from
    names like ``0107_n01910747.jpg`` (first number) or ``imagenet_00_243.jpg``
    (last number) where every file has one of the same form, else there are none.

    Args:
      folder: of image files, or of one subfolder for each class.
      limit: at most so many, evenly spaced over the sorted files, so that few of
        many sorted classes are not the first few; None means all.

    Returns:
      The files by their sorted paths.

    Raises:
      InputError: there is no such folder, or limit is below 1.
      CalibrationError: the folder has no images, or images both in itself and in
        subfolders.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected one with photographs.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected 1 or more, or None for all.")
    files = _list_all(folder)
    if limit is None or limit >= len(files):
        return files
    return _keep(files, [i * len(files) // limit for i in range(limit)], [])


def _list_all(folder: pathlib.Path) -> LabelledFiles:
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
        return LabelledFiles(paths=tuple(direct), labels=_labels_of_names(direct))
    return LabelledFiles(
        paths=tuple(path for path, _ in nested),
        labels=np.array([label for _, label in nested], np.int64),
        class_names=tuple(directory.name for directory, _ in classes),
    )


def _image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _labels_of_names(paths: Sequence[pathlib.Path]) -> np.ndarray | None:
    for pattern in LABELLED_NAMES:
        matches = [pattern.fullmatch(path.stem) for path in paths]
        labels = [int(match["label"]) for match in matches if match]
        if len(labels) == len(paths):
            return np.array(labels, np.int64)
    return None


def _keep(files: LabelledFiles, kept: Sequence[int], skipped: list[Skipped]) -> LabelledFiles:
    if not kept:
        raise CalibrationError(
            f"none of {len(files)} images can be decoded; the first: {skipped[-len(files)].reason}"
        )
    return dataclasses.replace(
        files,
        paths=tuple(files.paths[index] for index in kept),
        labels=None if files.labels is None else files.labels[list(kept)],
        skipped=tuple(skipped),
    )
