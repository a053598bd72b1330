"""A tiny COCO data set: four images, one without a box, one with a crowd."""

import copy
import json

import numpy as np
import PIL.Image
import pytest

DOCUMENT = {
    "images": [
        {"id": 30, "file_name": "c.jpg", "width": 50, "height": 40},
        {"id": 10, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 20, "file_name": "b.jpg"},
        {"id": 40, "file_name": "d.jpg", "width": 32, "height": 32},
    ],
    "categories": [{"id": 9, "name": "boat"}, {"id": 2, "name": "bicycle"}],
    "annotations": [
        {"id": 5, "image_id": 30, "category_id": 2, "bbox": [1, 2, 10, 20], "area": 150.5,
         "iscrowd": 0},
        {"id": 6, "image_id": 10, "category_id": 9, "bbox": [0, 0, 40, 30.5]},
        {"id": 7, "image_id": 30, "category_id": 9, "bbox": [5.5, 0, 4, 4], "iscrowd": 1},
        {"id": 8, "image_id": 40, "category_id": 2, "bbox": [3, 3, 2, 2]},
    ],
}  # fmt: skip
SIZES = {"a.jpg": (40, 30), "b.jpg": (20, 10), "c.jpg": (50, 40), "d.jpg": (32, 32)}


class CocoSet:
    """Files of the data set, which a test changes before it reads them."""

    def __init__(self, root):
        self.folder = root / "images"
        self.annotations = root / "instances.json"
        self.document = copy.deepcopy(DOCUMENT)
        self.folder.mkdir()
        rng = np.random.default_rng(0)
        for name, (width, height) in SIZES.items():
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(self.folder / name)
        self.write()

    def write(self):
        self.annotations.write_text(json.dumps(self.document))


@pytest.fixture
def coco_set(tmp_path):
    return CocoSet(tmp_path)
