"""Photographs: where they come from, how they are prepared, what they cost to send.

Two modules are imported by name, as they load optional libraries: `autosplit.data.loading`
(grain) and `autosplit.data.builders` (tensorflow-datasets).
"""

from autosplit.data.coco import COCO_CATEGORIES, COCO_CATEGORY_IDS, COCO_NAMES
from autosplit.data.coco_folder import AnnotatedImage, AnnotatedImages, load_annotations
from autosplit.data.decoding import Skipped, decode_image
from autosplit.data.folder import (
    LabelledFiles,
    LabelledImages,
    keep_intact,
    list_images,
    load_files,
    load_images,
    load_labelled,
)
from autosplit.data.imagenet import class_names, resize_and_crop
from autosplit.data.label_csv import read_label_csv
from autosplit.data.letterboxing import Placement, boxes_in_photograph, letterbox
from autosplit.data.package_table import PACKAGES, Package
from autosplit.data.packages import fetch, fetch_package
from autosplit.data.sources import FileSource, RecordSource, Source

__all__ = [
    "COCO_CATEGORIES",
    "COCO_CATEGORY_IDS",
    "COCO_NAMES",
    "PACKAGES",
    "AnnotatedImage",
    "AnnotatedImages",
    "FileSource",
    "LabelledFiles",
    "LabelledImages",
    "Package",
    "Placement",
    "RecordSource",
    "Skipped",
    "Source",
    "boxes_in_photograph",
    "class_names",
    "decode_image",
    "fetch",
    "fetch_package",
    "keep_intact",
    "letterbox",
    "list_images",
    "load_annotations",
    "load_files",
    "load_images",
    "load_labelled",
    "read_label_csv",
    "resize_and_crop",
]
