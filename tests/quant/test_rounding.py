"""AdaRound's functions against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from autosplit.quant.rounding import beta_at, rounding_loss, rounding_start, soft_round


def reference_h(v):
    return np.clip(1.2 / (1 + np.exp(-np.float64(v))) - 0.1, 0, 1)


def test_h_equals_numpy():
    v = np.linspace(-8, 8, 101).astype(np.float32)
    np.testing.assert_allclose(soft_round(v), reference_h(v), atol=1e-6)


def test_starts_at_the_part_over_the_level_below():
    level = np.array([-2.75, -0.5, 0.0, 0.25, 3.5], np.float32)
    v = rounding_start(jnp.asarray(level * 0.3), 0.3)
    np.testing.assert_allclose(soft_round(v), level - np.floor(level), atol=1e-5)


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
