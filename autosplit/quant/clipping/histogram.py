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
        # Halves, here and below: the difference of the extremes may leave float32.
        places = jnp.arange(self.counts.shape[0]) + 0.5
        return 2 * (0.5 * self.low + 0.5 * self.width * places)

    @property
    def width(self) -> jax.Array:
        """f32[], width of a bin."""
        return (0.5 * self.high - 0.5 * self.low) * (2.0 / self.counts.shape[0])

    @property
    def reach(self) -> jax.Array:
        """f32[], the largest magnitude."""
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))

    @property
    def shares(self) -> jax.Array:
        """f32[BINS], parts of all counts; zeros for an empty tensor."""
        return self.counts / jnp.maximum(self.counts.sum(), jnp.finfo(jnp.float32).tiny)

    @property
    def unit(self) -> Histogram:
        """The histogram over its reach: there, powers and differences stay within float32."""
        reach = jnp.maximum(self.reach, jnp.finfo(jnp.float32).tiny)
        return dataclasses.replace(self, low=self.low / reach, high=self.high / reach)

    def scaled(self, ratio: jax.Array, symmetric: bool) -> tuple[jax.Array, jax.Array]:
        """Returns a part of the range, of that of the magnitudes where symmetric."""
        high = ratio * self.reach if symmetric else ratio * self.high
        return (-high if symmetric else ratio * self.low), high

    def kept(
        self, low: jax.Array, high: jax.Array, symmetric: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the part of a range that was seen and zero, both ways alike where symmetric."""
        low = jnp.clip(low, jnp.minimum(self.low, 0.0), 0.0)
        high = jnp.clip(high, 0.0, jnp.maximum(self.high, 0.0))
        reach = jnp.maximum(-low, high)
        return (-reach, reach) if symmetric else (low, high)

    def without_spike(self) -> Histogram:
        """Returns the histogram with as few values in the bin of zero as in one next to it.

        Zero is a level of every grid: the zeros of a ReLU cost nothing and say nothing about
        the spread of the others.
        """
        bins = jnp.arange(self.counts.shape[0])
        zero = jnp.floor(-self.low / jnp.maximum(self.width, jnp.finfo(jnp.float32).tiny))
        # The largest value lies in the last bin, at its upper end.
        zero = jnp.where(self.high >= 0, jnp.minimum(zero, bins[-1]), -1)
        near = jnp.maximum(
            jnp.roll(self.counts, 1).at[0].set(0.0), jnp.roll(self.counts, -1).at[-1].set(0.0)
        )
        counts = jnp.where(bins == zero, jnp.minimum(self.counts, near), self.counts)
        return dataclasses.replace(self, counts=counts)


def histogram(x: jax.Array, sample_weight: jax.Array | None = None) -> Histogram:
    """Counts the values of a tensor in `BINS` equal bins.

    Args:
      x: any shape. Values that are infinite or NaN are left out: they have no place in
        equal bins, and quantization clamps infinities to the clip of the others.
      sample_weight: weight of each value, broadcastable to ``x``; 1 by default.

    Returns:
      The histogram of all finite elements; that of an empty tensor where there are none.

    >>> found = histogram(jnp.array([-1.0, 0.5, 3.0, jnp.inf]))
    >>> float(found.low), float(found.high), float(found.counts.sum())
    (-1.0, 3.0, 3.0)
    """
    if x.size == 0:
        zero = jnp.float32(0)
        return _whole(jnp.zeros(BINS), zero, zero)
    x = x.astype(jnp.float32)
    finite = jnp.isfinite(x)
    some = finite.any()
    low = jnp.where(some, jnp.min(x, where=finite, initial=jnp.inf), 0.0)
    high = jnp.where(some, jnp.max(x, where=finite, initial=-jnp.inf), 0.0)
    # So small a part that the reciprocal of the widest span does not leave float32 either.
    part = 1 / 32
    span = jnp.maximum(part * high - part * low, jnp.finfo(jnp.float32).tiny)
    place = (part * x - part * low) / span * BINS
    index = jnp.clip(jnp.where(finite, place, 0.0).astype(jnp.int32), 0, BINS - 1)
    weight = jnp.where(finite, 1.0 if sample_weight is None else sample_weight, 0.0)
    counts = jnp.zeros(BINS).at[index].add(weight)
    return _whole(counts, low, high)


def _whole(counts: jax.Array, low: jax.Array, high: jax.Array) -> Histogram:
    return Histogram(counts=counts, low=low, high=high, average_low=low, average_high=high)
