"""Bit allocation against the published formula and against a plain greedy loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autosplit.quant.affine import fake_quant_weight
from autosplit.quant.channel_bits import channel_bits, channel_levels

fast = jax.jit(channel_bits)


def reference_levels(spread, bits):
    part = np.float64(spread) ** (2 / 3)
    return len(spread) * 2.0**bits * part / part.sum()


def reference_bits(spread, bits):
    """Gives one bit after another to the channel that rounding would raise next."""
    share = np.log2(reference_levels(spread, bits))
    found = np.ones(len(spread), int)
    while found.sum() < int(len(spread) * bits + 1e-3):
        found[np.argmin(np.where(found < 8, found + 0.5 - share, np.inf))] += 1
    return found


@pytest.mark.parametrize("bits", [1, 2, 4, 4.5, 8])
def test_equals_the_greedy_loop(bits):
    spread = np.random.default_rng(0).lognormal(sigma=1.5, size=32).astype(np.float32)
    np.testing.assert_allclose(channel_levels(spread, bits), reference_levels(spread, bits), 1e-4)
    found = np.asarray(fast(spread, bits))
    np.testing.assert_array_equal(found, reference_bits(spread, bits))
    assert found.sum() == int(32 * bits)


def test_is_published_rounding_at_a_moved_threshold():
    spread = np.random.default_rng(1).lognormal(size=32).astype(np.float32)
    found = np.asarray(fast(spread, 4))
    share = np.log2(reference_levels(spread, 4))
    moved = [np.clip(np.rint(share + t), 1, 8) for t in np.linspace(-1, 1, 4001)]
    assert any((found == one).all() for one in moved)
    # Unmoved, the mean falls short or exceeds.
    assert np.clip(np.rint(share), 1, 8).mean() == pytest.approx(4, abs=0.5)


@given(
    spread=hnp.arrays(np.float32, 7, elements=st.floats(0, float(np.float32(1e30)), width=32)),
    bits=st.floats(1, 8, width=32),
)
def test_any_spread_keeps_the_budget(spread, bits):
    found = np.asarray(fast(spread, bits))
    assert found.dtype == np.int32
    assert found.min() >= 1
    assert found.max() <= 8
    assert bits - 1 / 7 - 1e-3 <= found.mean() <= bits + 1e-3
    # A wider channel never gets less.
    order = np.argsort(spread)
    wider = np.diff(spread[order]) > 1e-4 * spread[order][1:]
    assert (np.diff(found[order])[wider] >= 0).all()


def test_equal_channels_and_zeros_share_equally():
    for value in (0.0, 3.0, 1e-40):
        assert fast(np.full(7, value, np.float32), 4).tolist() == [4] * 7
    # The dead channel gets the least there is; what is left over goes to the first ones.
    assert fast(np.float32([1, 1, 1, 0, 1, 1, 1]), 4).tolist() == [5, 5, 5, 1, 4, 4, 4]
    assert channel_bits(jnp.zeros(0), 4).shape == (0,)


def test_bits_do_not_recompile():
    traces = []

    @jax.jit
    def counted(spread, bits):
        traces.append(1)
        return channel_bits(spread, bits)

    spread = jnp.arange(1.0, 8.0)
    each = [counted(spread, jnp.float32(bits)) for bits in range(1, 9)]
    assert len(traces) == 1
    np.testing.assert_array_equal(jax.vmap(counted, (None, 0))(spread, jnp.arange(1.0, 9.0)), each)


def test_costs_less_error_than_equal_bits():
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.05, 2, 32, dtype=np.float32)
    weight = jnp.asarray(rng.normal(size=(400, 32)) * spread, jnp.float32)
    clip = jnp.abs(weight).max(axis=0, keepdims=True)

    @jax.jit
    def error(bits):
        return jnp.mean(jnp.square(weight - fake_quant_weight(weight, clip, bits)))

    errors = [float(error(bits)) for bits in (fast(spread, 4), jnp.full(32, 4))]
    assert errors[0] < 0.6 * errors[1]
