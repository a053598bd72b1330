"""Affine quantization with bit-widths as arrays: nothing here recompiles by bit-width.

Weights are symmetric, ``q = clamp(round(w / scale), -qmax, qmax)`` with
``scale = clip / qmax`` and ``qmax = 2^(b-1) - 1`` (one bit: ``q = sign(w)``).
Activations are asymmetric and unsigned, ``q = clamp(round(x / scale) + zero_point,
0, 2^b - 1)`` with ``scale = (high - low) / (2^b - 1)``; the range always holds
zero, and zero is represented exactly.

Other schemes are ranges and offsets of these, not code of their own: `symmetric_range` gives
activations symmetric levels, `signed_levels` turns unsigned levels (and the zero point) into
signed ones, asymmetric weights go through `fake_quant`, and clips with axes quantize each
channel by its own.

Values that are infinite are clamped to the clip; NaN stays NaN. A clip beyond `LARGEST` counts
as that, so that every level is finite.

Reference: Jacob et al. 2018 (arXiv 1712.05877), equations 1 to 3. Deviation: the
weight's range is narrow (no -2^(b-1)), so that negation is exact.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from autosplit.workload import FLOAT_BITS

# A quarter of what float32 holds: the ends of a range that is moved to hold zero as a level
# lie beyond it by up to half a step, and a range has two ends.
LARGEST = float(jnp.finfo(jnp.float32).max) / 4

def weight_qmax(bits: ArrayLike) -> jax.Array:
    """Returns the largest weight level, ``max(2^(b-1) - 1, 1)``, as float32.

    >>> weight_qmax(jnp.array([1, 2, 8])).tolist()
    [1.0, 1.0, 127.0]
    """
    safe = jnp.clip(jnp.asarray(bits), 1, 24)
    return jnp.maximum((1 << (safe - 1)) - 1, 1).astype(jnp.float32)


def quantize_weight(weight: jax.Array, clip: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Quantizes symmetrically: ``clamp(round(w / scale), -qmax, qmax)``.

    Args:
      weight: any shape, float.
      clip: broadcastable to ``weight``, at least 0; 0 stands for channels of zeros.
      bits: i32[] or broadcastable, 1 to 24.

    Returns:
      Levels as float32 whole numbers in ``[-qmax, qmax]``; at one bit -1 or 1.
    """
    qmax = weight_qmax(bits)
    scale = weight_scale(clip, bits)
    level = jnp.clip(jnp.round(weight / scale), -qmax, qmax)
    return jnp.where(jnp.asarray(bits) == 1, jnp.where(weight < 0, -1.0, 1.0), level)


def weight_scale(clip: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Returns ``clip / qmax``, the smallest normal number where the clip is 0."""
    return jnp.maximum(jnp.minimum(clip, LARGEST) / weight_qmax(bits), jnp.finfo(jnp.float32).tiny)


def fake_quant_weight(weight: jax.Array, clip: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Quantizes and dequantizes a weight; bits of `FLOAT_BITS` leave it as it is.

    >>> fake_quant_weight(jnp.array([-1.0, 0.3, 0.6]), 1.0, 2).tolist()
    [-1.0, 0.0, 1.0]
    """
    level = quantize_weight(weight, clip, bits)
    value = (level * weight_scale(clip, bits)).astype(weight.dtype)
    return jnp.where(jnp.asarray(bits) >= FLOAT_BITS, weight, value)


def activation_grid(
    low: ArrayLike, high: ArrayLike, bits: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns ``scale``, ``zero_point`` and the largest level for a clip.

    Args:
      low, high: f32, the clip; it is widened to hold zero. An empty range (a
        constant zero) gets the scale 1.
      bits: i32, 1 to 24.

    Returns:
      Three float32 arrays; zero_point and levels are whole numbers.
    """
    low, high = jnp.clip(low, -LARGEST, 0.0), jnp.clip(high, 0.0, LARGEST)
    levels = ((1 << jnp.clip(jnp.asarray(bits), 1, 24)) - 1).astype(jnp.float32)
    scale = (high - low) / levels
    scale = jnp.where(scale > jnp.finfo(jnp.float32).tiny, scale, 1.0)
    return scale, jnp.round(-low / scale), levels


def symmetric_range(
    low: ArrayLike, high: ArrayLike, bits: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Widens a range so that the levels of `quantize` are symmetric around zero.

    With ``scale = max(-low, high) / (2^(b-1) - 1)`` it is ``[-2^(b-1) scale, (2^(b-1) - 1)
    scale]``: the zero point is the middle level ``2^(b-1)``, which `signed_levels` makes 0.
    For activations of devices without zero points.

    Args:
      low, high: f32, the clip.
      bits: i32, 1 to 24. One bit leaves the range as it is: two levels of which one is zero
        are never symmetric.

    Returns:
      Low and high, for `fake_quant`, `quantize` and `dequantize`.

    >>> [float(end) for end in symmetric_range(-0.5, 7.0, 4)]
    [-8.0, 7.0]
    """
    reach = jnp.maximum(-jnp.minimum(low, 0.0), jnp.maximum(high, 0.0))
    one_bit = jnp.asarray(bits) == 1
    return (
        jnp.where(one_bit, low, -reach - reach / weight_qmax(bits)),
        jnp.where(one_bit, high, reach),
    )


def signed_levels(level: jax.Array, bits: ArrayLike) -> jax.Array:
    """Shifts unsigned levels, or a zero point, by ``-2^(b-1)``: at 8 bits into int8's range.

    For integer arithmetic on signed operands; values are ``(level - zero_point) * scale``
    either way.

    >>> signed_levels(jnp.array([0.0, 128.0, 255.0]), 8).tolist()
    [-128.0, 0.0, 127.0]
    """
    return level - (1 << (jnp.clip(jnp.asarray(bits), 1, 24) - 1)).astype(jnp.float32)


def quantize(x: jax.Array, low: ArrayLike, high: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Quantizes asymmetrically to levels ``0 .. 2^b - 1``, as float32 whole numbers."""
    scale, zero_point, levels = activation_grid(low, high, bits)
    return jnp.clip(jnp.round(x / scale) + zero_point, 0.0, levels)


def dequantize(level: jax.Array, low: ArrayLike, high: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Returns the values of levels, float32."""
    scale, zero_point, _ = activation_grid(low, high, bits)
    return (level.astype(jnp.float32) - zero_point) * scale


def fake_quant(x: jax.Array, low: ArrayLike, high: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Quantizes and dequantizes an activation; bits of `FLOAT_BITS` leave it as it is.

    >>> fake_quant(jnp.array([0.1, 0.4, 0.9]), 0.0, 1.0, 1).tolist()
    [0.0, 0.0, 1.0]
    """
    value = dequantize(quantize(x, low, high, bits), low, high, bits).astype(x.dtype)
    return jnp.where(jnp.asarray(bits) >= FLOAT_BITS, x, value)
