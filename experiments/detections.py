"""What a detector found, in the pixels of the photographs."""

from __future__ import annotations

import csv
import io
import pathlib

import numpy as np
import PIL.Image

from autosplit.data import LabelledImages, boxes_in_photograph
from autosplit.data.decoding import image_size
from autosplit.evaluation.coco import DetectionScores, ImageDetections
from autosplit.files import write_text
from autosplit.models import Detections
from autosplit.reporting.canvas import save_figure
from autosplit.reporting.precision_recall import precision_recall_figure

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


def write_scores(scores: DetectionScores, workdir: pathlib.Path, name: str) -> None:
    """Writes the average precision of each class that is annotated, and the curves at an IoU of .5.

    Args:
      scores: with at least one annotated class.
      workdir: gets ``NAME-classes.csv`` and ``NAME-precision_recall.png``.
      name: of the detector.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "ap", "ap50"])
    rows = zip(scores.class_names, scores.class_ap, scores.class_ap50, strict=True)
    writer.writerows(row for row in rows if not np.isnan(row[1]))
    write_text(workdir / f"{name}-classes.csv", text.getvalue())
    figure = precision_recall_figure(scores.recalls, scores.precision[0], scores.class_names, 0.5)
    save_figure(figure, workdir / f"{name}-precision_recall.png")


def jpeg_bytes(image: np.ndarray) -> bytes:
    """Returns u8[H, W, 3] as a JPEG file."""
    target = io.BytesIO()
    PIL.Image.fromarray(image).save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()
