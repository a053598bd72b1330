"""Min-max clipping: the whole range."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from autosplit.quant.clipping.histogram import Histogram


def minmax_clip(
    values: Histogram, bits: jax.Array, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns the whole range.

    Args:
      values: histogram of the tensor.
      bits: i32[], unused: the range does not depend on it.
      symmetric: the range is that of the magnitudes.

    Returns:
      Low and high, f32[].
    """
    del bits
    return values.scaled(jnp.float32(1), symmetric)
