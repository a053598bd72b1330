"""AdaRound: learns for each weight whether it is rounded up or down.

``W = s clip(floor(W / s) + h(V), lowest, highest)`` with
``h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)``: the stretched sigmoid reaches 0 and 1, so
the optimizer can decide. `rounding_loss` pushes every ``h`` to one of the two.
`autosplit.ptq.weight_grid` has the levels.

Reference: Nagel et al. 2020 (arXiv 2004.10568), equations 21 to 24.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# The stretched sigmoid runs from GAMMA to ZETA.
GAMMA, ZETA = -0.1, 1.1

# Part of the steps before the rounding loss counts: the weights first find a good place.
WARM_UP = 0.2

# Exponent of the rounding loss: flat everywhere but near 0 and 1 first, then a parabola.
FIRST_BETA, LAST_BETA = 20.0, 2.0


def rounding_start(weight: jax.Array, scale: ArrayLike) -> jax.Array:
    """Returns the V with ``h(V) = weight / scale - floor(weight / scale)``.

    The soft weight then is the float weight itself, where the grid reaches it.

    Args:
      weight: any shape, float.
      scale: broadcastable to ``weight``, over 0.

    Returns:
      V, of the weight's shape, float32.

    >>> soft_round(rounding_start(jnp.array([0.25, -0.25]), 1.0)).tolist()
    [0.25, 0.75]
    """
    level = weight.astype(jnp.float32) / scale
    part = (level - jnp.floor(level) - GAMMA) / (ZETA - GAMMA)
    return jnp.log(part) - jnp.log1p(-part)


def soft_round(v: jax.Array) -> jax.Array:
    """Returns ``h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)``: 0 rounds down, 1 rounds up."""
    return jnp.clip((ZETA - GAMMA) * jax.nn.sigmoid(v) + GAMMA, 0.0, 1.0)


def rounding_loss(v: jax.Array, beta: ArrayLike) -> jax.Array:
    """Returns ``sum(1 - |2 h(V) - 1|^beta)``: 0 where every weight is decided.

    Args:
      v: any shape.
      beta: f32[], at least 2, from `beta_at`.

    Returns:
      f32[]; its gradient by V is finite everywhere.
    """
    return jnp.sum(1.0 - jnp.abs(2.0 * soft_round(v) - 1.0) ** beta)


def beta_at(step: ArrayLike, steps: ArrayLike) -> jax.Array:
    """Returns the exponent of the rounding loss: 20 during the warm-up, then linearly to 2.

    Args:
      step: i32[], from 0. Before ``WARM_UP * steps`` the caller leaves `rounding_loss` out.
      steps: i32[], over 0.

    Returns:
      f32[], from `FIRST_BETA` to `LAST_BETA`.

    >>> [float(beta_at(step, 100)) for step in (0, 20, 60, 100)]
    [20.0, 20.0, 11.0, 2.0]
    """
    start = WARM_UP * jnp.asarray(steps, jnp.float32)
    left = (steps - jnp.asarray(step)) / (steps - start)
    return LAST_BETA + (FIRST_BETA - LAST_BETA) * jnp.clip(left, 0.0, 1.0)
