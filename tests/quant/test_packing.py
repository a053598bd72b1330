"""Packed levels come back, and lie where the documented layout says."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.quant.packing import pack, packed_bytes, unpack

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def reference_pack(levels, bits):
    """Writes the layout bit by bit, from its description: 8 blocks, strings of 8 b bits, planes."""
    flat = [int(v) for v in np.ravel(levels)]
    block = math.ceil(len(flat) / 8)
    flat += [0] * (8 * block - len(flat))
    planes = np.zeros((bits, block), np.uint8)
    for place in range(block):
        # The first block is the lowest part of the string.
        string = "".join(
            format(flat[number * block + place], f"0{bits}b") for number in reversed(range(8))
        )
        for plane in range(bits):
            end = len(string) - 8 * plane
            planes[plane, place] = int(string[end - 8 : end], 2)
    return planes.ravel()


def random_levels(seed, shape, bits):
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8)


@settings(max_examples=25)
@given(shape=shapes, bits=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_any_shape_comes_back(shape, bits, seed):
    levels = random_levels(seed, shape, bits)
    packed = pack(jnp.asarray(levels), bits)
    assert packed.dtype == jnp.uint8
    assert packed.shape == (packed_bytes(levels.size, bits),)
    np.testing.assert_array_equal(packed, reference_pack(levels, bits))
    found = unpack(packed, bits, shape)
    assert found.dtype == jnp.uint8
    assert found.shape == shape
    np.testing.assert_array_equal(found, levels)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64, 1001])
def test_sizes_around_a_byte(bits, size):
    levels = random_levels(size, size, bits)
    packed = pack(jnp.asarray(levels), bits)
    np.testing.assert_array_equal(packed, reference_pack(levels, bits))
    np.testing.assert_array_equal(unpack(packed, bits, (size,)), levels)
    # Less than eight levels are lost to padding.
    assert 0 <= packed.size - size * bits / 8 < bits


@pytest.mark.parametrize("bits", range(1, 9))
def test_compiled_equals_uncompiled(bits):
    levels = random_levels(1, (3, 5, 7), bits)
    packed = jax.jit(pack, static_argnums=1)(levels, bits)
    np.testing.assert_array_equal(packed, reference_pack(levels, bits))
    restore = jax.jit(functools.partial(unpack, bits=bits, shape=(3, 5, 7)))
    np.testing.assert_array_equal(restore(packed), levels)


def test_a_loop_over_elements_is_not_needed():
    program = jax.make_jaxpr(lambda x: pack(x, 3))(np.zeros(10_000, np.uint8))
    assert "while" not in str(program)
    assert len(program.eqns) < 200


@pytest.mark.parametrize("bits", [0, -1, 9, 32])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(InputError, match="expected 1 to 8"):
        pack(jnp.zeros(8, jnp.uint8), bits)
    with pytest.raises(InputError, match="expected 1 to 8"):
        unpack(jnp.zeros(8, jnp.uint8), bits, (8,))


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.int32, jnp.float32, jnp.bool_])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(InputError, match="expected uint8"):
        pack(jnp.zeros(8, dtype), 4)
    with pytest.raises(InputError, match="expected uint8"):
        unpack(jnp.zeros(4, dtype), 4, (8,))


@pytest.mark.parametrize("length", [0, 3, 5, 8])
def test_other_lengths_are_refused(length):
    with pytest.raises(InputError, match="truncated"):
        unpack(jnp.zeros(length, jnp.uint8), 4, (8,))
    with pytest.raises(InputError, match="truncated"):
        unpack(jnp.zeros((2, 2), jnp.uint8), 4, (8,))
