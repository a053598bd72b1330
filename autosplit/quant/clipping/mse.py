"""Clipping with the least mean squared error, found on a histogram."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from autosplit.quant.affine import activation_grid, weight_qmax, weight_scale
from autosplit.quant.clipping.histogram import Histogram

# Ratios of the range that are tried, geometric: heavy tails want small ones.
GRID = jnp.geomspace(0.02, 1.0, 48)


def mse_clip(values: Histogram, bits: jax.Array, symmetric: bool) -> jax.Array:
    """Finds the ratio of the range with the least expected squared error.

    ``argmin_r sum_i n_i E[(x - Q_r(x))^2 | x in bin i]`` with ``x`` uniform in its bin,
    which is exact in closed form for any ratio of step and bin width.

    Args:
      values: histogram of the tensor.
      bits: i32[], 1 to 24.
      symmetric: symmetric levels (weights) or asymmetric ones (activations).

    Returns:
      f32[], the part of the range that is kept.

    Reference: Choukroun et al. 2019 (arXiv 1902.06822), section 3, minimum mean
    squared error quantization. Deviation: a grid on a histogram in place of line search.
    """
    errors = jax.vmap(lambda ratio: expected_error(values, ratio, bits, symmetric))(GRID)
    return GRID[jnp.argmin(errors)]


def expected_error(
    values: Histogram, ratio: jax.Array, bits: jax.Array, symmetric: bool
) -> jax.Array:
    """Returns the sum of expected squared errors over all bins for one ratio."""
    if symmetric:
        clip = ratio * jnp.maximum(-values.low, values.high)
        scale, qmax = weight_scale(clip, bits), weight_qmax(bits)
        first, last = -qmax * scale, qmax * scale
    else:
        low, high = ratio * values.low, ratio * values.high
        scale, zero_point, levels = activation_grid(low, high, bits)
        first, last = -zero_point * scale, (levels - zero_point) * scale
    left = values.centers - values.width / 2
    right = values.centers + values.width / 2
    error = _rounding(left, right, scale, first, last)
    if symmetric:
        # One bit has no level at zero: the error is the distance to +-clip.
        one_bit = (jnp.abs(values.centers) - last) ** 2
        error = jnp.where(jnp.asarray(bits) == 1, one_bit, error)
    return jnp.sum(values.counts * error)


def _rounding(
    left: jax.Array, right: jax.Array, scale: jax.Array, first: jax.Array, last: jax.Array
) -> jax.Array:
    """Returns the mean squared error of rounding to ``scale`` within bins, clamped to levels.

    The integral of ``(t - round(t))^2`` from 0 is ``round(t)/12 + (t - round(t))^3/3``.
    """
    inside_left, inside_right = jnp.clip(left, first, last), jnp.clip(right, first, last)
    width = jnp.maximum(right - left, jnp.finfo(jnp.float32).tiny)

    def integral(x: jax.Array) -> jax.Array:
        t = x / scale
        whole = jnp.round(t)
        return scale**3 * (whole / 12 + (t - whole) ** 3 / 3)

    def beyond(distance_near: jax.Array, distance_far: jax.Array) -> jax.Array:
        return (distance_far**3 - distance_near**3) / 3

    rounding = integral(inside_right) - integral(inside_left)
    below = beyond(jnp.maximum(first - right, 0), jnp.maximum(first - left, 0))
    above = beyond(jnp.maximum(left - last, 0), jnp.maximum(right - last, 0))
    return (rounding + below + above) / width
