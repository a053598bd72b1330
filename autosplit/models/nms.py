"""Non-maximum suppression with static shapes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from autosplit.errors import InputError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Detections:
    """The objects found in N images, D places for each, best first.

    Attributes:
      boxes: f32[N, D, 4], left, top, right, bottom.
      scores: f32[N, D].
      classes: i32[N, D].
      valid: bool[N, D]; where False, the other fields are 0.
    """

    boxes: jax.Array
    scores: jax.Array
    classes: jax.Array
    valid: jax.Array


def non_max_suppression(
    boxes: jax.Array,
    scores: jax.Array,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
    pre_nms: int,
    class_agnostic: bool = False,
    multi_label: bool = False,
) -> Detections:
    """Keeps the best of the boxes that overlap.

    Candidates are taken by falling score, the earlier anchor and then the lower class
    first where scores are equal. One is kept unless a kept one of its class (of any
    class, if ``class_agnostic``) has ``intersection > iou_threshold * union`` with it.

    The cost per image is one selection of ``pre_nms`` of A anchors and
    ``max_detections * pre_nms`` overlaps; no overlap of all pairs is computed.

    Args:
      boxes: f32[N, A, 4], left, top, right, bottom.
      scores: f32[N, A, C].
      score_threshold: a score must be above it, 0..1.
      iou_threshold: 0..1.
      max_detections: D, length of the result.
      pre_nms: so many candidates are looked at, the best of each image.
      class_agnostic: boxes of different classes suppress each other too.
      multi_label: every class of an anchor is a candidate, not the best alone;
        evaluations on COCO do so.

    Returns:
      D places for each image.

    Raises:
      InputError: shapes do not fit, a threshold is outside of 0..1, or a number is not positive.

    Reference:
      Greedy suppression as torchvision's ``nms`` and ultralytics' detectors compute it.
      Deviation: classes are compared, where others move the boxes of each class apart
      by thousands of pixels, which costs digits.

    >>> boxes = jnp.array([[[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]]])
    >>> found = non_max_suppression(
    ...     boxes, jnp.array([[[0.8], [0.9], [0.3]]]), score_threshold=0.1, iou_threshold=0.5,
    ...     max_detections=3, pre_nms=3)
    >>> found.boxes[0, :, 0].tolist(), found.valid[0].tolist()
    ([0.0, 5.0, 0.0], [True, True, False])
    """
    _check(boxes, scores, (score_threshold, iou_threshold), (max_detections, pre_nms))
    select = _best_labels if multi_label else _best_anchors
    anchors, classes, best = select(scores, pre_nms)
    boxes = _take(boxes, anchors)
    order = jnp.arange(best.shape[1])

    def keep_one(alive: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        # Candidates fall in score, so the first that is left is the best.
        place = jnp.argmax(alive, axis=1)[:, None]
        rivals = _overlap(boxes, _take(boxes, place), iou_threshold)
        if not class_agnostic:
            rivals &= classes == _take(classes, place)
        return alive & ~rivals & (order != place), (place[:, 0], jnp.any(alive, axis=1))

    # A loop of known length, so that gradients can pass.
    alive = best > score_threshold
    _, (places, found) = lax.scan(keep_one, alive, None, length=max_detections)
    places, valid = places.T, found.T
    return Detections(
        boxes=jnp.where(valid[:, :, None], _take(boxes, places), 0),
        scores=jnp.where(valid, _take(best, places), 0),
        classes=jnp.where(valid, _take(classes, places), 0),
        valid=valid,
    )


def _best_anchors(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns anchor, class and score of the best anchors, each with its best class."""
    best, anchors = lax.top_k(jnp.max(scores, axis=2), min(count, scores.shape[1]))
    # Of the selected anchors alone: over all of them, argmax costs more than the selection.
    classes = jnp.argmax(_take(scores, anchors), axis=2)
    return anchors, classes.astype(jnp.int32), best


def _best_labels(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns anchor, class and score of the best pairs of anchor and class.

    The best ``count`` pairs belong to the ``count`` anchors whose best class is best,
    so A * C scores need not be sorted.
    """
    classes = scores.shape[2]
    _, anchors = lax.top_k(jnp.max(scores, axis=2), min(count, scores.shape[1]))
    # In the order of the anchors, so that equal scores keep it.
    anchors = jnp.sort(anchors, axis=1)
    pairs = _take(scores, anchors).reshape(scores.shape[0], -1)
    best, places = lax.top_k(pairs, min(count, pairs.shape[1]))
    return _take(anchors, places // classes), places % classes, best


def _take(values: jax.Array, places: jax.Array) -> jax.Array:
    """Returns ``values[n, places[n, k]]`` as [N, K, ...]."""
    return jax.vmap(lambda row, index: row[index])(values, places)


def _overlap(boxes: jax.Array, one: jax.Array, iou_threshold: float) -> jax.Array:
    """Returns bool[N, K]: the overlap of f32[N, K, 4] with f32[N, 1, 4] is above the threshold."""
    corner = jnp.maximum(boxes[..., :2], one[..., :2])
    inner = jnp.minimum(boxes[..., 2:], one[..., 2:]) - corner
    intersection = jnp.prod(jnp.maximum(inner, 0), axis=-1)
    union = _area(boxes) + _area(one) - intersection
    return intersection > iou_threshold * union


def _area(boxes: jax.Array) -> jax.Array:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _check(
    boxes: jax.Array, scores: jax.Array, thresholds: tuple[float, float], counts: tuple[int, int]
) -> None:
    fits = boxes.ndim == scores.ndim == 3 and boxes.shape == (*scores.shape[:2], 4)
    if not fits or 0 in scores.shape[1:]:
        raise InputError(
            f"boxes and scores have the shapes {boxes.shape} and {scores.shape}; expected "
            "[N, A, 4] and [N, A, C]. Take both from one call of decode."
        )
    if not all(0 <= threshold <= 1 for threshold in thresholds):
        raise InputError(
            f"score_threshold and iou_threshold are {thresholds}; expected numbers of 0 to 1."
        )
    if min(counts) < 1:
        raise InputError(f"max_detections and pre_nms are {counts}; expected at least 1.")
