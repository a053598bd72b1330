"""Clipping with the least mean power of the error (p = 2: squared), found on a histogram."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from autosplit.quant.affine import activation_grid, weight_qmax, weight_scale
from autosplit.quant.clipping.histogram import Histogram

# Ratios of the range that are tried, geometric: heavy tails want small ones.
GRID = jnp.geomspace(0.02, 1.0, 48)

# Factors that are tried around the best of these, up to its neighbours.
FINE = jnp.geomspace(GRID[0] / GRID[1], GRID[1] / GRID[0], 17)

# Bins narrower than this part of a step are taken as points.
_NARROW = 1e-2


def mse_clip(
    values: Histogram, bits: jax.Array, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Finds the part of the range with the least expected squared error.

    Args:
      values: histogram of the tensor.
      bits: i32[], 1 to 24.
      symmetric: symmetric levels (weights) or asymmetric ones (activations).

    Returns:
      Low and high, f32[].

    Reference: Choukroun et al. 2019 (arXiv 1902.06822), section 3, minimum mean
    squared error quantization. Deviation: a grid on a histogram in place of line search.
    """
    # A whole number that is known when compiling: powers become products.
    return lp_clip(values, bits, symmetric, 2)


def lp_clip(
    values: Histogram, bits: jax.Array, symmetric: bool, p: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Finds the part of the range with the least expected p-th power of the error.

    ``argmin_clip sum_i n_i E[|x - Q(x)|^p | x in bin i]`` with ``x`` uniform in its bin,
    which is exact in closed form for any ratio of step and bin width. Symmetric: one ratio.
    Asymmetric: one ratio for both ends, then each end by itself, then both finely.

    Args:
      values: histogram of the tensor.
      bits: i32[], 1 to 24.
      symmetric: symmetric levels (weights) or asymmetric ones (activations).
      p: f32[], 1 to 4, an array without recompilation (the first step of LAPQ takes 2 to 4);
        a Python int runs some 10 times faster.

    Returns:
      Low and high, f32[].

    Reference: Nahshan et al. 2019 (arXiv 1911.07190), layer-wise Lp norm. Deviation as for
    `mse_clip`.
    """
    unit = values.unit

    def best_of(lows: jax.Array, highs: jax.Array) -> tuple[jax.Array, jax.Array]:
        def error(low: jax.Array, high: jax.Array) -> jax.Array:
            ends = (low * unit.low, high * unit.high)
            clip = unit.scaled(high, symmetric) if symmetric else ends
            return expected_error(unit, *clip, bits, symmetric, p)

        lows, highs = jnp.broadcast_arrays(lows, highs)
        best = jnp.argmin(jax.vmap(error)(lows, highs))
        return lows[best], highs[best]

    def near(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.minimum(low * FINE, 1.0), jnp.minimum(high * FINE, 1.0)

    low, high = both = best_of(GRID, GRID)
    if symmetric:
        return values.scaled(best_of(*near(low, high))[1], symmetric)
    low, high = best_of(GRID, high)
    low, high = best_of(low, GRID)
    # The error jumps with the rounded zero point: the common ratio may still be the better start.
    lows, highs = (jnp.concatenate(pair) for pair in zip(near(low, high), near(*both), strict=True))
    low, high = best_of(lows, highs)
    return low * values.low, high * values.high


def expected_error(
    values: Histogram,
    low: jax.Array,
    high: jax.Array,
    bits: jax.Array,
    symmetric: bool,
    p: ArrayLike = 2,
) -> jax.Array:
    """Returns the sum of expected p-th powers of the error over all bins for one clip."""
    if symmetric:
        scale, qmax = weight_scale(high, bits), weight_qmax(bits)
        first, last = -qmax * scale, qmax * scale
    else:
        scale, zero_point, levels = activation_grid(low, high, bits)
        first, last = -zero_point * scale, (levels - zero_point) * scale
    error = _rounding(values.centers, values.width, scale, first, last, p)
    if symmetric:
        # One bit has no level at zero: the error is the distance to +-clip.
        one_bit = _power(jnp.abs(jnp.abs(values.centers) - last), p)
        error = jnp.where(jnp.asarray(bits) == 1, one_bit, error)
    return jnp.sum(values.counts * error)


def _rounding(
    center: jax.Array,
    width: jax.Array,
    scale: jax.Array,
    first: jax.Array,
    last: jax.Array,
    p: ArrayLike,
) -> jax.Array:
    """Returns the mean error^p of rounding to ``scale`` within bins, clamped to levels.

    With ``f(t) = t - round(t)`` the integral of ``|f|^p`` from a to b is ``(
    (round(b) - round(a)) / 2^p + sign(f(b)) |f(b)|^(p+1) - sign(f(a)) |f(a)|^(p+1)) / (p + 1)``.
    In a bin that is narrow against the step (a constant tensor: no width at all) the
    integral cancels out, and the error at its centre is right.
    """
    level = jnp.clip(jnp.round(center / scale) * scale, first, last)
    at_center = _power(jnp.abs(center - level), p)
    left, right = center - width / 2, center + width / 2
    a, b = jnp.clip(left, first, last) / scale, jnp.clip(right, first, last) / scale
    whole_a, whole_b = jnp.round(a), jnp.round(b)
    ends = _signed_power(b - whole_b, p) - _signed_power(a - whole_a, p)
    rounding = (whole_b - whole_a) * 0.5**p + ends
    below = _beyond(first - right, first - left, p)
    above = _beyond(left - last, right - last, p)
    narrow = width < _NARROW * scale
    whole = _power(scale, p + 1) * rounding + below + above
    return jnp.where(narrow, at_center, whole / ((p + 1) * jnp.where(narrow, 1.0, width)))


def _beyond(near: jax.Array, far: jax.Array, p: ArrayLike) -> jax.Array:
    """Returns ``p + 1`` times the integral of ``t^p`` over the positive part of near .. far."""
    return _power(jnp.maximum(far, 0.0), p + 1) - _power(jnp.maximum(near, 0.0), p + 1)


def _signed_power(part: jax.Array, p: ArrayLike) -> jax.Array:
    return jnp.sign(part) * _power(jnp.abs(part), p + 1)


def _power(x: jax.Array, p: ArrayLike) -> jax.Array:
    """Returns ``x^p`` for x of at least 0 and p over 0: as products where p is a Python int."""
    return x**p if isinstance(p, int) else jnp.exp(p * jnp.log(x))
