"""Bit-widths per channel: wide channels get more levels, at the same mean bit-width.

Reference: Banner et al. 2019 (arXiv 1810.05723), per-channel bit allocation: ``B_i = C 2^M
sigma_i^(2/3) / sum sigma^(2/3)`` levels for channel i. Deviation: rounded to bits, the mean of
these falls short of M or exceeds it; here the threshold of rounding moves until the mean is M.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

MIN_BITS, MAX_BITS = 1, 8


def channel_levels(spread: jax.Array, bits: ArrayLike) -> jax.Array:
    """Returns ``B_i = C 2^M sigma_i^(2/3) / sum sigma^(2/3)``, before rounding to bits.

    Args:
      spread: f32[C], the standard deviation (or another scale) of each channel, at least 0.
      bits: f32[], the mean M.

    Returns:
      f32[C]; ``2^M`` each where all spreads are 0.

    >>> channel_levels(jnp.array([1.0, 8.0]), 4).round(1).tolist()
    [6.400000095367432, 25.600000381469727]
    """
    # Relative to the largest, so that none leaves float32; a dead channel is not quite 0.
    largest = jnp.maximum(spread.max(initial=0.0), jnp.finfo(jnp.float32).tiny)
    share = jnp.maximum(spread / largest, jnp.finfo(jnp.float32).tiny) ** (2 / 3)
    return spread.size * 2.0 ** jnp.asarray(bits, jnp.float32) * share / share.sum()


def channel_bits(spread: jax.Array, bits: ArrayLike) -> jax.Array:
    """Allots bits to channels, 1 to 8 each, with the mean ``bits``.

    ``round(log2(B_i) + t)`` with the largest t that keeps the sum within ``C * bits``. What
    a common t cannot split (equal channels) goes to the first ones.

    Args:
      spread: f32[C], at least 0.
      bits: f32[] or i32[], the mean, 1 to 8; the sum is ``floor(C * bits)``.

    Returns:
      i32[C].

    >>> channel_bits(jnp.array([1.0, 8.0, 64.0]), 4).tolist()
    [2, 4, 6]
    """
    share = jnp.log2(channel_levels(spread, bits))
    # A channel's step from k to k + 1 bits is taken where t >= k + 1/2 - log2(B). Its steps
    # rise, so the cheapest ones of all channels are always a prefix of each channel's.
    steps = jnp.arange(MIN_BITS, MAX_BITS) + 0.5 - share[:, None]
    budget = jnp.floor(share.size * (jnp.asarray(bits, jnp.float32) - MIN_BITS) + 1e-3)
    order = jnp.argsort(steps, axis=None, stable=True)
    taken = jnp.zeros(steps.size, jnp.int32).at[order].set(jnp.arange(steps.size) < budget)
    return MIN_BITS + taken.reshape(steps.shape).sum(axis=1)
