"""What a detector found, in the pixels of the photographs."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image

from autosplit.data import LabelledImages, boxes_in_photograph
from autosplit.data.decoding import image_size
from autosplit.evaluation.coco import ImageDetections
from autosplit.models import Detections

JPEG_QUALITY = 90


def in_photographs(found: Detections, photographs: LabelledImages) -> list[ImageDetections]:
    """Maps boxes from the letterboxed images back to the files that these were made of.

    Args:
      found: of N images, on the host.
      photographs: N letterboxed images and their files.

    Returns:
      One for each image, without the empty places.
    """
    size = photographs.images.shape[1:3]
    each = []
    for index, path in enumerate(photographs.paths):
        valid = np.asarray(found.valid[index])
        boxes = np.asarray(found.boxes[index])[valid]
        each.append(ImageDetections(
            boxes=boxes_in_photograph(boxes, image_size(path)[::-1], size),
            scores=np.asarray(found.scores[index])[valid],
            classes=np.asarray(found.classes[index])[valid],
        ))  # fmt: skip
    return each


def jpeg_bytes(image: np.ndarray) -> bytes:
    """Returns u8[H, W, 3] as a JPEG file."""
    target = io.BytesIO()
    PIL.Image.fromarray(image).save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()
