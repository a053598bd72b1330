"""The grid of a tensor on the edge: which value each 8-bit code stands for.

A code is the unsigned level of `autosplit.quant.affine` less ``2^(b-1)``, so that every
bit-width fits int8: ``value = (code - zero) * scale`` with ``code`` in
``[-2^(b-1), 2^(b-1) - 1]``. What crosses the cut are the unsigned levels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import InputError
from autosplit.quant.affine import activation_grid, signed_levels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Codes and values of one tensor; static, so that the compiler sees constants.

    Attributes:
      scale: distance of two values, float32.
      zero: the code of the value 0.
      bits: 1 to 8.
    """

    scale: float
    zero: int
    bits: int

    @property
    def offset(self) -> int:
        """Unsigned level less signed code."""
        return 1 << (self.bits - 1)

    @property
    def levels(self) -> int:
        """The largest distance of two codes."""
        return (1 << self.bits) - 1


def make_grid(low: float, high: float, bits: int) -> Grid:
    """Returns the grid of a clip.

    Args:
      low, high: the clip; widened to hold zero.
      bits: 1 to 8.

    Raises:
      InputError: the clip is not finite.

    >>> make_grid(0.0, 255.0, 8)
    Grid(scale=1.0, zero=-128, bits=8)
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            f"A tensor has the clip [{low}, {high}]; expected finite numbers. Calibrate on inputs "
            "without infinities, or leave the tensor in float."
        )
    with jax.ensure_compile_time_eval():
        scale, zero_point, _ = activation_grid(np.float32(low), np.float32(high), bits)
        zero = signed_levels(zero_point, bits)
    return Grid(scale=float(scale), zero=int(zero), bits=bits)


def encode(grid: Grid, x: jax.Array) -> jax.Array:
    """Rounds values to codes, i8: ``clip(round(x / scale) + zero)``."""
    # By the inverse: a division takes several times longer. It differs from the quotient by a
    # rounding error, which matters where x is that near to the middle of two codes.
    inverse = np.float32(1 / np.float64(grid.scale))
    code = jnp.round(x.astype(jnp.float32) * inverse) + np.float32(grid.zero)
    # Clipped as integers: XLA:CPU takes a third longer to clip floats and convert these to int8.
    whole = jnp.clip(code.astype(jnp.int32), -grid.offset, grid.offset - 1)
    return whole.astype(jnp.int8)


def decode(grid: Grid, code: jax.Array, dtype: Any = np.float32) -> jax.Array:
    """Returns the values of codes."""
    return ((code.astype(jnp.float32) - np.float32(grid.zero)) * grid.scale).astype(dtype)


def to_levels(grid: Grid, code: jax.Array) -> jax.Array:
    """Returns the unsigned levels of codes, u8: what is packed and sent."""
    return (code.astype(jnp.int16) + grid.offset).astype(jnp.uint8)


def from_levels(grid: Grid, level: jax.Array) -> jax.Array:
    """Returns the codes of unsigned levels; the inverse of `to_levels`."""
    return (level.astype(jnp.int16) - grid.offset).astype(jnp.int8)
