"""Weight correction: the moments of each channel come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.quant.affine import fake_quant_weight
from autosplit.quant.weight_correction import corrected_weight, weight_correction

fast = jax.jit(corrected_weight, static_argnames=("channel_axes", "spread"))


def case(bits=3, shape=(3, 3, 8, 6)):
    rng = np.random.default_rng(0)
    weight = rng.laplace(0.02, 0.1, shape) * np.geomspace(0.1, 3, shape[-1])
    weight = jnp.asarray(weight, jnp.float32)
    clip = 0.4 * jnp.abs(weight).max(axis=(0, 1, 2), keepdims=True)
    return weight, fake_quant_weight(weight, clip, bits)


def moments(x, axes):
    return np.asarray(x, np.float64).mean(axes), np.asarray(x, np.float64).std(axes)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("axes", [(3,), (0, 3), (), (0,)])
def test_mean_and_spread_are_the_originals(axes, bits):
    weight, quantized = case(bits)
    found = fast(weight, quantized, channel_axes=axes)
    others = tuple(a for a in range(4) if a not in axes)
    for one, expected in zip(moments(found, others), moments(weight, others), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-3, atol=1e-6)


def test_the_mean_alone():
    weight, quantized = case()
    found = fast(weight, quantized, channel_axes=(3,), spread=False)
    expected = quantized + (weight - quantized).mean((0, 1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    scale, _ = weight_correction(weight, quantized, (3,), spread=False)
    assert (scale == 1).all()


def test_equals_the_published_form_in_loops():
    weight, quantized = (np.asarray(x, np.float64) for x in case())
    scale, offset = weight_correction(jnp.asarray(weight), jnp.asarray(quantized), (3,))
    assert scale.shape == offset.shape == (1, 1, 1, 6)
    for c in range(6):
        w, q = weight[..., c].ravel(), quantized[..., c].ravel()
        xi = np.linalg.norm(w - w.mean()) / np.linalg.norm(q - q.mean())
        mu = w.mean() / xi - q.mean()
        assert float(scale[..., c].item()) == pytest.approx(xi, rel=1e-4)
        assert float(offset[..., c].item()) == pytest.approx(xi * mu, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (1, 4), (0,)])
def test_channels_without_spread_or_values(shape):
    for weight in (jnp.zeros(shape), jnp.full(shape, 2.0)):
        found = corrected_weight(weight, 0.5 * weight, (len(shape) - 1,))
        np.testing.assert_array_equal(found, weight)


def test_a_dead_channel_moves_to_its_mean():
    weight = jnp.array([[1.0, 3.0], [2.0, 3.0]])
    found = corrected_weight(weight, jnp.zeros((2, 2)), (1,))
    np.testing.assert_allclose(found, [[1.5, 3.0], [1.5, 3.0]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtype_is_kept(dtype):
    weight, quantized = (x.astype(dtype) for x in case())
    assert fast(weight, quantized, channel_axes=(3,)).dtype == dtype
