"""The levels that a weight may take, and which of its elements may be rounded either way."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.profiling.assignment import Assignment
from autosplit.quant.affine import (
    activation_grid,
    fake_quant,
    fake_quant_weight,
    weight_qmax,
    weight_scale,
)
from autosplit.quant.rounding import rounding_start, soft_round
from autosplit.workload import FLOAT_BITS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightGrid:
    """Levels ``scale k`` with ``lowest <= k <= highest``; all arrays broadcast to the weight.

    Attributes:
      scale: f32, over 0.
      lowest, highest: f32, whole numbers.
      is_free: bool, may be rounded up or down. Not so in float, at one symmetric bit (a sign
        has no neighbours) and in channels of zeros.
      nearest: the weight as fake quantization leaves it.
      floor: f32, ``floor(weight / scale)``, at most one level beyond the ends.
    """

    scale: jax.Array
    lowest: jax.Array
    highest: jax.Array
    is_free: jax.Array
    nearest: jax.Array
    floor: jax.Array


def weight_grid(weight: jax.Array, assignment: Assignment, layer: int) -> WeightGrid | None:
    """Returns the grid of a weight under an assignment; None where no element is free."""
    bits, high = jnp.asarray(assignment.w_bits[layer]), assignment.w_high[layer]
    low = None if assignment.w_low is None else assignment.w_low[layer]
    if high is None or weight.size == 0:
        return None
    if low is None:
        scale, highest = weight_scale(high, bits), weight_qmax(bits)
        lowest, nearest = -highest, fake_quant_weight(weight, high, bits)
        is_free = (high > 0) & (bits > 1)
    else:
        scale, zero_point, levels = activation_grid(low, high, bits)
        lowest, highest = -zero_point, levels - zero_point
        nearest = fake_quant(weight, low, high, bits)
        is_free = jnp.minimum(low, 0) < jnp.maximum(high, 0)
    is_free &= bits < FLOAT_BITS
    if not np.any(is_free):
        return None
    level = jnp.clip(weight.astype(jnp.float32) / scale, lowest - 1, highest + 1)
    return WeightGrid(
        scale=scale, lowest=lowest, highest=highest, is_free=is_free, nearest=nearest,
        floor=jnp.floor(level),
    )  # fmt: skip


def start_of(weight: jax.Array, grid: WeightGrid) -> jax.Array:
    """Returns the V whose soft weight is the weight itself, f32 of its shape."""
    level = jnp.clip(weight.astype(jnp.float32) / grid.scale, grid.lowest - 1, grid.highest + 1)
    return rounding_start(level, 1.0)


def soft_levels(v: jax.Array, grid: WeightGrid) -> jax.Array:
    """Returns ``scale clip(floor + h(V), lowest, highest)``, f32; elsewhere the nearest level.

    Differentiable in V (f32 of the weight's shape, from `start_of` or trained).
    """
    return _on_grid(soft_round(v), grid)


def hard_levels(v: jax.Array, grid: WeightGrid) -> jax.Array:
    """Returns the same with every ``h(V)`` at 0 or 1: fake quantization leaves it as it is."""
    return _on_grid(jnp.where(v >= 0, 1.0, 0.0), grid)


def _on_grid(up: jax.Array, grid: WeightGrid) -> jax.Array:
    level = jnp.clip(grid.floor + up, grid.lowest, grid.highest)
    return jnp.where(grid.is_free, level * grid.scale, grid.nearest.astype(jnp.float32))
