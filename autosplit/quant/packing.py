"""Packs levels of 1 to 8 bits densely into bytes, and back.

Layout ("planar"): the flat levels are split into 8 equal blocks of ``m`` (the
last padded with zeros). The 8 levels at one place of the blocks form a string of
``8 b`` bits, the first block lowest; its byte ``j`` goes to plane ``j``. The
packed array is the ``b`` planes one after the other, ``b * m`` bytes. All steps are
shifts and ors of contiguous vectors, without a loop over elements, and any bit-width
wastes less than 8 bytes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from autosplit.errors import InputError


def packed_bytes(size: int, bits: int) -> int:
    """Returns the bytes that ``size`` levels of ``bits`` bits take: ``bits * ceil(size / 8)``.

    >>> packed_bytes(100, 4)
    52
    """
    return bits * (-(-size // 8))


def pack(levels: jax.Array, bits: int) -> jax.Array:
    """Packs levels into bytes.

    Args:
      levels: unsigned levels below ``2^bits``, uint8, any shape.
      bits: 1 to 8, static (the length of the result depends on it).

    Returns:
      u8[packed_bytes(levels.size, bits)].

    Raises:
      InputError: ``bits`` is not 1 to 8 or ``levels`` is not uint8.

    >>> pack(jnp.arange(8, dtype=jnp.uint8) % 2, 1).tolist()
    [170]
    """
    _check_bits(bits)
    if levels.dtype != jnp.uint8:
        raise InputError(f"Levels have the dtype {levels.dtype}; expected uint8.")
    block = -(-levels.size // 8)
    flat = jnp.pad(levels.reshape(-1), (0, 8 * block - levels.size))
    blocks = flat.reshape(8, block).astype(jnp.uint16)
    planes = []
    for plane in range(bits):
        byte = jnp.zeros(block, jnp.uint16)
        for index in range(8):
            shift = index * bits - 8 * plane
            if -bits < shift < 8:
                byte |= _shift(blocks[index], shift)
        planes.append((byte & 0xFF).astype(jnp.uint8))
    return jnp.concatenate(planes) if planes else jnp.zeros(0, jnp.uint8)


def unpack(packed: jax.Array, bits: int, shape: tuple[int, ...]) -> jax.Array:
    """Unpacks bytes into levels; the inverse of `pack`.

    Args:
      packed: u8[packed_bytes(size, bits)].
      bits: 1 to 8, static.
      shape: of the levels.

    Returns:
      Levels, uint8, of ``shape``.

    Raises:
      InputError: the data is not uint8, or the length does not fit.
    """
    _check_bits(bits)
    if packed.dtype != jnp.uint8:
        raise InputError(f"Packed data has the dtype {packed.dtype}; expected uint8.")
    size = math.prod(shape)
    if packed.shape != (packed_bytes(size, bits),):
        raise InputError(
            f"Packed data has the shape {packed.shape}; {shape} at {bits} bits takes "
            f"({packed_bytes(size, bits)},). The data is truncated or of another tensor."
        )
    planes = packed.reshape(bits, -(-size // 8)).astype(jnp.uint16)
    blocks = []
    for index in range(8):
        level = jnp.zeros(planes.shape[1], jnp.uint16)
        for plane in range(bits):
            shift = 8 * plane - index * bits
            if -8 < shift < bits:
                level |= _shift(planes[plane], shift)
        blocks.append((level & ((1 << bits) - 1)).astype(jnp.uint8))
    return jnp.concatenate(blocks)[:size].reshape(shape)


def _shift(values: jax.Array, places: int) -> jax.Array:
    return values << places if places >= 0 else values >> -places


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise InputError(f"Cannot pack {bits} bits; expected 1 to 8.")
