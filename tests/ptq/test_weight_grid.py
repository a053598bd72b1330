"""Soft and hard weights: levels next to the weight, and that training decides between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autosplit.profiling.assignment import Assignment
from autosplit.ptq.weight_grid import hard_levels, soft_levels, start_of, weight_grid
from autosplit.quant.affine import fake_quant_weight
from autosplit.quant.rounding import beta_at, rounding_loss
from autosplit.workload import FLOAT_BITS

BITS = (2, 3, 4, 8)

weights = hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32))


def grid_of(weight, high, bits, low=None):
    assignment = Assignment(
        on_edge=jnp.ones(1, bool), w_bits=jnp.array([bits]), w_high=[jnp.asarray(high)],
        w_low=None if low is None else [jnp.asarray(low)],
        a_bits=jnp.zeros(0, int), a_low=jnp.zeros(0), a_high=jnp.zeros(0),
    )  # fmt: skip
    return weight_grid(jnp.asarray(weight), assignment, 0)


def channel_clip(weight):
    return jnp.asarray(0.7 * np.abs(weight).max(axis=0, keepdims=True))


@given(weight=weights, bits=st.sampled_from(BITS))
def test_starts_at_the_float_weight(weight, bits):
    clip = channel_clip(weight)
    grid = grid_of(weight, clip, bits)
    if grid is None:
        assert not weight.any()
        return
    start = start_of(jnp.asarray(weight), grid)
    assert np.isfinite(start).all()
    # On the grid's range the weight itself, beyond it the clip; channels of zeros stay.
    slack = 1e-5 * np.asarray(jnp.abs(weight) + grid.scale) + np.finfo(np.float32).tiny
    error = np.abs(soft_levels(start, grid) - np.clip(weight, -clip, clip))
    assert (error <= slack).all()


@given(weight=weights, bits=st.sampled_from(BITS), seed=st.integers(0, 99))
def test_hard_weights_are_a_level_next_to_the_weight(weight, bits, seed):
    clip = channel_clip(weight)
    grid = grid_of(weight, clip, bits)
    if grid is None:
        return
    v = np.random.default_rng(seed).normal(size=weight.shape).astype(np.float32)
    found, scale = np.asarray(hard_levels(jnp.asarray(v), grid)), np.float64(grid.scale)
    top = 2 ** (bits - 1) - 1
    expected = np.clip(np.floor(np.float64(weight) / scale) + (v >= 0), -top, top) * scale
    free = np.broadcast_to(grid.is_free, weight.shape)
    # float32 may put a weight that lies on a level below it.
    error = np.where(free, np.abs(found - expected), 0)
    assert (error <= 1.01 * scale).all()
    assert np.mean(error <= 1e-4 * scale) > 0.7
    # The grid of fake quantization holds it.
    again = np.asarray(fake_quant_weight(jnp.asarray(found), clip, bits))
    np.testing.assert_allclose(again, found, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("low", [None, -0.4])
def test_decided_weights_are_hard(low):
    random = np.random.default_rng(0)
    grid = grid_of(random.normal(size=(20, 5)).astype(np.float32), 1.5, 4, low)
    v = jnp.asarray(9.0 * np.sign(random.normal(size=(20, 5))), jnp.float32)
    np.testing.assert_array_equal(soft_levels(v, grid), hard_levels(v, grid))
    assert float(rounding_loss(v, 2.0)) == 0


def test_nothing_is_free_in_float_and_in_signs():
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert grid_of(weight, 1.0, FLOAT_BITS) is None
    assert grid_of(weight, 1.0, 1) is None
    assert grid_of(np.zeros_like(weight), 0.0, 4) is None


def test_training_beats_rounding_to_nearest():
    # Inputs that are correlated: what matters is the output, not each weight.
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 1)) + 0.3 * random.normal(size=(200, 12))
    weight = jnp.asarray(random.normal(size=(12, 4)), jnp.float32)
    grid, steps = grid_of(weight, jnp.abs(weight).max(axis=0, keepdims=True), 3), 400

    def output_error(value):
        return jnp.mean(jnp.square(jnp.asarray(x, jnp.float32) @ (value - weight)))

    @jax.jit
    def step(v, n):
        def loss(v):
            weighted = 1e-2 * rounding_loss(v, beta_at(n, steps))
            return output_error(soft_levels(v, grid)) + (n > 80) * weighted

        return v - 0.5 * jnp.sign(jax.grad(loss)(v)) * (1 - n / steps) * 0.2

    v = start_of(weight, grid)
    for n in range(steps):
        v = step(v, n)
    assert float(output_error(hard_levels(v, grid))) < 0.7 * float(output_error(grid.nearest))
