"""How each kind of layer is computed on each backend: one table, and the forms it names.

Every form gives the result of XLA's own. Which of them a backend runs is chosen when the
program is lowered for it, so an exported program is fast wherever it is loaded.

| kind | what it is | on the CPU, XLA's own takes |
|---|---|---|
| ``pointwise`` | convolution of 1x1 | 2 to 3 times as long as a product |
| ``depthwise`` | one filter of up to 7x7 per channel | tens of times as long as shifted products |
| ``grouped`` | several groups, not depthwise | 1.5 to 30 times as long as dense blocks |
| ``few pixels`` | dense, of at most 400 output pixels | 1 to 2.3 times as long as patches |
| ``spatial sum`` | sum over height and width | see `_ones_product` |

Other convolutions are XLA's everywhere: on 2 cores with AVX-512, from 28 x 28 pixels on, and for
the stem of 3 channels, it is 1.2 to 5 times faster than patches.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from autosplit.graph import _jax_compat as compat
from autosplit.graph.inlining import Equation

Form = Callable[..., jax.Array]
"""``form(equation, *operands)``: the one output of an equation."""

_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
_LARGEST_SHIFTED_KERNEL = 49
_FEW_PIXELS = 400  # over the whole batch: two images of 14 x 14, eight of 7 x 7
_FEW_CHANNELS = 16  # XLA:CPU computes dense convolutions of fewer at a fraction of its speed


def evaluate(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    """Runs one equation, in the form that the table has for it.

    Args:
      equation: what to run.
      operands: values of its inputs.

    Returns:
      Values of its outputs.
    """
    kind = kind_of(equation)
    if kind is None:
        return compat.evaluate(equation.eqn, operands)
    other = TABLE[kind]["default"]
    forms = {
        backend: functools.partial(form, equation)
        for backend, form in TABLE[kind].items()
        if backend == "default" or form is not other
    }
    if len(forms) == 1:
        return [other(equation, *operands)]
    return [lax.platform_dependent(*operands, **forms)]


def kind_of(equation: Equation) -> str | None:
    """Returns the row of `TABLE` that an equation belongs to; None where XLA's own form is best."""
    if equation.primitive == "reduce_sum":
        (x,) = (v.aval for v in equation.eqn.invars)
        over_image = x.ndim == 4 and equation.params["axes"] == (1, 2)
        return "spatial sum" if over_image and jnp.issubdtype(x.dtype, jnp.floating) else None
    if equation.primitive != "conv_general_dilated" or not _is_plain(equation):
        return None
    x, kernel = (v.aval for v in equation.eqn.invars)
    height, width, per_group, out_channels = kernel.shape
    groups = equation.params["feature_group_count"]
    if groups > 1:
        depthwise = per_group == 1 and groups == out_channels
        small = height * width <= _LARGEST_SHIFTED_KERNEL
        return "depthwise" if depthwise and small else None if depthwise else "grouped"
    if height == width == 1:
        return "pointwise"
    pixels = math.prod(equation.eqn.outvars[0].aval.shape[:3])
    return "few pixels" if pixels <= _FEW_PIXELS and per_group >= _FEW_CHANNELS else None


def _is_plain(equation: Equation) -> bool:
    """NHWC floats in two spatial axes, nothing upsampled."""
    params = equation.params
    dims = params["dimension_numbers"]
    x, kernel = (v.aval for v in equation.eqn.invars)
    return (
        (dims.lhs_spec, dims.rhs_spec, dims.out_spec) == _NHWC
        and x.dtype == kernel.dtype
        and jnp.issubdtype(x.dtype, jnp.floating)
        and params["preferred_element_type"] in (None, x.dtype)
        and params["batch_group_count"] == 1
        and set(params["lhs_dilation"]) == {1}
        and min(min(side) for side in params["padding"]) >= 0
    )


def _xla(equation: Equation, *operands: Any) -> jax.Array:
    (result,) = compat.evaluate(equation.eqn, operands)
    return result


def _pointwise(equation: Equation, x: jax.Array, kernel: jax.Array) -> jax.Array:
    params = equation.params
    rows, columns = params["window_strides"]
    padded = jnp.pad(x, ((0, 0), *params["padding"], (0, 0)))
    return _product(equation, padded[:, ::rows, ::columns], kernel[0, 0])


def _product(equation: Equation, x: jax.Array, matrix: jax.Array) -> jax.Array:
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(x, matrix, dims, precision=equation.params["precision"])


def _shifted(equation: Equation, x: jax.Array, kernel: jax.Array) -> jax.Array:
    out = equation.eqn.outvars[0].aval.shape
    total = jnp.zeros((x.shape[0], *out[1:]), x.dtype)
    for (i, j), window in _windows(equation, x, kernel.shape[:2]):
        total += window * kernel[i, j, 0]
    return total


def _patches(equation: Equation, x: jax.Array, kernel: jax.Array) -> jax.Array:
    taps = [window for _, window in _windows(equation, x, kernel.shape[:2])]
    return _product(equation, jnp.concatenate(taps, axis=3), kernel.reshape(-1, kernel.shape[3]))


def _windows(
    equation: Equation, x: jax.Array, kernel: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """Yields the place of each filter tap and what it reads, [N, H', W', C]."""
    params, out = equation.params, equation.eqn.outvars[0].aval.shape
    rows, columns = params["window_strides"]
    down, right = params["rhs_dilation"]
    padded = jnp.pad(x, ((0, 0), *params["padding"], (0, 0)))
    for i, j in np.ndindex(*kernel):
        top, left = i * down, j * right
        ends = top + (out[1] - 1) * rows + 1, left + (out[2] - 1) * columns + 1
        window = lax.slice(
            padded, (0, top, left, 0), (x.shape[0], *ends, x.shape[3]), (1, rows, columns, 1)
        )
        yield (i, j), window


def _dense_blocks(equation: Equation, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves some groups at a time as one dense convolution whose other weights are 0."""
    params, groups = equation.params, equation.params["feature_group_count"]
    per_group, out_channels = kernel.shape[2:]
    merged = next(
        m for m in range(1, groups + 1)
        if groups % m == 0 and (m * per_group >= _FEW_CHANNELS or m == groups)
    )  # fmt: skip
    own = np.repeat(np.eye(merged, dtype=kernel.dtype), out_channels // groups, axis=1)

    def block(part: jax.Array, weights: jax.Array) -> jax.Array:
        spread = weights[:, :, None] * own[:, None, :]
        return lax.conv_general_dilated(
            part,
            spread.reshape(*kernel.shape[:2], merged * per_group, -1),
            window_strides=params["window_strides"],
            padding=params["padding"],
            rhs_dilation=params["rhs_dilation"],
            dimension_numbers=params["dimension_numbers"],
            precision=params["precision"],
        )

    count = groups // merged
    parts = zip(jnp.split(x, count, axis=3), jnp.split(kernel, count, axis=3), strict=True)
    return jnp.concatenate([block(*pair) for pair in parts], axis=3)


def _ones_product(equation: Equation, x: jax.Array) -> jax.Array:
    """Sums over height and width as a product with ones.

    XLA:CPU (jaxlib 0.10.2) merges a sum with all convolutions before it, up to the start of the
    stage, and runs the whole at a fraction of their speed. A product is not merged.
    """
    flat = x.reshape(x.shape[0], -1, x.shape[3])
    ones = jnp.ones(flat.shape[1], x.dtype)
    return lax.dot_general(flat, ones, (((1,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)


TABLE: Mapping[str, Mapping[str, Form]] = {
    "pointwise": {"cpu": _pointwise, "cuda": _pointwise, "tpu": _pointwise, "default": _pointwise},
    "depthwise": {"cpu": _shifted, "cuda": _xla, "tpu": _xla, "default": _xla},
    "grouped": {"cpu": _dense_blocks, "cuda": _xla, "tpu": _xla, "default": _xla},
    "few pixels": {"cpu": _patches, "cuda": _xla, "tpu": _xla, "default": _xla},
    "spatial sum": {"cpu": _ones_product, "cuda": _xla, "tpu": _xla, "default": _xla},
}
"""Kind of layer -> backend -> form; ``default`` is any other backend."""
