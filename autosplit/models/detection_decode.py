"""From the raw heads of a detector to boxes and scores."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import InputError

# exp(10) anchors are wider than any image; without a limit a width may be infinite, and then the
# overlap of two boxes is no number.
MAX_LOG_SIZE = 10.0

Anchors = Sequence[tuple[float, float]]


def decode(
    heads: Sequence[jax.Array], anchors: Sequence[Anchors], strides: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """Computes boxes and scores from raw heads.

    For the cell in column i and row j of a map of stride s, with the anchor (p, q) and
    the raw numbers x, y, w, h, o and c of its classes::

      centre = s * (sigmoid(x) + i, sigmoid(y) + j)
      size   = (p * exp(w), q * exp(h))
      score  = sigmoid(o) * sigmoid(c)

    Args:
      heads: for each scale f32[N, h, w, B * (5 + C)], anchor by anchor x, y, w, h,
        objectness and C classes, as `autosplit.models.yolo.YOLO` returns them.
      anchors: for each scale B pairs (width, height), pixels of the network's input.
      strides: for each scale the pixels of the network's input per cell.

    Returns:
      Boxes f32[N, A, 4] as left, top, right, bottom in pixels of the network's input,
      not clipped; scores f32[N, A, C] in 0..1. A counts scales, rows, columns and
      anchors, the last fastest.

    Raises:
      InputError: the numbers of heads, anchors and strides differ, or the channels of
        a head do not fit its anchors.

    Reference:
      Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, section 2.1.
      Deviation: w and h above `MAX_LOG_SIZE` count as that.

    >>> boxes, scores = decode([jnp.zeros((1, 1, 1, 7))], [[(4.0, 6.0)]], [8])
    >>> boxes.tolist(), scores.tolist()
    ([[[2.0, 1.0, 6.0, 7.0]]], [[[0.25, 0.25]]])
    """
    if not len(heads) == len(anchors) == len(strides) > 0:
        raise InputError(
            f"there are {len(heads)} heads, {len(anchors)} lists of anchors and {len(strides)} "
            "strides; expected as many of each. Take those of one model."
        )
    parts = [_decode_head(*scale) for scale in zip(heads, anchors, strides, strict=True)]
    if len({scores.shape[-1] for _, scores in parts}) > 1:
        raise InputError(
            f"the heads have {[scores.shape[-1] for _, scores in parts]} classes; expected equal "
            "numbers. Take the heads and anchors of one model."
        )
    boxes, scores = (jnp.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    return boxes, scores


def _decode_head(head: jax.Array, anchors: Anchors, stride: int) -> tuple[jax.Array, jax.Array]:
    batch, height, width, channels = head.shape
    if channels % len(anchors) or channels // len(anchors) < 6:
        raise InputError(
            f"a head has {channels} channels; expected {len(anchors)} * (5 + classes), one part "
            "for each anchor. Take the heads and anchors of one model."
        )
    values = head.reshape(batch, height, width, len(anchors), -1)
    cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    corner = cells[:, :, None, :].astype(np.float32)
    centres = (jax.nn.sigmoid(values[..., :2]) + corner) * stride
    logarithms = jnp.minimum(values[..., 2:4], MAX_LOG_SIZE)
    halves = jnp.exp(logarithms) * (np.asarray(anchors, np.float32) / 2)
    boxes = jnp.concatenate([centres - halves, centres + halves], axis=-1)
    scores = jax.nn.sigmoid(values[..., 4:5]) * jax.nn.sigmoid(values[..., 5:])
    return boxes.reshape(batch, -1, 4), scores.reshape(batch, -1, scores.shape[-1])
