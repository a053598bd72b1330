"""How a weighted layer is summed in integers: one table of forms by kind and backend.

All forms multiply int8 by int8 into exact int32 sums; they differ in what XLA makes of
them. Ratios were measured on 2 cores with AVX-512, XLA:CPU of jaxlib 0.10.2:

| kind | form | why, on the CPU |
|---|---|---|
| product, pointwise | ``dot`` | one call of the library |
| dense | ``conv`` | patches and a dot take 1.3 times as long |
| few | ``patches`` | without a multiple of 4 channels the library has no convolution: 17 times |
| depthwise | ``shifted`` | XLA's own grouped convolution: 30 times |
| grouped | ``block diagonal`` | a dense convolution with zeros; XLA's grouped one: 12 times |

On a GPU a product is what is known to reach the int8 units, so convolutions are products of
patches there; a TPU has integer convolutions of any kind. No time was measured on either.
The weight has one shape in all forms of a kind, so that one exported program holds them all
and the backend is chosen when it is compiled (`jax.lax.platform_dependent`).
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from autosplit.graph import Layer
from autosplit.graph.inlining import Equation

FORMS: Mapping[str, Mapping[str, str]] = {
    "product": {"cpu": "dot", "tpu": "dot", "default": "dot"},
    "pointwise": {"cpu": "dot", "tpu": "dot", "default": "dot"},
    "dense": {"cpu": "conv", "tpu": "conv", "default": "patches"},
    "few": {"cpu": "patches", "tpu": "conv", "default": "patches"},
    "depthwise": {"cpu": "shifted", "tpu": "conv", "default": "shifted"},
    "grouped": {"cpu": "block diagonal", "tpu": "block diagonal", "default": "patches"},
}
"""Kind -> backend -> form; ``default`` stands for every kind of GPU."""

_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
_LIBRARY_CHANNELS = 4
_LARGEST_SHIFTED_KERNEL = 49
_MOST_GROUPS = 64  # beyond, a block-diagonal kernel takes more time and memory than it saves


def form_of(kind: str, backend: str) -> str:
    """Returns the form of a kind on a backend (``cpu``, ``gpu``, ``tpu``).

    >>> form_of("dense", "cpu"), form_of("dense", "gpu")
    ('conv', 'patches')
    """
    return FORMS[kind].get(backend, FORMS[kind]["default"])


def integer_kind(layer: Layer) -> str | None:
    """Returns the kind of a layer: a row of `FORMS`; None where it has no integer form.

    None for layers without weight, for table look-ups, for upsampling (transposed)
    convolutions and layouts other than NHWC.
    """
    anchor = layer.anchor
    if anchor is None or layer.weight is None:
        return None
    if anchor.primitive == "dot_general":
        return "product"
    if anchor.primitive == "conv_general_dilated" and layer.weight.position == 1:
        return _conv_kind(anchor)
    return None


def _conv_kind(anchor: Equation) -> str | None:
    params, dims = anchor.params, anchor.params["dimension_numbers"]
    if not (
        (dims.lhs_spec, dims.rhs_spec, dims.out_spec) == _NHWC
        and params["batch_group_count"] == 1
        and set(params["lhs_dilation"]) == {1}
        and min(min(side) for side in params["padding"]) >= 0
    ):
        return None
    height, width, per_group, _ = anchor.eqn.invars[1].aval.shape
    groups = params["feature_group_count"]
    if groups == 1:
        if height == width == 1:
            return "pointwise"
        return "dense" if per_group % _LIBRARY_CHANNELS == 0 else "few"
    if per_group == 1 and height * width <= _LARGEST_SHIFTED_KERNEL:
        return "depthwise"
    return "grouped" if groups <= _MOST_GROUPS else None


def products_per_sum(anchor: Equation, position: int) -> int:
    """Returns how many products one sum has: with their largest values, its bound."""
    shape = anchor.eqn.invars[position].aval.shape
    if anchor.primitive == "dot_general":
        (contract, _) = anchor.params["dimension_numbers"]
        return math.prod(shape[axis] for axis in contract[position])
    return math.prod(shape[:-1])


def pads_with_zeros(kind: str, anchor: Equation) -> bool:
    """Tells whether a convolution pads with the code 0 rather than with that of the value 0.

    Its own padding costs no copy; but a sum at the border then lacks another part of the zero
    point than one inside.
    """
    return kind in ("dense", "grouped") and _pads_in_library(anchor)


def _pads_in_library(anchor: Equation) -> bool:
    # Where padding makes the output larger, XLA:CPU takes a hundred times as long.
    params, kernel = anchor.params, anchor.eqn.invars[1].aval.shape[:2]
    sides = zip(params["padding"], kernel, params["rhs_dilation"], strict=True)
    return all(sum(side) <= (size - 1) * dilation for side, size, dilation in sides)


def dense_kernel(kernel: jax.Array, groups: int) -> jax.Array:
    """Returns the dense [h, w, groups * i, o] of a grouped [h, w, i, o], zeros elsewhere."""
    height, width, per_group, out_channels = kernel.shape
    own = np.repeat(np.eye(groups, dtype=kernel.dtype), out_channels // groups, axis=1)
    spread = kernel[:, :, None] * own[:, None, :]
    return spread.reshape(height, width, groups * per_group, out_channels)


def integer_sums(
    kind: str, anchor: Equation, position: int, x: jax.Array, weight: jax.Array, pad_code: int
) -> jax.Array:
    """Multiplies codes by weight levels into exact sums, in the backend's form.

    Args:
      kind: from `integer_kind`.
      anchor: the convolution or product of floats.
      position: which operand the weight is.
      x: i8, the data; axes that are only batched or repeated may be shorter than traced.
      weight: i8; for ``grouped`` from `dense_kernel`.
      pad_code: what a convolution pads with.

    Returns:
      i32, of the shape of the anchor's output.
    """
    if kind == "product":
        left, right = (x, weight) if position else (weight, x)
        return lax.dot_general(left, right, anchor.params["dimension_numbers"],
                               preferred_element_type=jnp.int32)  # fmt: skip
    forms = FORMS[kind]
    run = {
        backend: functools.partial(_CONVOLUTIONS[form], anchor, pad_code)
        for backend, form in forms.items()
    }
    if len(set(forms.values())) == 1:
        return run["default"](x, weight)
    return lax.platform_dependent(x, weight, **run)


def _conv(anchor: Equation, pad_code: int, x: jax.Array, weight: jax.Array) -> jax.Array:
    params = anchor.params
    padding = params["padding"]
    if pad_code or not _pads_in_library(anchor):
        x, padding = _padded(anchor, pad_code, x), ((0, 0), (0, 0))
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=params["window_strides"],
        padding=padding,
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=params["dimension_numbers"],
        feature_group_count=x.shape[3] // weight.shape[2],
        preferred_element_type=jnp.int32,
    )


def _dot(anchor: Equation, pad_code: int, x: jax.Array, weight: jax.Array) -> jax.Array:
    rows, columns = anchor.params["window_strides"]
    return _matrix(_padded(anchor, pad_code, x)[:, ::rows, ::columns], weight)


def _patches(anchor: Equation, pad_code: int, x: jax.Array, weight: jax.Array) -> jax.Array:
    return _matrix(jnp.concatenate(_windows(anchor, pad_code, x, weight), axis=3), weight)


def _matrix(x: jax.Array, weight: jax.Array) -> jax.Array:
    matrix = weight.reshape(-1, weight.shape[3])
    dims = (((3,), (0,)), ((), ()))
    return lax.dot_general(x, matrix, dims, preferred_element_type=jnp.int32)


def _shifted(anchor: Equation, pad_code: int, x: jax.Array, weight: jax.Array) -> jax.Array:
    windows = _windows(anchor, pad_code, x, weight, apart=True)
    times = weight.shape[3] // x.shape[3]  # several filters of one channel
    products = []
    for window, tap in zip(windows, weight.reshape(-1, weight.shape[3]), strict=True):
        spread = window if times == 1 else jnp.repeat(window, times, axis=3)
        # A product of two int8 fits int16, whose multiplication is faster than that of int32.
        product = spread.astype(jnp.int16) * tap.astype(jnp.int16)
        products.append(product.astype(jnp.int32))
    return functools.reduce(operator.add, products)


def _padded(anchor: Equation, pad_code: int, x: jax.Array) -> jax.Array:
    padding = ((0, 0), *anchor.params["padding"], (0, 0))
    return jnp.pad(x, padding, constant_values=pad_code)


def _windows(
    anchor: Equation, pad_code: int, x: jax.Array, weight: jax.Array, *, apart: bool = False
) -> list[jax.Array]:
    """Returns what each filter tap reads, [N, H', W', C] each, row by row."""
    params, out = anchor.params, anchor.eqn.outvars[0].aval.shape
    rows, columns = params["window_strides"]
    down, right = params["rhs_dilation"]
    padded = _padded(anchor, pad_code, x)
    if apart:
        # Fused into the sum of the taps, padding is decided anew for each (1.3 times the time).
        padded = lax.optimization_barrier(padded)
    return [
        padded[
            :,
            i * down : i * down + max(out[1] - 1, 0) * rows + min(out[1], 1) : rows,
            j * right : j * right + max(out[2] - 1, 0) * columns + min(out[2], 1) : columns,
        ]
        for i in range(weight.shape[0])
        for j in range(weight.shape[1])
    ]


_CONVOLUTIONS: Mapping[str, Callable[..., Any]] = {
    "dot": _dot,
    "conv": _conv,
    "block diagonal": _conv,
    "patches": _patches,
    "shifted": _shifted,
}
