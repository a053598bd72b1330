"""Statistics of tensors over any number of calls, in memory that does not grow with them.

Values are counted in bins of a width 2^e that begin at whole multiples of it. Where the range
outgrows the bins, e grows and bins merge in pairs, so that no count is ever divided: what was
counted in parts equals, bin by bin, what is counted at once, in whatever order the parts come.
Only the last step, to the bins between the extremes that clipping methods read, interpolates.
A part is counted by one compiled program; parts are added on the host, in 64-bit integers,
because float32 stops counting at 2^24 values in a bin.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.profiling.call_chunks import split_by_calls
from autosplit.quant.clipping import Histogram
from autosplit.quant.clipping.histogram import BINS

# At least half of these lie between the extremes: two for each bin of `Histogram`.
GRID_BINS = 4 * BINS

# How much of the moving average of the extremes each further call keeps.
DECAY = 0.9

# 2^-e must be a normal float32.
_EXPONENTS = (-126, 126)

# A float32 has no more digits than these: finer bins would stay empty.
_DIGITS = 23


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorStatistics:
    """What was seen of F tensors in some calls.

    Attributes:
      counts: i64[F, GRID_BINS], values in ``[n * width, (n + 1) * width)`` for n from ``start``.
      start: i64[F], number of the first bin.
      exponent: i64[F]; the width of a bin is ``2^exponent``.
      low, high: f32[F], smallest and largest value; 0 for an empty tensor.
      average_low, average_high: f64[F], moving averages of the extremes of the calls,
        ``sum_i DECAY^(calls - 1 - i) x_i`` over the sum of the weights.
      calls: how many were seen.
    """

    counts: np.ndarray
    start: np.ndarray
    exponent: np.ndarray
    low: np.ndarray
    high: np.ndarray
    average_low: np.ndarray
    average_high: np.ndarray
    calls: int


def merge(first: TensorStatistics, second: TensorStatistics) -> TensorStatistics:
    """Adds the statistics of some calls and of the calls after them.

    Counts and extremes are exact and do not depend on the order; moving averages do.
    """
    exponent = np.maximum(first.exponent, second.exponent)
    while True:
        ends = np.array([_occupied(part, exponent) for part in (first, second)])
        start, last = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
        too_long = last - start >= GRID_BINS
        if not too_long.any():
            break
        exponent = exponent + too_long
    kept = DECAY**second.calls
    share = kept * (1 - DECAY**first.calls) / (1 - DECAY ** (first.calls + second.calls))
    return TensorStatistics(
        counts=_recounted(first, exponent, start) + _recounted(second, exponent, start),
        start=start,
        exponent=exponent,
        low=np.minimum(first.low, second.low),
        high=np.maximum(first.high, second.high),
        average_low=share * first.average_low + (1 - share) * second.average_low,
        average_high=share * first.average_high + (1 - share) * second.average_high,
        calls=first.calls + second.calls,
    )


def _occupied(part: TensorStatistics, exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of the first and last bin with counts, in a grid of wider bins."""
    last = part.start + GRID_BINS - 1 - np.argmax(part.counts[:, ::-1] > 0, axis=1)
    by = exponent - part.exponent
    return _halved(part.start, by), _halved(last, by)


def _recounted(part: TensorStatistics, exponent: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns the counts in a grid of wider bins that begins elsewhere, i64[F, GRID_BINS]."""
    rows = len(part.counts)
    number = _halved(
        part.start[:, None] + np.arange(GRID_BINS), (exponent - part.exponent)[:, None]
    )
    # Bins beyond the grid are empty.
    place = np.clip(number - start[:, None], 0, GRID_BINS - 1)
    flat = (place + GRID_BINS * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(flat, weights=part.counts.ravel(), minlength=rows * GRID_BINS)
    return counts.astype(np.int64).reshape(rows, GRID_BINS)


def _halved(number: np.ndarray, times: np.ndarray) -> np.ndarray:
    # Bin n of one width lies in bin floor(n / 2) of twice the width. 63 shifts leave the sign.
    return number >> np.minimum(times, 63)


def histograms(statistics: TensorStatistics) -> Histogram:
    """Returns the histograms that clipping methods read, one for each row of the leaves.

    The cumulative count is interpolated between the edges of the grid: each edge of a bin
    misplaces values of one bin of the grid at most, half its own width. Counts add up to all.
    """
    rows = range(len(statistics.counts))
    counts = [_between_extremes(statistics, row) for row in rows]
    return Histogram(
        counts=jnp.asarray(np.reshape(counts, (len(rows), BINS)), jnp.float32),
        low=jnp.asarray(statistics.low),
        high=jnp.asarray(statistics.high),
        average_low=jnp.asarray(statistics.average_low, jnp.float32),
        average_high=jnp.asarray(statistics.average_high, jnp.float32),
    )


def _between_extremes(statistics: TensorStatistics, row: int) -> np.ndarray:
    counts, start = statistics.counts[row], int(statistics.start[row])
    low, high = statistics.low[row], statistics.high[row]
    if low == high:
        return np.concatenate([[counts.sum()], np.zeros(BINS - 1)])
    spike = _spike_at_zero(counts, -start)
    edges = np.ldexp(1.0, int(statistics.exponent[row])) * (start + np.arange(GRID_BINS + 1))
    below = np.concatenate([[0.0], np.cumsum(counts)])
    below[np.arange(GRID_BINS + 1) > -start] -= spike
    wanted = np.linspace(float(low), float(high), BINS + 1)
    at = np.interp(wanted, np.clip(edges, wanted[0], wanted[-1]), below)
    # Values on the largest one may have an edge of their own there.
    at[0], at[-1] = 0, below[-1]
    found = np.diff(at)
    if spike:
        # In the bin of zero, as `Histogram.without_spike` looks for it, in float32.
        width = (high / 2 - low / 2) * np.float32(2 / BINS)
        found[min(int(-low / width), BINS - 1)] += spike
    return found


def _spike_at_zero(counts: np.ndarray, zero: int) -> int:
    """Returns by how much the bin that begins at zero exceeds those beside it.

    These are zeros (of a ReLU, say), which have to stay in one bin: nothing to interpolate.
    """
    if not 0 <= zero < GRID_BINS:
        return 0
    beside = counts[max(zero - 1, 0) : zero + 2].sum() - counts[zero]
    return max(int(counts[zero] - beside), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkCounts:
    """What is counted of one tensor in a chunk of m calls, on D devices.

    Attributes:
      counts: i32[D, GRID_BINS].
      start, exponent: i32[D].
      low, high: f32[m], extremes of each call.
    """

    counts: jax.Array
    start: jax.Array
    exponent: jax.Array
    low: jax.Array
    high: jax.Array


def count_chunk(
    tensors: Sequence[jax.Array], valid: jax.Array, mesh: jax.sharding.Mesh | None = None
) -> list[ChunkCounts]:
    """Counts the values of tensors.

    Args:
      tensors: F float tensors, each ``[m, *shape]``.
      valid: i32[m], 1 for a call that counts; 0 for a copy of another in the chunk.
      mesh: devices that share the calls.

    Returns:
      Counts and extremes by tensor; the extremes of copies are for the caller to leave out.
    """
    # One program for each shape: in one for all tensors, the bins of all values would be in
    # memory at once (twice the memory, 3 times slower, twice as long to compile).
    return [_count_tensor(x, valid, mesh) for x in tensors]


@functools.partial(jax.jit, static_argnames="mesh")
def _count_tensor(
    x: jax.Array, valid: jax.Array, mesh: jax.sharding.Mesh | None
) -> ChunkCounts:
    return split_by_calls(lambda _, split: _count(*split), mesh)(None, (x, valid))


def _count(x: jax.Array, valid: jax.Array) -> ChunkCounts:
    calls = x.shape[0]
    if x.size == 0:
        zeros, ends = jnp.zeros(1, jnp.int32), jnp.zeros(calls)
        counts = jnp.zeros((1, GRID_BINS), jnp.int32)
        exponent = zeros + _EXPONENTS[0]
        return ChunkCounts(counts=counts, start=zeros, exponent=exponent, low=ends, high=ends)
    x = x.astype(jnp.float32).reshape(calls, -1)
    low, high = x.min(axis=1), x.max(axis=1)
    exponent = _grid_exponent(low.min(), high.max())
    per_unit = jnp.ldexp(jnp.float32(1), -exponent)
    start = jnp.floor(low.min() * per_unit).astype(jnp.int32)
    number = jnp.floor(x * per_unit).astype(jnp.int32) - start
    place = jnp.clip(number, 0, GRID_BINS - 1)
    weight = jnp.broadcast_to(valid[:, None], x.shape)
    counts = jnp.zeros(GRID_BINS, jnp.int32).at[place].add(weight)
    return ChunkCounts(
        counts=counts[None], start=start[None], exponent=exponent[None], low=low, high=high
    )


def _grid_exponent(low: jax.Array, high: jax.Array) -> jax.Array:
    """Returns the least exponent for which `GRID_BINS` bins hold the range, i32[]."""
    ends = jnp.stack([jnp.maximum(-low, high), high / 2 - low / 2])  # the whole may overflow
    # The exponent of zero is that of the smallest number, not 0.
    of_reach, of_half = jnp.where(ends > 0, jnp.frexp(ends)[1], 2 * _EXPONENTS[0])
    fewest = of_half - (GRID_BINS.bit_length() - 1)
    exponent = jnp.clip(jnp.maximum(fewest, of_reach - _DIGITS), *_EXPONENTS)
    # The halves of a range that is no power of two begin within a bin: up to two steps more.
    for _ in range(2):
        per_unit = jnp.ldexp(jnp.float32(1), -exponent)
        exponent += jnp.floor(high * per_unit) - jnp.floor(low * per_unit) >= GRID_BINS
    return exponent


def chunk_statistics(chunk: Sequence[ChunkCounts], valid: int) -> TensorStatistics:
    """Returns the statistics of the first ``valid`` calls of a chunk; the others are copies."""
    found = jax.tree.map(lambda *rows: np.stack(rows, axis=1), *jax.device_get(list(chunk)))
    each = len(found.low) // len(found.counts)
    parts = [
        _part(found, device, slice(begin, min(begin + each, valid)))
        for device, begin in enumerate(range(0, valid, each))
    ]
    return functools.reduce(merge, parts)


def _part(found: Any, device: int, calls: slice) -> TensorStatistics:
    low, high = found.low[calls], found.high[calls]
    weight = DECAY ** np.arange(len(low))[::-1]
    weight /= weight.sum()
    return TensorStatistics(
        counts=found.counts[device].astype(np.int64),
        start=found.start[device].astype(np.int64),
        exponent=found.exponent[device].astype(np.int64),
        low=low.min(axis=0),
        high=high.max(axis=0),
        average_low=weight @ low.astype(np.float64),
        average_high=weight @ high.astype(np.float64),
        calls=len(low),
    )
