"""COCO's classes: the 80 that are detected, and their numbers among the 91 of its files.

A detector's class is an index from 0 to 79; an annotation file's ``category_id`` is one
of 91 numbers, of which eleven are not used. Both count in the same order.

Reference:
  Lin et al., "Microsoft COCO: Common Objects in Context", 2014: the paper names 91
  categories, the 2014 and 2017 instance files hold 80 of them. Names and numbers are
  those of the ``categories`` of ``instances_val2017.json``. Darknet's list has the same
  order with older spellings (``motorbike``, ``aeroplane``, ``sofa``, ``pottedplant``,
  ``diningtable``, ``tvmonitor``), which are not used here.
"""

from __future__ import annotations

import types
from collections.abc import Mapping

COCO_CATEGORIES: Mapping[int, str] = types.MappingProxyType(
    {
        1: "person",
        2: "bicycle",
        3: "car",
        4: "motorcycle",
        5: "airplane",
        6: "bus",
        7: "train",
        8: "truck",
        9: "boat",
        10: "traffic light",
        11: "fire hydrant",
        13: "stop sign",
        14: "parking meter",
        15: "bench",
        16: "bird",
        17: "cat",
        18: "dog",
        19: "horse",
        20: "sheep",
        21: "cow",
        22: "elephant",
        23: "bear",
        24: "zebra",
        25: "giraffe",
        27: "backpack",
        28: "umbrella",
        31: "handbag",
        32: "tie",
        33: "suitcase",
        34: "frisbee",
        35: "skis",
        36: "snowboard",
        37: "sports ball",
        38: "kite",
        39: "baseball bat",
        40: "baseball glove",
        41: "skateboard",
        42: "surfboard",
        43: "tennis racket",
        44: "bottle",
        46: "wine glass",
        47: "cup",
        48: "fork",
        49: "knife",
        50: "spoon",
        51: "bowl",
        52: "banana",
        53: "apple",
        54: "sandwich",
        55: "orange",
        56: "broccoli",
        57: "carrot",
        58: "hot dog",
        59: "pizza",
        60: "donut",
        61: "cake",
        62: "chair",
        63: "couch",
        64: "potted plant",
        65: "bed",
        67: "dining table",
        70: "toilet",
        72: "tv",
        73: "laptop",
        74: "mouse",
        75: "remote",
        76: "keyboard",
        77: "cell phone",
        78: "microwave",
        79: "oven",
        80: "toaster",
        81: "sink",
        82: "refrigerator",
        84: "book",
        85: "clock",
        86: "vase",
        87: "scissors",
        88: "teddy bear",
        89: "hair drier",
        90: "toothbrush",
    }
)
"""Name by category id, in the order of the detectors' classes.

>>> COCO_CATEGORIES[90], len(COCO_CATEGORIES)
('toothbrush', 80)
"""

COCO_NAMES: tuple[str, ...] = tuple(COCO_CATEGORIES.values())
"""Name by class index, 0 to 79."""

COCO_CATEGORY_IDS: tuple[int, ...] = tuple(COCO_CATEGORIES)
"""Category id by class index, 0 to 79."""
