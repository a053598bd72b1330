"""Photographs: where they come from, how they are prepared, what they cost to send."""

from autosplit.data.folder import LabelledImages, load_files, load_images
from autosplit.data.imagenet import class_names, normalize, resize_and_crop
from autosplit.data.packages import PACKAGES, Package, fetch, fetch_package

__all__ = [
    "PACKAGES",
    "LabelledImages",
    "Package",
    "class_names",
    "fetch",
    "fetch_package",
    "load_files",
    "load_images",
    "normalize",
    "resize_and_crop",
]
