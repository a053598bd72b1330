"""Affine quantization against NumPy, and what holds for any tensor and bit-width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autosplit.quant.affine import (
    activation_grid,
    dequantize,
    fake_quant,
    fake_quant_weight,
    quantize,
    quantize_weight,
    signed_levels,
    symmetric_range,
    weight_qmax,
    weight_scale,
)
from autosplit.workload import FLOAT_BITS

BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16)

# Compiled once: bits and clips are arguments.
fast_quant = jax.jit(fake_quant)
fast_quant_weight = jax.jit(fake_quant_weight)

finite = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
vectors = hnp.arrays(np.float32, 16, elements=finite)


def reference_weight(weight, clip, bits):
    """Symmetric quantization in float64."""
    weight, clip = np.float64(weight), np.float64(clip)
    if bits == 1:
        return np.where(weight < 0, -clip, clip)
    qmax = 2 ** (bits - 1) - 1
    scale = np.where(clip > 0, clip / qmax, 1.0)
    return np.clip(np.rint(weight / scale), -qmax, qmax) * scale


def reference_activation(x, low, high, bits):
    """Asymmetric quantization in float64: the levels and their values."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1) or 1.0
    zero_point = np.rint(-low / scale)
    level = np.clip(np.rint(np.float64(x) / scale) + zero_point, 0, 2**bits - 1)
    return level, (level - zero_point) * scale


def assert_same_but_for_ties(found, expected, step):
    """All values equal, except the few that lie half-way between two levels in float32."""
    distance = np.abs(np.float64(found) - expected)
    assert distance.max() <= step * 1.01
    assert np.mean(distance > step * 1e-2) < 2e-3


@pytest.mark.parametrize("bits", BITS)
def test_weights_equal_numpy(bits):
    weight = np.random.default_rng(bits).normal(size=(300, 7)).astype(np.float32)
    clip = 0.8 * np.abs(weight).max(axis=0, keepdims=True)
    found = fast_quant_weight(weight, clip, bits)
    expected = reference_weight(weight, clip, bits)
    assert_same_but_for_ties(found, expected, clip.max() / max(2 ** (bits - 1) - 1, 1))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("low", "high"), [(-1.31, 2.1), (0.0, 3.0), (-2.0, -0.5), (0.5, 2.0)])
def test_activations_equal_numpy(bits, low, high):
    x = np.random.default_rng(bits).normal(size=2000).astype(np.float32)
    _, expected = reference_activation(x, low, high, bits)
    step = (max(high, 0) - min(low, 0)) / (2**bits - 1)
    assert_same_but_for_ties(fast_quant(x, low, high, bits), expected, step)


@pytest.mark.parametrize("bits", BITS)
def test_levels_are_whole_and_in_range(bits):
    x = np.random.default_rng(0).normal(size=500).astype(np.float32) * 3
    weights = np.asarray(quantize_weight(x, 2.0, bits))
    codes = np.asarray(quantize(x, -1.0, 2.0, bits))
    assert (weights == np.rint(weights)).all()
    assert (codes == np.rint(codes)).all()
    largest = float(weight_qmax(bits))
    assert (weights.min(), weights.max()) == (-largest, largest)
    assert (codes.min(), codes.max()) == (0, 2**bits - 1)


def test_one_bit_weights_are_signs():
    weight = jnp.array([-3.0, -0.01, 0.0, 0.01, 3.0])
    assert quantize_weight(weight, 0.5, 1).tolist() == [-1, -1, 1, 1, 1]
    assert fake_quant_weight(weight, 0.5, 1).tolist() == [-0.5, -0.5, 0.5, 0.5, 0.5]


def test_weight_levels_negate():
    weight = np.random.default_rng(0).normal(size=100).astype(np.float32)
    for bits in (2, 3, 8):
        levels = quantize_weight(weight, 1.5, bits)
        np.testing.assert_array_equal(quantize_weight(-weight, 1.5, bits), -levels)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_float_bits_leave_values_as_they_are(dtype):
    x = jax.random.normal(jax.random.key(0), (64,), dtype)
    assert (fake_quant(x, -0.1, 0.1, FLOAT_BITS) == x).all()
    assert (fake_quant_weight(x, 0.1, FLOAT_BITS) == x).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(dtype):
    x = jax.random.normal(jax.random.key(0), (64,), dtype)
    assert fake_quant(x, -2.0, 2.0, 4).dtype == dtype
    assert fake_quant_weight(x, 2.0, 4).dtype == dtype


@given(x=vectors, low=finite, high=finite, bits=st.sampled_from(BITS))
def test_any_tensor_any_clip(x, low, high, bits):
    found = np.asarray(fast_quant(x, low, high, bits))
    assert np.isfinite(found).all()
    # Zero is a level, whatever the clip.
    assert float(fast_quant(jnp.zeros(()), low, high, bits)) == 0.0
    # What is inside the clip moves by at most half a step, or one at the rounded ends.
    step = (max(high, 0.0) - min(low, 0.0)) / (2**bits - 1)
    inside = (x >= min(low, 0.0)) & (x <= max(high, 0.0))
    slack = 1e-5 * max(abs(low), abs(high), 1e-30)
    assert (np.abs(found - x)[inside] <= step + slack).all()


@given(x=vectors, bits=st.sampled_from(BITS))
def test_twice_is_once(x, bits):
    low, high = float(x.min()), float(x.max())
    once = fast_quant(x, low, high, bits)
    np.testing.assert_allclose(fast_quant(once, low, high, bits), once, rtol=1e-6)


@given(
    weight=hnp.arrays(np.float32, (4, 5), elements=finite),
    dead=st.sets(st.integers(0, 4)),
    bits=st.sampled_from(BITS),
)
def test_any_weight_with_channels_of_zeros(weight, dead, bits):
    weight[:, sorted(dead)] = 0
    clip = np.abs(weight).max(axis=0, keepdims=True)
    found = np.asarray(fast_quant_weight(weight, clip, bits))
    assert np.isfinite(found).all()
    # One bit has no zero: a dead channel gets the smallest number there is.
    assert (np.abs(found[:, sorted(dead)]) <= np.finfo(np.float32).tiny).all()
    step = clip / max(2 ** (bits - 1) - 1, 1)
    factor = 1.0 if bits == 1 else 0.5
    assert (np.abs(found - weight) <= factor * step * (1 + 1e-3) + 1e-30).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", [0.0, 4.0, -4.0])
def test_constant_tensors_are_exact(bits, value):
    x = jnp.full(9, value)
    assert fake_quant(x, x.min(), x.max(), bits).tolist() == [value] * 9
    if value:
        assert fake_quant_weight(x, 4.0, bits).tolist() == [value] * 9


def test_grid_of_zeros_has_the_scale_one():
    scale, zero_point, levels = activation_grid(0.0, 0.0, 4)
    assert (float(scale), float(zero_point), float(levels)) == (1.0, 0.0, 15.0)
    assert float(weight_scale(0.0, 4)) > 0


def test_levels_of_a_clip_are_its_ends():
    for bits in (2, 5, 8):
        ends = dequantize(jnp.array([0.0, 2.0**bits - 1]), 0.0, 6.0, bits)
        np.testing.assert_allclose(ends, [0.0, 6.0], rtol=1e-6)


@pytest.mark.parametrize("bits", [b for b in BITS if b > 1])
@pytest.mark.parametrize(("low", "high"), [(-1.31, 2.1), (0.0, 3.0), (-2.0, -0.5), (0.5, 2.0)])
def test_symmetric_ranges_have_the_middle_level_at_zero(bits, low, high):
    ends = symmetric_range(low, high, bits)
    scale, zero_point, _ = activation_grid(*ends, bits)
    reach = max(abs(low), abs(high))
    assert float(zero_point) == 2 ** (bits - 1)
    assert float(scale) == pytest.approx(reach / (2 ** (bits - 1) - 1), rel=1e-6)
    # Levels of either sign mirror, and within the clip they are those of a weight.
    x = np.clip(np.random.default_rng(bits).normal(size=500), -reach, reach).astype(np.float32)
    found = np.asarray(fast_quant(x, *ends, bits))
    assert_same_but_for_ties(found, reference_weight(x, reach, bits), float(scale))
    np.testing.assert_allclose(fast_quant(-x, *ends, bits), -found, rtol=1e-6)


def test_symmetric_range_of_one_bit_stays():
    assert symmetric_range(-1.0, 3.0, 1) == (-1.0, 3.0)


@pytest.mark.parametrize("bits", BITS)
def test_signed_levels_stand_for_the_same_values(bits):
    x = np.random.default_rng(0).normal(size=500).astype(np.float32)
    scale, zero_point, _ = activation_grid(-1.0, 2.0, bits)
    levels = signed_levels(quantize(x, -1.0, 2.0, bits), bits)
    assert (float(levels.min()), float(levels.max())) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    found = (levels - signed_levels(zero_point, bits)) * scale
    np.testing.assert_array_equal(found, fake_quant(x, -1.0, 2.0, bits))
    if bits == 8:
        np.testing.assert_array_equal(np.asarray(levels, np.int8), levels)


@pytest.mark.parametrize("bits", BITS)
def test_asymmetric_weights_with_a_range_for_each_channel(bits):
    weight = np.random.default_rng(bits).normal(0.3, size=(2000, 7)).astype(np.float32)
    low, high = (f(axis=0, keepdims=True) for f in (weight.min, weight.max))
    found = fast_quant(weight, low, high, bits)
    for c in range(7):
        ends = float(low[0, c]), float(high[0, c])
        _, expected = reference_activation(weight[:, c], *ends, bits)
        assert_same_but_for_ties(found[:, c], expected, (ends[1] - ends[0]) / (2**bits - 1))


def test_clips_and_values_beyond_float32_are_clamped():
    for low, high in ((-3.4e38, 3.4e38), (-np.inf, np.inf), (0.0, np.inf)):
        for bits in BITS:
            assert np.isfinite(fast_quant(jnp.array([-np.inf, 0.0, np.inf]), low, high, bits)).all()
            assert np.isfinite(fast_quant_weight(jnp.array([-np.inf, np.inf]), high, bits)).all()
    assert fake_quant(jnp.array([-np.inf, np.inf]), 0.0, 6.0, 4).tolist() == [0.0, 6.0]


def test_bits_do_not_recompile():
    traces = []

    @jax.jit
    def both(x, clip, bits):
        traces.append(1)
        return fake_quant(x, -clip, clip, bits), fake_quant_weight(x, clip, bits)

    for bits in (*BITS, FLOAT_BITS):
        both(jnp.ones(3), jnp.float32(bits), jnp.int32(bits))
    assert len(traces) == 1
    many = jax.vmap(lambda b: fake_quant(jnp.array(0.3), 0.0, 1.0, b))(jnp.array(BITS))
    each = [float(fake_quant(jnp.array(0.3), 0.0, 1.0, b)) for b in BITS]
    np.testing.assert_allclose(many, each, rtol=1e-6)
