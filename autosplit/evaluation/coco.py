"""Average precision of detected boxes, as COCO counts it.

Two engines with the same interface count it: faster-coco-eval, and pycocotools, whose
numbers are the standard. Neither is loaded before it is used.

Reference:
  Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and the detection
  metrics of the COCO challenge: ten IoU thresholds from .5 to .95, precision made
  monotone and read at 101 recalls, at most 100 boxes of an image, areas split at 32^2
  and 96^2 pixels. A box on a crowd counts neither for nor against.
  Deviation: what has no ground truth is NaN here, -1 there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autosplit.data.coco_folder import AnnotatedImage, AnnotatedImages
from autosplit.errors import InputError

ENGINES: Mapping[str, str] = {
    "faster-coco-eval": "faster_coco_eval",
    "pycocotools": "pycocotools",
}
"""Module by engine, the preferred one first."""

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # order of the engines' areas
_MAX_DETECTIONS = -1  # the last of 1, 10 and 100 boxes of an image


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageDetections:
    """Boxes that were found on one image.

    Attributes:
      boxes: float[D, 4], x1 y1 x2 y2 in pixels of the image as it was annotated.
      scores: float[D]; only their order matters.
      classes: int[D], class indices.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionScores:
    """How well boxes were found; NaN where there is nothing to find.

    Attributes:
      ap: mean over IoU thresholds .5 to .95 and classes, 0 to 1.
      ap50, ap75: at one IoU threshold.
      ap_small, ap_medium, ap_large: as ap, of objects below 32^2 pixels, up to 96^2 and
        above.
      class_ap, class_ap50: float[C], as ap and ap50, of each class.
      precision: float[T, C, R], at an IoU threshold and a recall, by class.
      iou_thresholds: float[T], .5 to .95.
      recalls: float[R], 101 from 0 to 1.
      class_names: C.
      engine: that counted.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    class_ap: np.ndarray
    class_ap50: np.ndarray
    precision: np.ndarray
    iou_thresholds: np.ndarray
    recalls: np.ndarray
    class_names: tuple[str, ...]
    engine: str


def evaluate_detections(
    detections: Sequence[ImageDetections], truth: AnnotatedImages, engine: str | None = None
) -> DetectionScores:
    """Compares found boxes with annotated ones.

    Args:
      detections: one for each image of ``truth``, in its order; may have no boxes.
      truth: annotated images, with and without boxes.
      engine: key of `ENGINES`; None means the first that is installed.

    Returns:
      The scores. With no boxes found they are 0, with none annotated NaN.

    Raises:
      InputError: a shape, class, box or score is out of range, the number of images
        differs, or the engine is unknown or not installed.
    """
    engine = _installed_engine(engine)
    if len(detections) != len(truth):
        raise InputError(
            f"{len(detections)} images have detections, {len(truth)} are annotated; expected one "
            "for each, without boxes where none was found."
        )
    names = truth.class_names
    found = [_checked(each, index, len(names)) for index, each in enumerate(detections)]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = _evaluation(
            engine,
            _index(truth.images, _truth_rows(truth.images), len(names)),
            _index(truth.images, _detection_rows(found), len(names)),
        )
        evaluation.evaluate()
        evaluation.accumulate()
    return _scores(evaluation, names, engine)


def _installed_engine(engine: str | None) -> str:
    if engine is not None and engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}.")
    for name in ENGINES if engine is None else (engine,):
        if importlib.util.find_spec(ENGINES[name]) is not None:
            return name
    raise InputError(
        f"{engine or ' or '.join(ENGINES)} is not installed; expected it for COCO's average "
        "precision. Run pip install -c requirements.txt -e '.[evaluation]'."
    )


def _checked(detections: ImageDetections, image: int, classes: int) -> ImageDetections:
    boxes = np.asarray(detections.boxes, np.float64).reshape(-1, 4)
    scores = np.asarray(detections.scores, np.float64)
    indices = np.asarray(detections.classes)
    if scores.shape != (len(boxes),) or indices.shape != (len(boxes),):
        raise InputError(
            f"image {image} has {len(boxes)} boxes, scores of shape {scores.shape} and classes of "
            f"shape {indices.shape}; expected one score and one class for each box."
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise InputError(f"detections of image {image} hold NaN or infinity; expected numbers.")
    if (boxes[:, :2] > boxes[:, 2:]).any():
        wrong = boxes[(boxes[:, :2] > boxes[:, 2:]).any(axis=1)][0]
        raise InputError(f"image {image} has the box {wrong}; expected x1 <= x2 and y1 <= y2.")
    if len(boxes) and not (np.issubdtype(indices.dtype, np.integer) and indices.min() >= 0
                           and indices.max() < classes):  # fmt: skip
        raise InputError(
            f"image {image} has classes {np.unique(indices)}; expected integers from 0 to "
            f"{classes - 1}."
        )
    return ImageDetections(boxes=boxes, scores=scores, classes=indices)


# ---- To the engines


def _truth_rows(images: Sequence[AnnotatedImage]) -> list[dict[str, Any]]:
    return [
        {"image_id": number, "category_id": int(index), "bbox": _bbox(box), "area": float(area),
         "iscrowd": int(crowd)}
        for number, image in enumerate(images)
        for box, index, area, crowd in zip(
            image.boxes, image.classes, image.areas, image.is_crowd, strict=True
        )
    ]  # fmt: skip


def _detection_rows(detections: Sequence[ImageDetections]) -> list[dict[str, Any]]:
    return [
        {"image_id": number, "category_id": int(index), "bbox": (bbox := _bbox(box)),
         "area": bbox[2] * bbox[3], "iscrowd": 0, "score": float(score)}
        for number, each in enumerate(detections)
        for box, index, score in zip(each.boxes, each.classes, each.scores, strict=True)
    ]  # fmt: skip


def _bbox(box: np.ndarray) -> list[float]:
    """Converts corners to x, y, width, height."""
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def _index(
    images: Sequence[AnnotatedImage], rows: list[dict[str, Any]], classes: int
) -> dict[str, Any]:
    """Returns a COCO document; ids from 1, as an engine takes id 0 for "no match"."""
    return {
        "images": [
            {"id": number, "width": image.width_pixels, "height": image.height_pixels}
            for number, image in enumerate(images)
        ],
        "annotations": [row | {"id": number} for number, row in enumerate(rows, start=1)],
        "categories": [{"id": index, "name": str(index)} for index in range(classes)],
    }


def _evaluation(engine: str, truth: dict[str, Any], found: dict[str, Any]) -> Any:
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluation
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluation
    indexed = []
    for document in (truth, found):
        coco = COCO()
        coco.dataset = document  # not loadRes, which fails when nothing was found
        coco.createIndex()
        indexed.append(coco)
    return Evaluation(*indexed, iouType="bbox")


# ---- From the engines


def _scores(evaluation: Any, names: tuple[str, ...], engine: str) -> DetectionScores:
    thresholds = np.asarray(evaluation.params.iouThrs, np.float64)
    raw = np.asarray(evaluation.eval["precision"], np.float64)[..., _MAX_DETECTIONS]
    by_area = np.where(raw < 0, np.nan, raw).transpose(3, 0, 2, 1)  # T R C area -> area T C R
    precision = by_area[_ALL]
    at = {iou: int(np.argmin(np.abs(thresholds - iou))) for iou in (0.5, 0.75)}
    return DetectionScores(
        ap=_mean(precision),
        ap50=_mean(precision[at[0.5]]),
        ap75=_mean(precision[at[0.75]]),
        ap_small=_mean(by_area[_SMALL]),
        ap_medium=_mean(by_area[_MEDIUM]),
        ap_large=_mean(by_area[_LARGE]),
        class_ap=np.array([_mean(precision[:, index]) for index in range(len(names))]),
        class_ap50=np.array([_mean(precision[at[0.5], index]) for index in range(len(names))]),
        precision=precision,
        iou_thresholds=thresholds,
        recalls=np.asarray(evaluation.params.recThrs, np.float64),
        class_names=names,
        engine=engine,
    )


def _mean(precision: np.ndarray) -> float:
    known = precision[~np.isnan(precision)]
    return float(known.mean()) if known.size else float("nan")
