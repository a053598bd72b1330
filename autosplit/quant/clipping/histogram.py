"""A histogram of a tensor: what every clipping method looks at."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

BINS = 1024


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts in equal bins between the extremes of a tensor.

    Attributes:
      counts: f32[BINS], weighted counts.
      low, high: f32[], smallest and largest value; both are 0 for an empty tensor.
      average_low, average_high: f32[], moving averages of the extremes of the calls; for
        a tensor that was seen as a whole the extremes themselves.
    """

    counts: jax.Array
    low: jax.Array
    high: jax.Array
    average_low: jax.Array
    average_high: jax.Array

    @property
    def centers(self) -> jax.Array:
        """f32[BINS], middle of each bin."""
        return self.low + self.width * (jnp.arange(self.counts.shape[0]) + 0.5)

    @property
    def width(self) -> jax.Array:
        """f32[], width of a bin."""
        return (self.high - self.low) / self.counts.shape[0]

    @property
    def reach(self) -> jax.Array:
        """f32[], the largest magnitude."""
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))

    def scaled(self, ratio: jax.Array, symmetric: bool) -> tuple[jax.Array, jax.Array]:
        """Returns a part of the range, of that of the magnitudes where symmetric."""
        high = ratio * self.reach if symmetric else ratio * self.high
        return (-high if symmetric else ratio * self.low), high


def histogram(x: jax.Array, sample_weight: jax.Array | None = None) -> Histogram:
    """Counts the values of a tensor in `BINS` equal bins.

    Args:
      x: any shape, finite.
      sample_weight: weight of each value, broadcastable to ``x``; 1 by default.

    Returns:
      The histogram of all elements.
    """
    if x.size == 0:
        zero = jnp.float32(0)
        return _whole(jnp.zeros(BINS), zero, zero)
    x = x.astype(jnp.float32)
    low, high = x.min(), x.max()
    per_unit = BINS / jnp.maximum(high - low, jnp.finfo(jnp.float32).tiny)
    index = jnp.clip(((x - low) * per_unit).astype(jnp.int32), 0, BINS - 1)
    weight = jnp.ones((), jnp.float32) if sample_weight is None else sample_weight
    counts = jnp.zeros(BINS).at[index].add(jnp.broadcast_to(weight, x.shape))
    return _whole(counts, low, high)


def _whole(counts: jax.Array, low: jax.Array, high: jax.Array) -> Histogram:
    return Histogram(counts=counts, low=low, high=high, average_low=low, average_high=high)
