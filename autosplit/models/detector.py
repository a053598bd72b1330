"""A detector as one function: body, decoding, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from autosplit.models.detection_decode import decode
from autosplit.models.nms import Detections, non_max_suppression
from autosplit.models.yolo import YOLO


def make_detector(
    model: YOLO,
    *,
    score_threshold: float = 0.25,
    iou_threshold: float = 0.6,
    max_detections: int = 100,
    pre_nms: int = 1000,
    class_agnostic: bool = False,
    multi_label: bool = False,
) -> Callable[[Any, jax.Array], Detections]:
    """Makes the function that is traced, split and served.

    It can be cut anywhere in the model's body; decoding and suppression are one layer
    for the tracer, the last.

    Args:
      model: of `autosplit.models.yolo`.
      score_threshold, iou_threshold, max_detections, pre_nms, class_agnostic,
        multi_label: see `non_max_suppression`. COCO's evaluation takes a score of
        0.001, an overlap of 0.6 and several labels.

    Returns:
      ``detect(variables, images)`` from f32[N, H, W, 3] in 0..1 to `Detections` in
      pixels of these images.

    >>> from autosplit.models.yolo import create_yolo
    >>> model = create_yolo("yolov3_tiny")
    >>> images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> jax.eval_shape(make_detector(model), variables, images).boxes.shape
    (2, 100, 4)
    """

    def find(heads: tuple[jax.Array, ...]) -> Detections:
        boxes, scores = decode(heads, model.anchors, model.strides)
        return non_max_suppression(
            boxes,
            scores,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            pre_nms=pre_nms,
            class_agnostic=class_agnostic,
            multi_label=multi_label,
        )

    def detect(variables: Any, images: jax.Array) -> Detections:
        heads = model.apply(variables, images)
        with jax.named_scope("detections"):
            return _as_one_layer(find, heads)

    return detect


def _as_one_layer(find: Callable[..., Detections], heads: Any) -> Detections:
    """Calls a function within a loop of one turn, which the tracer does not look into.

    A cut inside would send more numbers than one before; the compiler removes the loop.
    """
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(find, heads))
    found, _ = lax.scan(lambda _, __: (find(heads), None), start, None, length=1)
    return found
