"""AdaRound against NumPy, and that training by it decides every weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autosplit.quant.affine import fake_quant_weight, weight_qmax, weight_scale
from autosplit.quant.rounding import (
    beta_at,
    hard_weight,
    rounding_loss,
    rounding_start,
    soft_round,
    soft_weight,
)

BITS = (2, 3, 4, 8)

weights = hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32))
fast = {f: jax.jit(f) for f in (rounding_start, soft_round, soft_weight, hard_weight)}


def reference_h(v):
    return np.clip(1.2 / (1 + np.exp(-np.float64(v))) - 0.1, 0, 1)


def channel_grid(weight, bits):
    clip = jnp.asarray(0.7 * np.abs(weight).max(axis=0, keepdims=True))
    return clip, weight_scale(clip, bits), weight_qmax(bits)


def test_h_equals_numpy():
    v = np.linspace(-8, 8, 101).astype(np.float32)
    np.testing.assert_allclose(fast[soft_round](v), reference_h(v), atol=1e-6)


@given(weight=weights, bits=st.sampled_from(BITS))
def test_starts_at_the_float_weight(weight, bits):
    clip, scale, qmax = channel_grid(weight, bits)
    v = fast[rounding_start](weight, scale)
    assert np.isfinite(v).all()
    found = fast[soft_weight](weight, v, scale, qmax)
    # On the grid's range the weight itself, beyond it the clip; no step is below the least normal.
    slack = 1e-5 * np.asarray(jnp.abs(weight) + scale) + np.finfo(np.float32).tiny
    assert (np.abs(found - np.clip(weight, -clip, clip)) <= slack).all()


@given(weight=weights, bits=st.sampled_from(BITS), seed=st.integers(0, 99))
def test_hard_weights_are_a_level_next_to_the_weight(weight, bits, seed):
    clip, scale, qmax = channel_grid(weight, bits)
    v = np.random.default_rng(seed).normal(size=weight.shape).astype(np.float32)
    found = np.asarray(fast[hard_weight](weight, v, scale, qmax))
    level = np.floor(np.float64(weight) / np.float64(scale)) + (v >= 0)
    expected = np.clip(level, -int(qmax), int(qmax)) * np.float64(scale)
    # float32 may put a weight that lies on a level below it.
    assert (np.abs(found - expected) <= 1.01 * np.asarray(scale)).all()
    assert np.mean(np.abs(found - expected) <= 1e-4 * np.asarray(scale)) > 0.7
    # The grid of fake quantization holds it.
    again = np.asarray(fake_quant_weight(jnp.asarray(found), clip, bits))
    np.testing.assert_allclose(again, found, rtol=1e-6, atol=1e-30)


def test_decided_weights_are_hard():
    weight = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    _, scale, qmax = channel_grid(weight, 4)
    v = 9.0 * np.sign(np.random.default_rng(1).normal(size=weight.shape)).astype(np.float32)
    soft, hard = (fast[f](weight, v, scale, qmax) for f in (soft_weight, hard_weight))
    np.testing.assert_array_equal(soft, hard)
    assert float(rounding_loss(v, 2.0)) == 0


@pytest.mark.parametrize("beta", [2.0, 5.5, 20.0])
def test_loss_and_gradient_equal_numpy(beta):
    v = np.random.default_rng(0).normal(size=6).astype(np.float32)

    def reference(v):
        return np.sum(1 - np.abs(2 * reference_h(v) - 1) ** beta)

    loss, gradient = jax.value_and_grad(rounding_loss)(jnp.asarray(v), jnp.float32(beta))
    assert float(loss) == pytest.approx(reference(v), rel=1e-5)
    expected = scipy.optimize.approx_fprime(np.float64(v), reference, 1e-7)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


def test_gradients_are_finite_everywhere():
    v = jnp.array([-100.0, -2.4, 0.0, 2.4, 100.0])
    gradient = jax.jit(jax.grad(rounding_loss))
    for beta in (2.0, 20.0):
        assert np.isfinite(gradient(v, beta)).all()


def test_beta_anneals_after_the_warm_up():
    steps = 1000
    found = np.asarray(jax.vmap(beta_at, (0, None))(jnp.arange(steps + 1), steps))
    expected = np.interp(np.arange(steps + 1), [200, 1000], [20, 2])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_training_beats_rounding_to_nearest():
    # Inputs that are correlated: what matters is the output, not each weight.
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(200, 1)) + 0.3 * rng.normal(size=(200, 12)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32)
    clip = jnp.abs(weight).max(axis=0, keepdims=True)
    scale, qmax, steps = weight_scale(clip, 3), weight_qmax(3), 400

    def output_error(value):
        return jnp.mean(jnp.square(x @ (value - weight)))

    @jax.jit
    def step(v, n):
        def loss(v):
            weighted = 1e-2 * rounding_loss(v, beta_at(n, steps))
            return output_error(soft_weight(weight, v, scale, qmax)) + (n > 80) * weighted

        return v - 0.5 * jnp.sign(jax.grad(loss)(v)) * (1 - n / steps) * 0.2

    v = rounding_start(weight, scale)
    for n in range(steps):
        v = step(v, n)
    trained = output_error(hard_weight(weight, v, scale, qmax))
    nearest = output_error(fake_quant_weight(weight, clip, 3))
    assert float(trained) < 0.7 * float(nearest)
