"""KL clipping: the range whose quantized histogram tells most about the original one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from autosplit.quant.clipping.histogram import Histogram

# Ratios of the range that are tried. The first wins ties: nothing is clipped for nothing.
RATIOS = jnp.geomspace(1.0, 0.02, 96)

# With more levels a histogram has no bins left to merge.
MAX_BITS = 8


def kl_clip(
    values: Histogram, bits: jax.Array, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Finds the part of the range with the least ``KL(P || Q) = sum P log(P / Q)``.

    P is the histogram within the clip, with what lies outside added to its outermost bins. Q
    merges the bins within the clip into ``2^bits - 1`` cells of equal width and spreads the
    count of each evenly over those of its bins that are not empty. Clips with fewer bins than
    cells, or with values beyond an outermost bin that is empty, are left out.

    Args:
      values: histogram of the tensor.
      bits: i32[], 1 to 24; over `MAX_BITS` the whole range is kept.
      symmetric: the clip is a part of the range of the magnitudes.

    Returns:
      Low and high, f32[].

    Reference: Migacz 2017, "8-bit inference with TensorRT"; LPOT 1.1 (2048 bins, 255 cells).
    Deviations: 1024 bins; two-sided tensors are not folded; 96 ratios from 0.02 instead of
    every bin from 0.7, since few bits want small clips; the zeros of a ReLU do not count
    (`Histogram.without_spike`), or the smallest clip, which sets them apart, would win.
    """
    unit = values.unit.without_spike()
    shares = unit.shares
    # Sums over bins are differences of running sums: of counts, filled bins and p log p.
    running = jnp.stack([shares, shares > 0, shares * _log(shares)], axis=-1).cumsum(0)
    running = jnp.concatenate([jnp.zeros((1, 3)), running])
    cells = (1 << jnp.clip(jnp.asarray(bits), 1, MAX_BITS)) - 1
    parts = jnp.minimum(jnp.arange(1 << MAX_BITS) / cells, 1.0)

    def divergence(ratio: jax.Array) -> jax.Array:
        edges = _edges(unit, parts, *unit.scaled(ratio, symmetric))
        return _divergence(shares, running, edges, cells)

    ratio = RATIOS[jnp.argmin(jax.vmap(divergence)(RATIOS))]
    return values.scaled(jnp.where(jnp.asarray(bits) > MAX_BITS, 1.0, ratio), symmetric)


def _edges(unit: Histogram, parts: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Returns the edges of all cells in whole bins; equal ones beyond the last cell."""
    ends = low + (high - low) * parts
    bins = unit.counts.shape[0]
    places = (ends - unit.low) / jnp.maximum(unit.width, jnp.finfo(jnp.float32).tiny)
    return jnp.clip(jnp.round(places), 0, bins).astype(jnp.int32)


def _divergence(
    shares: jax.Array, running: jax.Array, edges: jax.Array, cells: jax.Array
) -> jax.Array:
    """Returns KL(P || Q) of a clip, infinite where it is left out."""
    first, last = edges[0], edges[-1]
    start, end = running[first], running[last]
    below, above = start[0], running[-1, 0] - end[0]
    first_share, last_share = shares[first], shares[last - 1]
    # sum P log P: the outermost bins hold more than their own.
    own = first_share * _log(first_share) + last_share * _log(last_share)
    lowest, highest = first_share + below, last_share + above
    p_log_p = end[2] - start[2] - own + lowest * _log(lowest) + highest * _log(highest)
    # sum P log Q: within a cell Q is its mean over filled bins.
    inside = jnp.diff(running[edges, :2], axis=0)
    level = _log(inside[:, 0]) - _log(inside[:, 1])
    p_log_q = jnp.sum(inside[:, 0] * level) + below * level[0] + above * level[cells - 1]
    total = _log(end[0] - start[0])
    empty_end = ((below > 0) & (first_share == 0)) | ((above > 0) & (last_share == 0))
    few = last - first < jnp.maximum(cells, 2)
    return jnp.where(empty_end | few, jnp.inf, p_log_p - p_log_q + total)


def _log(share: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(share, jnp.finfo(jnp.float32).tiny))
