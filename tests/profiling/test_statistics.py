"""Statistics that are gathered in parts are those of the whole, held against NumPy."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.profiling import statistics
from autosplit.profiling.statistics import (
    DECAY,
    GRID_BINS,
    TensorStatistics,
    chunk_statistics,
    count_chunk,
    histograms,
    merge,
)
from autosplit.quant.clipping import histogram


def gather(*tensors, valid=None):
    """Statistics of tensors ``[m, *shape]``, of the first ``valid`` calls."""
    calls = len(tensors[0])
    valid = calls if valid is None else valid
    mask = jnp.asarray((np.arange(calls) < valid).astype(np.int32))
    return chunk_statistics(count_chunk([jnp.asarray(x) for x in tensors], mask), valid)


def assert_equal(one: TensorStatistics, other: TensorStatistics):
    for name in ("counts", "start", "exponent", "low", "high"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert one.calls == other.calls


def reference_counts(x, found, row=0):
    """Counts in the bins of the grid, with no part of the code."""
    width = 2.0 ** int(found.exponent[row])
    number = np.floor(np.asarray(x, np.float64).ravel() / width).astype(int)
    return np.bincount(number - found.start[row], minlength=GRID_BINS)


def draws(seed, calls=7):
    """Calls whose range grows, as those of several kinds of tensors do."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(calls, 50)) * np.geomspace(0.01, 30, calls)[:, None]
    return [
        normal.astype(np.float32),
        np.maximum(normal, 0).astype(np.float32),
        np.clip(normal, 0, 6).astype(np.float32),
        (1000 + rng.laplace(size=(calls, 3, 4))).astype(np.float32),
    ]


def test_counts_and_extremes_are_numpy_s():
    tensors = draws(0)
    found = gather(*tensors)
    for row, x in enumerate(tensors):
        np.testing.assert_array_equal(found.counts[row], reference_counts(x, found, row))
        assert (found.low[row], found.high[row]) == (x.min(), x.max())


def test_at_least_half_of_the_grid_is_used():
    for row, x in enumerate(draws(1)):
        found = gather(x)
        used = (x.max() - x.min()) / 2.0 ** float(found.exponent[0])
        assert GRID_BINS / 2 - 2 < used <= GRID_BINS, row


@pytest.mark.parametrize("sizes", [(7,), (1, 6), (3, 3, 1), (1,) * 7])
@pytest.mark.parametrize("order", [1, -1])
def test_parts_in_any_order_equal_the_whole(sizes, order):
    tensors = draws(2)
    ends = np.cumsum([0, *sizes])
    parts = [gather(*[x[a:b] for x in tensors]) for a, b in itertools.pairwise(ends)]
    assert_equal(functools.reduce(merge, parts[::order]), gather(*tensors))


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@hypothesis.given(st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=2, max_size=4))
@hypothesis.settings(max_examples=60)
def test_any_finite_values(rows):
    x = np.array(rows, np.float32)
    # What is next to nothing in bins of this width may be flushed to zero.
    x[np.abs(x) < max(1e-30, 1e-12 * np.abs(x).max())] = 0
    parts = functools.reduce(merge, [gather(x[i : i + 1]) for i in range(len(x))])
    assert_equal(parts, gather(x))
    np.testing.assert_array_equal(parts.counts[0], reference_counts(x, parts))
    shape = histograms(parts)
    assert float(shape.counts.sum()) == pytest.approx(x.size)
    assert np.isfinite(shape.counts).all()


def test_copies_of_a_call_do_not_count():
    tensors = [np.concatenate([x, np.repeat(x[-1:], 3, axis=0)]) for x in draws(3)]
    padded, whole = gather(*tensors, valid=7), gather(*draws(3))
    assert_equal(padded, whole)
    np.testing.assert_allclose(padded.average_high, whole.average_high, rtol=1e-12)


def test_averages_forget_old_calls():
    x = draws(4)[0]
    weight = DECAY ** np.arange(7)[::-1]
    expected = [np.average(ends, weights=weight) for ends in (x.min(1), x.max(1))]
    for parts in ([x], [x[:4], x[4:]], [x[:1], x[1:6], x[6:]]):
        found = functools.reduce(merge, [gather(p) for p in parts])
        assert [found.average_low[0], found.average_high[0]] == pytest.approx(expected, rel=1e-6)


def test_counts_go_on_where_float32_stops():
    zeros = np.zeros((1, 2), np.float32)
    found = gather(zeros)
    for _ in range(30):
        found = merge(found, found)
    assert found.counts.sum() == 2**31
    assert merge(found, gather(zeros)).counts.sum() == 2**31 + 2


def test_bins_that_clipping_reads_are_near_those_of_the_whole():
    for x in draws(5):
        x = np.repeat(x, 40, axis=1)
        found = histograms(functools.reduce(merge, [gather(p[None]) for p in x]))
        whole = histogram(jnp.asarray(x))
        assert (float(found.low[0]), float(found.high[0])) == (x.min(), x.max())
        counts, expected = np.asarray(found.counts[0]), np.asarray(whole.counts)
        assert counts.sum() == pytest.approx(x.size)
        # By one bin of the grid, at most half a bin: so never more than a bin's shift.
        below, reference = np.cumsum(counts), np.cumsum(expected)
        slack = 1e-3 * x.size / len(counts)
        assert (below[1:-1] >= reference[:-2] - slack).all()
        assert (below[1:-1] <= reference[2:] + slack).all()


@pytest.mark.parametrize("low", [-1.0, -0.3751, -7e-3, 0.0])
def test_a_spike_at_zero_stays_in_one_bin(low):
    rng = np.random.default_rng(0)
    x = np.concatenate([np.zeros(30_000), rng.uniform(low, 2.9, 10_000), [low, 2.9]])
    x = x.astype(np.float32)[None]
    counts = np.asarray(histograms(gather(x)).counts[0])
    spike = np.argmax(counts)
    assert spike == int(np.argmax(np.asarray(histogram(jnp.asarray(x)).counts)))
    assert counts[spike] > 30_000 - 20
    assert np.delete(counts, spike).max() < 60


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e30, -1e-30, 1e6])
def test_constant_tensors(value):
    x = np.full((2, 5), value, np.float32)
    found = merge(gather(x), gather(x))
    shape = histograms(found)
    assert found.counts.sum() == shape.counts.sum() == 20
    assert shape.low[0] == shape.high[0] == shape.average_low[0] == np.float32(value)


def test_a_constant_tensor_that_changes():
    found = merge(gather(np.full((1, 3), 5.0)), gather(np.full((1, 3), -5.0)))
    counts = np.asarray(histograms(found).counts[0])
    assert (counts[0], counts[-1], counts[1:-1].sum()) == (3, 3, 0)


def test_tensors_without_elements():
    found = merge(gather(np.zeros((2, 0, 3)), np.ones((2, 1))), gather(np.zeros((1, 0, 3)), [[2]]))
    shape = histograms(found)
    assert shape.counts.sum(axis=1).tolist() == [0, 3]
    assert (shape.low[0], shape.high[0]) == (0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_the_extremes(bad):
    found = gather(np.array([[1.0, bad], [0.0, 2.0]], np.float32))
    assert not np.isfinite([found.low[0], found.high[0]]).all()
    merged = merge(gather(np.ones((1, 2), np.float32)), found)
    assert not np.isfinite([merged.low[0], merged.high[0]]).all()


def test_one_program_for_each_shape():
    before = statistics._count_tensor._cache_size()
    for seed in range(3):
        gather(*draws(seed, calls=11))
    # Three of the four tensors have one shape.
    assert statistics._count_tensor._cache_size() == before + 2
