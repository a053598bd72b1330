"""Clipping with the least mean squared error, found on a histogram."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

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

    ``argmin_r sum_i n_i E[(x - Q_r(x))^2 | x in bin i]`` with ``x`` uniform in its bin,
    which is exact in closed form for any ratio of step and bin width.

    Args:
      values: histogram of the tensor.
      bits: i32[], 1 to 24.
      symmetric: symmetric levels (weights) or asymmetric ones (activations).

    Returns:
      Low and high, f32[].

    Reference: Choukroun et al. 2019 (arXiv 1902.06822), section 3, minimum mean
    squared error quantization. Deviation: a grid on a histogram in place of line search.
    """
    # Relative to the largest magnitude: cubes of tiny or huge steps leave float32.
    reach = jnp.maximum(values.reach, jnp.finfo(jnp.float32).tiny)
    unit = dataclasses.replace(values, low=values.low / reach, high=values.high / reach)

    def best_of(ratios: jax.Array) -> jax.Array:
        errors = jax.vmap(lambda ratio: expected_error(unit, ratio, bits, symmetric))(ratios)
        return ratios[jnp.argmin(errors)]

    return values.scaled(best_of(jnp.minimum(best_of(GRID) * FINE, 1.0)), symmetric)


def expected_error(
    values: Histogram, ratio: jax.Array, bits: jax.Array, symmetric: bool
) -> jax.Array:
    """Returns the sum of expected squared errors over all bins for one ratio."""
    if symmetric:
        clip = ratio * values.reach
        scale, qmax = weight_scale(clip, bits), weight_qmax(bits)
        first, last = -qmax * scale, qmax * scale
    else:
        low, high = ratio * values.low, ratio * values.high
        scale, zero_point, levels = activation_grid(low, high, bits)
        first, last = -zero_point * scale, (levels - zero_point) * scale
    error = _rounding(values.centers, values.width, scale, first, last)
    if symmetric:
        # One bit has no level at zero: the error is the distance to +-clip.
        one_bit = (jnp.abs(values.centers) - last) ** 2
        error = jnp.where(jnp.asarray(bits) == 1, one_bit, error)
    return jnp.sum(values.counts * error)


def _rounding(
    center: jax.Array, width: jax.Array, scale: jax.Array, first: jax.Array, last: jax.Array
) -> jax.Array:
    """Returns the mean squared error of rounding to ``scale`` within bins, clamped to levels.

    The integral of ``(t - round(t))^2`` from a to b is ``(round(b) - round(a)) / 12
    + ((b - round(b))^3 - (a - round(a))^3) / 3``. In a bin that is narrow against the
    step (a constant tensor: no width at all) the integral cancels out, and the error
    at its centre is right.
    """
    level = jnp.clip(jnp.round(center / scale) * scale, first, last)
    at_center = (center - level) ** 2 + width**2 / 12
    left, right = center - width / 2, center + width / 2
    a, b = jnp.clip(left, first, last) / scale, jnp.clip(right, first, last) / scale
    whole_a, whole_b = jnp.round(a), jnp.round(b)
    rounding = (whole_b - whole_a) / 12 + ((b - whole_b) ** 3 - (a - whole_a) ** 3) / 3
    below = _beyond(jnp.maximum(first - right, 0), jnp.maximum(first - left, 0))
    above = _beyond(jnp.maximum(left - last, 0), jnp.maximum(right - last, 0))
    narrow = width < _NARROW * scale
    whole = (scale**3 * rounding + below + above) / jnp.where(narrow, 1.0, width)
    return jnp.where(narrow, at_center, whole)


def _beyond(near: jax.Array, far: jax.Array) -> jax.Array:
    """Returns the integral of squared distances from ``near`` to ``far``."""
    return (far - near) * (far**2 + far * near + near**2) / 3
