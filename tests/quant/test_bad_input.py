"""Every clipping method and every scheme on tensors that nobody should have, but somebody will."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autosplit.quant.affine import fake_quant, fake_quant_weight, symmetric_range
from autosplit.quant.clipping import METHODS, histogram, lp_clip
from autosplit.workload import FLOAT_BITS

TINY = np.finfo(np.float32).tiny

values = st.one_of(
    st.floats(-2, 2, width=32),
    st.floats(width=32),
    st.sampled_from([0.0, 1e-45, -1e-40, TINY, 3e38, -3.4e38, np.inf, -np.inf, np.nan]),
)
tensors = hnp.arrays(np.float32, 12, elements=values)
bit_widths = st.sampled_from((1, 2, 3, 4, 8, 9, 16, 24, FLOAT_BITS))

rules = {**METHODS, "lp": lambda h, bits, symmetric: lp_clip(h, bits, symmetric, jnp.float32(3))}
make_histogram = jax.jit(histogram)
fast_rules = {name: jax.jit(rule, static_argnums=2) for name, rule in rules.items()}


def weight_scheme(x, low, high, bits):
    return fake_quant_weight(x, high, bits)


def symmetric_activation_scheme(x, low, high, bits):
    return fake_quant(x, *symmetric_range(low, high, bits), bits)


schemes = {
    "weights": (jax.jit(weight_scheme), True),
    "activations": (jax.jit(fake_quant), False),
    "symmetric activations": (jax.jit(symmetric_activation_scheme), False),
}


def clip_of(name, x, bits, symmetric):
    low, high = fast_rules[name](make_histogram(x), jnp.int32(bits), symmetric)
    return float(low), float(high)


@pytest.mark.parametrize("name", list(rules))
@settings(max_examples=15)
@given(x=tensors, bits=bit_widths)
@example(x=np.zeros(12, np.float32), bits=1)
@example(x=np.full(12, np.nan, np.float32), bits=4)
@example(x=np.full(12, -3.4e38, np.float32), bits=24)
@example(x=np.r_[np.full(6, -3.4e38), np.full(6, 3.4e38)].astype(np.float32), bits=1)
@example(x=np.full(12, 1e-40, np.float32), bits=8)
@example(x=-np.arange(1, 13, dtype=np.float32), bits=3)
def test_any_tensor(name, x, bits):
    seen = np.float64(x[np.isfinite(x)])
    least, most = min(seen.min(initial=0), 0), max(seen.max(initial=0), 0)
    for scheme, symmetric in schemes.values():
        low, high = clip_of(name, x, bits, symmetric)
        assert np.isfinite([low, high]).all()
        assert low <= high
        if symmetric:
            assert low == -high
            assert high <= max(-least, most) * (1 + 1e-6) + TINY
        else:
            assert least * (1 + 1e-6) - TINY <= low
            assert high <= most * (1 + 1e-6) + TINY
        found = np.asarray(scheme(x, low, high, bits))
        if bits == FLOAT_BITS:
            np.testing.assert_array_equal(found, x)
        else:
            # Infinities are clamped to the clip; NaN is not hidden, but for the sign of one bit.
            assert np.isfinite(found[~np.isnan(x)]).all()
            assert bits == 1 or np.isnan(found[np.isnan(x)]).all()


@pytest.mark.parametrize("name", list(rules))
def test_of_nothing_the_clip_is_zero(name):
    for symmetric in (True, False):
        for x in (np.zeros((0, 3)), np.zeros(12), np.full(12, np.inf)):
            low, high = fast_rules[name](make_histogram(x), jnp.int32(4), symmetric)
            assert (float(low), float(high)) == (0, 0)


def test_nothing_is_quantized_to_nothing():
    assert fake_quant(jnp.zeros((0, 3)), 0.0, 0.0, 4).shape == (0, 3)
    assert fake_quant_weight(jnp.zeros((0, 3)), jnp.zeros((1, 3)), 4).shape == (0, 3)


@pytest.mark.parametrize("name", list(rules))
def test_constant_tensors_are_kept(name):
    for value in (3.0, -3.0):
        x = np.full(12, value, np.float32)
        for bits in (1, 2, 4, 8):
            low, high = clip_of(name, x, bits, False)
            np.testing.assert_allclose(schemes["activations"][0](x, low, high, bits), x, rtol=1e-6)
            if bits > 1:
                low, high = clip_of(name, x, bits, True)
                np.testing.assert_allclose(schemes["weights"][0](x, low, high, bits), x, rtol=1e-6)


@pytest.mark.parametrize("name", list(rules))
def test_negative_activations_are_the_mirror_of_positive_ones(name, sample):
    x = sample("half gauss")
    for bits in (2, 4, 8):
        low, high = clip_of(name, x, bits, False)
        mirror_low, mirror_high = clip_of(name, -x, bits, False)
        assert mirror_low == pytest.approx(-high, rel=0.02)
        assert mirror_high == pytest.approx(-low, abs=0.02)


@pytest.mark.parametrize("name", list(rules))
def test_magnitude_does_not_matter(name, sample):
    x = sample("laplace", 12 * 50)
    for symmetric in (True, False):
        reference = np.array(clip_of(name, x, 4, symmetric))
        for size in (1e-30, 1e36):
            found = np.array(clip_of(name, x * np.float32(size), 4, symmetric)) / size
            np.testing.assert_allclose(found, reference, rtol=0.1, atol=1e-3)


@settings(max_examples=15)
@given(
    x=hnp.arrays(np.float32, (6, 4), elements=values),
    dead=st.sets(st.integers(0, 3)),
    bits=st.lists(bit_widths, min_size=4, max_size=4),
)
def test_channels_with_their_own_clips_and_bits(x, dead, bits):
    x[:, sorted(dead)] = 0
    seen = np.where(np.isfinite(x), x, 0)
    low, high = seen.min(0, keepdims=True), seen.max(0, keepdims=True)
    widths = np.array(bits, np.int32)
    for scheme, symmetric in schemes.values():
        reach = np.maximum(-low, high)
        ends = (-reach, reach) if symmetric else (low, high)
        found = np.asarray(scheme(x, *ends, widths))
        assert (np.isfinite(found) | np.isnan(x) | (widths == FLOAT_BITS)).all()
        for c in range(4):
            column = np.asarray(scheme(x[:, c : c + 1], *(e[:, c : c + 1] for e in ends), bits[c]))
            np.testing.assert_allclose(found[:, c : c + 1], column, rtol=1e-6, atol=2 * TINY)
