"""Percentile clipping: a few values at either end are left outside."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from autosplit.quant.clipping.histogram import Histogram

PERCENT = 99.99


def percentile_clip(
    values: Histogram, bits: jax.Array, symmetric: bool, percent: ArrayLike = PERCENT
) -> tuple[jax.Array, jax.Array]:
    """Returns the quantiles ``1 - percent / 100`` and ``percent / 100``.

    Values are taken as spread evenly over their bin. For another percentage as a rule of
    its own: ``functools.partial(percentile_clip, percent=99.9)``.

    Args:
      values: histogram of the tensor.
      bits: i32[], unused: the range does not depend on it.
      symmetric: the range is that of the magnitudes of both quantiles.
      percent: f32[], 50 to 100; of each side.

    Returns:
      Low and high, f32[].

    Reference: Wu et al. 2020 (arXiv 2004.09602), calibration by percentile of the magnitudes.
    Deviation: of each side, since the range may be asymmetric.
    """
    del bits
    bins = values.counts.shape[0]
    # From either end, so that the small part is no difference of two large ones.
    outside = 1.0 - jnp.asarray(percent, jnp.float32) / 100.0
    places = jnp.arange(bins + 1) * values.width
    below = jnp.interp(outside, _running(values.shares), places)
    above = jnp.interp(outside, _running(values.shares[::-1]), places)
    return values.kept(values.low + below, values.high - above, symmetric)


def _running(shares: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros(1), jnp.cumsum(shares)])
