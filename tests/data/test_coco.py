"""COCO's classes equal those of torchvision's detectors and of a COCO file."""

import json
import pathlib

import pytest

from autosplit import data

INSTANCES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "coco" / "instances.json"


def test_categories_are_torchvisions(torchvision):
    # A list of 91 by category id, with "N/A" for the ids that no file uses.
    expected = torchvision.models.detection.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    used = {key: name for key, name in enumerate(expected) if name not in ("N/A", "__background__")}
    assert dict(data.COCO_CATEGORIES) == used


def test_classes_count_in_the_order_of_the_ids():
    assert len(data.COCO_NAMES) == len(set(data.COCO_NAMES)) == 80
    assert list(data.COCO_CATEGORY_IDS) == sorted(data.COCO_CATEGORY_IDS)
    pairs = zip(data.COCO_CATEGORY_IDS, data.COCO_NAMES, strict=True)
    assert all(data.COCO_CATEGORIES[key] == name for key, name in pairs)


def test_categories_are_those_of_a_coco_file():
    if not INSTANCES.is_file():
        pytest.skip(f"{INSTANCES} is not on this machine")
    categories = json.loads(INSTANCES.read_text())["categories"]
    assert dict(data.COCO_CATEGORIES) == {row["id"]: row["name"] for row in categories}
    images = data.load_annotations(INSTANCES, INSTANCES.parent / "images", data.COCO_CATEGORIES)
    assert len(images) == 128
    assert images.skipped == ()
    assert images.class_names == data.COCO_NAMES
    assert sum(len(image.boxes) for image in images.images) == 929
