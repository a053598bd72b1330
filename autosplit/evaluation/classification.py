"""How good a classifier's outputs are, and how far they are from another's."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError


def top_k_accuracy(logits: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Returns the share of images whose label is among the k largest logits.

    Of equal logits the one of the lower class counts as larger, as in ``argmax``.

    Args:
      logits: float[N, classes], finite.
      labels: int[N], 0 to classes - 1.
      k: 1 to classes.

    Returns:
      0 to 1.

    Raises:
      InputError: a shape, a label, k or a logit is out of range.

    >>> top_k_accuracy([[0.1, 0.9, 0.0], [0.5, 0.3, 0.4]], [1, 2])
    0.5
    >>> top_k_accuracy([[0.1, 0.9, 0.0], [0.5, 0.3, 0.4]], [1, 2], k=2)
    1.0
    """
    logits, labels = _checked_logits("logits", logits), np.asarray(labels)
    images, classes = logits.shape
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels are {labels.dtype}{list(labels.shape)}; expected int[{images}], one an image."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}. "
            "Were they made for another set of classes?"
        )
    if not 1 <= k <= classes:
        raise InputError(f"k is {k}; expected 1 to {classes}, the number of classes.")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    ties_before = (logits == own) & (np.arange(classes) < labels[:, None])
    rank = np.sum((logits > own) | ties_before, axis=1)
    return float(np.mean(rank < k))


def agreement(reference: ArrayLike, logits: ArrayLike) -> float:
    """Returns the share of images for which two classifiers choose the same class.

    Args:
      reference: float[N, classes], finite.
      logits: float[N, classes], finite.

    Returns:
      0 to 1.

    Raises:
      InputError: the shapes differ, or a logit is not finite.

    >>> agreement([[0.0, 1.0], [2.0, 1.0]], [[0.0, 5.0], [1.0, 2.0]])
    0.5
    """
    reference, logits = _checked_pair(reference, logits)
    return float(np.mean(reference.argmax(axis=1) == logits.argmax(axis=1)))


def output_error(reference: ArrayLike, outputs: ArrayLike) -> float:
    """Returns the relative mean squared error ``sum((y - r)^2) / sum(r^2)``.

    Both sums run over the whole batch, so a large output weighs more than a small one.

    Args:
      reference: float[N, classes], finite, not all zero.
      outputs: float[N, classes], finite.

    Returns:
      0 (equal) or more.

    Raises:
      InputError: the shapes differ, a number is not finite, or the reference is zero.

    >>> output_error([[3.0, 4.0]], [[3.0, 5.0]])
    0.04
    """
    reference, outputs = _checked_pair(reference, outputs)
    power = np.sum(np.square(reference))
    if power == 0:
        raise InputError("the reference outputs are all zero; a relative error needs others.")
    return float(np.sum(np.square(outputs - reference)) / power)


def _checked_pair(reference: ArrayLike, other: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = _checked_logits("reference", reference), _checked_logits("outputs", other)
    if first.shape != second.shape:
        raise InputError(f"shapes {first.shape} and {second.shape} differ; expected equal ones.")
    return first, second


def _checked_logits(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name} have the shape {array.shape}; expected [N, classes], not empty.")
    if not np.all(np.isfinite(array)):
        raise InputError(f"{name} hold NaN or infinity; expected finite numbers.")
    return array
