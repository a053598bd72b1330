"""ACIQ: the clip that is best for a Laplace distribution, in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from autosplit.quant.clipping.histogram import Histogram

# alpha / b for 0 to 9 bits. A half-range tensor (after a ReLU) uses the next entry.
_LAPLACE = jnp.array([
    1.05, 1.86, 2.83068299, 3.89722946, 5.02864014, 6.20476633, 7.41312622, 8.64561995,
    9.89675982, 11.16268502,
])  # fmt: skip


def aciq_clip(
    values: Histogram, bits: jax.Array, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns the part of the range that is best for a Laplace density of the same spread.

    ``clip = alpha(b) * mean|x - mu|``; that over the largest magnitude scales the range.

    Args:
      values: histogram of the tensor.
      bits: i32[], 1 to 8.
      symmetric: weights; otherwise a tensor without negative values counts as half
        a distribution and uses the table's entry of one bit more.

    Returns:
      Low and high, f32[].

    Reference: Banner et al. 2019 (arXiv 1810.05723), equation 6 and table 1.
    """
    total = jnp.maximum(values.counts.sum(), jnp.finfo(jnp.float32).tiny)
    half = jnp.logical_and(values.low >= 0, not symmetric)
    mean = jnp.where(half, 0.0, jnp.sum(values.counts * values.centers) / total)
    spread = jnp.sum(values.counts * jnp.abs(values.centers - mean)) / total
    alpha = _LAPLACE[jnp.clip(jnp.asarray(bits) + half, 0, len(_LAPLACE) - 1)]
    ratio = (jnp.abs(mean) + alpha * spread) / jnp.maximum(values.reach, 1e-30)
    return values.scaled(jnp.clip(ratio, 1e-3, 1.0), symmetric)
