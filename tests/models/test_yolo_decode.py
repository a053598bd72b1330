"""Decoding follows the paper's equations, cell by cell."""

import jax
import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.models.detection_decode import decode

ANCHORS = (((30.0, 40.0), (50.0, 20.0)), ((5.0, 6.0),))
STRIDES = (16, 8)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(heads, classes):
    """Yields every box and its scores, one number after the other."""
    for head, anchors, stride in zip(heads, ANCHORS, STRIDES, strict=True):
        for row in range(head.shape[0]):
            for column in range(head.shape[1]):
                for index, (p, q) in enumerate(anchors):
                    start = index * (5 + classes)
                    x, y, w, h, o = head[row, column, start : start + 5]
                    x, y = (sigmoid(x) + column) * stride, (sigmoid(y) + row) * stride
                    w, h = p * np.exp(w) / 2, q * np.exp(h) / 2
                    scores = head[row, column, start + 5 : start + 5 + classes]
                    yield (x - w, y - h, x + w, y + h), sigmoid(o) * sigmoid(scores)


def test_boxes_and_scores_follow_the_equations():
    rng = np.random.default_rng(0)
    heads = [rng.normal(size=(2, 2, 3, 16)), rng.normal(size=(2, 4, 6, 8))]
    boxes, scores = jax.jit(lambda *h: decode(h, ANCHORS, STRIDES))(*map(np.float32, heads))
    assert boxes.shape == (2, 2 * 3 * 2 + 4 * 6, 4)
    assert scores.shape == (2, 2 * 3 * 2 + 4 * 6, 3)
    for image in range(2):
        expected = list(reference([head[image] for head in heads], 3))
        np.testing.assert_allclose(boxes[image], [box for box, _ in expected], rtol=2e-5, atol=1e-4)
        np.testing.assert_allclose(scores[image], [s for _, s in expected], rtol=1e-5)


def test_huge_sizes_stay_numbers():
    boxes, _ = decode([np.full((1, 1, 1, 12), 1e4, np.float32)], ANCHORS[:1], STRIDES[:1])
    assert np.isfinite(boxes).all()


@pytest.mark.parametrize(
    ("shapes", "anchors", "message"),
    [
        ([(1, 1, 1, 16)], ANCHORS, "1 heads, 2 lists of anchors and 2 strides"),
        ([(1, 1, 1, 15), (1, 1, 1, 8)], ANCHORS, "a head has 15 channels"),
        ([(1, 1, 1, 10), (1, 1, 1, 6)], ANCHORS, "a head has 10 channels"),
        ([(1, 1, 1, 16), (1, 1, 1, 9)], ANCHORS, r"the heads have \[3, 4\] classes"),
    ],
)
def test_what_does_not_fit_is_refused(shapes, anchors, message):
    with pytest.raises(InputError, match=message):
        decode([np.zeros(shape, np.float32) for shape in shapes], anchors, STRIDES)
