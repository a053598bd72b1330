"""Accuracy against a sort, the error against its definition, and bad input."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from autosplit import evaluation
from autosplit.errors import InputError

# Few distinct values, so that ties are common.
LOGITS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(2, 7)),
    elements=st.integers(-2, 2).map(float),
)


@hypothesis.given(logits=LOGITS, data=st.data())
def test_top_k_equals_a_stable_sort(logits, data):
    images, classes = logits.shape
    labels = data.draw(hnp.arrays(np.int64, images, elements=st.integers(0, classes - 1)))
    k = data.draw(st.integers(1, classes))
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    expected = np.mean([label in row for label, row in zip(labels, best, strict=True)])
    assert evaluation.top_k_accuracy(logits, labels, k) == expected


@hypothesis.given(logits=LOGITS)
def test_agreement_is_top_1_with_the_references_choice(logits):
    other = logits[:, ::-1]
    chosen = logits.argmax(axis=1)
    assert evaluation.agreement(logits, logits) == 1
    assert evaluation.agreement(logits, other) == evaluation.top_k_accuracy(other, chosen)


@hypothesis.given(scale=st.floats(-4, 4), seed=st.integers(0, 99))
def test_output_error_of_a_scaled_output_is_the_square_of_the_change(scale, seed):
    reference = np.random.default_rng(seed).normal(size=(3, 5))
    error = evaluation.output_error(reference, scale * reference)
    assert error == pytest.approx((scale - 1) ** 2, rel=1e-9, abs=1e-15)


def test_output_error_weighs_by_power_over_the_batch():
    reference = np.array([[3.0, 0.0], [0.0, 1.0]])
    wrong_second = np.array([[3.0, 0.0], [0.0, 0.0]])
    assert evaluation.output_error(reference, wrong_second) == pytest.approx(1 / 10)


@pytest.mark.parametrize(
    ("logits", "labels", "k", "message"),
    [
        ([[1.0, np.nan]], [0], 1, "NaN"),
        ([[1.0, np.inf]], [0], 1, "infinity"),
        ([1.0, 2.0], [0], 1, "shape"),
        (np.zeros((0, 3)), np.zeros(0, int), 1, "not empty"),
        ([[1.0, 2.0]], [2], 1, "labels run from 2 to 2; expected 0 to 1"),
        ([[1.0, 2.0]], [-1], 1, "labels run from -1"),
        ([[1.0, 2.0]], [0, 1], 1, r"expected int\[1\]"),
        ([[1.0, 2.0]], [0.0], 1, "labels are float64"),
        ([[1.0, 2.0]], [0], 3, "k is 3"),
        ([[1.0, 2.0]], [0], 0, "k is 0"),
    ],
)
def test_bad_input_is_refused(logits, labels, k, message):
    with pytest.raises(InputError, match=message):
        evaluation.top_k_accuracy(logits, labels, k)


def test_pairs_must_match_and_the_reference_must_not_be_zero():
    for compare in (evaluation.agreement, evaluation.output_error):
        with pytest.raises(InputError, match="differ"):
            compare(np.zeros((2, 3)), np.zeros((2, 4)))
        with pytest.raises(InputError, match="finite"):
            compare(np.ones((1, 2)), [[1.0, np.nan]])
    with pytest.raises(InputError, match="all zero"):
        evaluation.output_error(np.zeros((2, 3)), np.ones((2, 3)))
