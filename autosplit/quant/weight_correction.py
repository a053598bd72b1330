"""Correction of quantized weights: each channel gets the mean and spread of the original.

Rounding and clipping shift the mean of a channel and shrink its spread, which at few bits
costs more accuracy than the noise itself. One scale and one offset per channel repair both,
and both can be folded into what follows a layer: its output scale and, with the sum of its
inputs, its bias.

Reference: Banner et al. 2019 (arXiv 1810.05723), bias correction: ``mu = E[W] - E[Wq]``,
``xi = |W - E[W]| / |Wq - E[Wq]|``, ``W' = xi (Wq + mu)``. Deviation: ``mu = E[W] / xi - E[Wq]``, as
the published order of the two multiplies the restored mean by xi.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def weight_correction(
    weight: jax.Array, quantized: jax.Array, channel_axes: tuple[int, ...], *, spread: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Returns the scale ``xi`` and the offset ``xi mu`` of each channel.

    Args:
      weight: any shape, float.
      quantized: the same shape, quantized and dequantized.
      channel_axes: axes of the output channels, static; empty for one pair for the tensor.
      spread: match the standard deviation too; otherwise xi is 1.

    Returns:
      Two f32 arrays that broadcast to the weight. A channel whose levels are all equal has
      no spread to scale: xi is 1.
    """
    others = tuple(axis for axis in range(weight.ndim) if axis not in channel_axes)
    mean, deviation = _moments(weight, others)
    level_mean, level_deviation = _moments(quantized, others)
    some = (level_deviation > 0) & spread
    xi = jnp.where(some, deviation / jnp.where(some, level_deviation, 1.0), 1.0)
    return xi, mean - xi * level_mean


def corrected_weight(
    weight: jax.Array, quantized: jax.Array, channel_axes: tuple[int, ...], *, spread: bool = True
) -> jax.Array:
    """Returns ``xi (quantized + mu)``: mean and standard deviation of the original's channels.

    Arguments as for `weight_correction`.

    >>> corrected_weight(jnp.array([0.0, 2.0]), jnp.array([1.0, 2.0]), ()).tolist()
    [0.0, 2.0]
    """
    scale, offset = weight_correction(weight, quantized, channel_axes, spread=spread)
    return (scale * quantized + offset).astype(weight.dtype)


def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    x = x.astype(jnp.float32)
    count = max(x.size // max(jnp.sum(x, axis=axes).size, 1), 1)
    mean = jnp.sum(x, axis=axes, keepdims=True) / count
    return mean, jnp.sqrt(jnp.sum((x - mean) ** 2, axis=axes, keepdims=True) / count)
