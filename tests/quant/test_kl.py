"""KL clipping against its definition in scalar loops."""

import itertools

import jax
import numpy as np
import pytest
import scipy.stats

from autosplit.quant.clipping import histogram
from autosplit.quant.clipping.kl import RATIOS, kl_clip

make_histogram = jax.jit(histogram)
find = jax.jit(kl_clip, static_argnums=2)


def reference_divergence(values, ratio, bits, symmetric):
    """KL(P || Q) in float64, cell by cell and bin by bin; None where the clip is left out."""
    counts, cells = np.asarray(values.counts, np.float64), 2**bits - 1
    bottom, top = float(values.low), float(values.high)
    width = (top - bottom) / len(counts)
    if bottom <= 0 <= top:  # the spike of a ReLU
        zero = min(int(-bottom / width), len(counts) - 1)
        near = [counts[n] for n in (zero - 1, zero + 1) if 0 <= n < len(counts)]
        counts[zero] = min(counts[zero], max(near))
    reach = max(-bottom, top)
    low, high = (-reach, reach) if symmetric else (bottom, top)
    ends = ratio * (low + (high - low) * np.arange(cells + 1) / cells)
    edges = np.clip(np.rint((ends - bottom) / width), 0, len(counts)).astype(int)
    first, last = edges[0], edges[-1]
    if last - first < max(cells, 2):
        return None
    p, q = counts.copy(), np.zeros_like(counts)
    below, above = counts[:first].sum(), counts[last:].sum()
    if (below and not counts[first]) or (above and not counts[last - 1]):
        return None
    p[first] += below
    p[last - 1] += above
    for start, end in itertools.pairwise(edges):
        filled = [n for n in range(start, end) if counts[n] > 0]
        for n in filled:
            q[n] = counts[start:end].sum() / len(filled)
    return scipy.stats.entropy(p[first:last], q[first:last])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", ["gauss", "laplace", "heavy tails", "relu spike", "silu"])
def test_as_good_as_every_clip_tried(name, symmetric, sample):
    values = make_histogram(sample(name))
    for bits in (1, 2, 4, 8):
        high = float(find(values, bits, symmetric)[1])
        ratio = high / float(values.reach if symmetric else values.high)
        tried = [reference_divergence(values, float(r), bits, symmetric) for r in RATIOS[::3]]
        best = min((d for d in tried if d is not None), default=None)
        found = reference_divergence(values, ratio, bits, symmetric)
        # An edge between two bins falls to either side.
        if best is not None:
            assert found is not None
            assert found <= 1.05 * best + 1e-3, bits


def test_outliers_are_clipped(sample):
    x = np.r_[sample("gauss", 100_000), 30.0].astype(np.float32)
    values = make_histogram(x)
    highs = [float(find(values, bits, True)[1]) for bits in range(4, 9)]
    assert max(highs[:-1]) < 12
    assert min(highs) > 1.5


def test_a_uniform_tensor_keeps_its_range():
    x = np.linspace(0, 1, 102_400, dtype=np.float32)
    for bits in range(1, 9):
        assert float(find(make_histogram(x), bits, False)[1]) >= 0.95


def test_over_eight_bits_the_range_is_kept(sample):
    x = sample("heavy tails")
    assert find(make_histogram(x), 9, False) == (x.min(), x.max())


def test_where_no_clip_counts_the_range_is_kept():
    for x in (np.zeros(2), np.full(2, 3.0), np.full(2, -3.0), np.array([1.0, 100.0])):
        x = x.astype(np.float32)
        for bits in (2, 8):
            assert find(make_histogram(x), bits, False) == (x.min(), x.max())
