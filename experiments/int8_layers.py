"""Layers computed on 8-bit operands, as far as their time goes.

| layer | form | what runs on int8 |
|---|---|---|
| 1x1 convolution, product with a weight | ``dot`` | the product, int32 sums |
| depthwise convolution | ``shifted`` | a multiply-add per filter tap, int32 sums |
| grouped convolution | ``block diagonal`` | a dense convolution, its other weights 0 |
| convolution of up to 4 channels | ``patches`` | a product of gathered patches |
| other convolution | ``conv`` | XLA's convolution, NHWC, int32 sums |
| max pool | ``int8`` | all of it |
| add, activation, other pool, ... | ``vector`` | loads and stores; the step itself is float |
| loop, sort, gather, product of two tensors, other layout | ``float`` | nothing |

Inputs and outputs are int8 arrays. The sums become float by a factor per channel; bias
and everything fused into the layer run in float; the result is rounded to int8. So the
work is that of a static, symmetric 8-bit layer and the values are meaningless: no
scale is calibrated, and there are no zero points (which, where weights are symmetric,
change the bias and what is padded, not the work).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from autosplit.graph import Layer, lowering
from autosplit.graph.inlining import Equation, Literal
from autosplit.graph.running import LayerWeights

_VECTOR_KINDS = frozenset({"add", "concat", "pool", "resize", "reduce", "elementwise", "reshape"})
_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
_LARGEST_SHIFTED_KERNEL = 49
_FEW_CHANNELS = 4
_FACTOR = 0.01  # any number that leaves some of the results inside the range of int8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Int8Weights:
    """What an 8-bit layer reads beside its tensors.

    Attributes:
      weight: i8, in the shape that the form wants, or None.
      channel_factor: f32, from sums to values, broadcastable to the anchor's output.
      factor, inverse: f32[], from int8 to values and back.
      rest: bias and constants.
    """

    weight: jax.Array | None
    channel_factor: jax.Array
    factor: jax.Array
    inverse: jax.Array
    rest: LayerWeights


def int8_form(layer: Layer) -> str:
    """Returns how a layer is computed in 8 bits: a form of the table above."""
    if layer.anchor is None or layer.weight is None:
        if [equation.primitive for equation in layer.equations] == ["reduce_window_max"]:
            return "int8"
        return "vector" if layer.kind in _VECTOR_KINDS else "float"
    if layer.anchor.primitive == "dot_general":
        return "dot"
    if layer.anchor.primitive == "conv_general_dilated" and layer.weight.position == 1:
        return _conv_form(layer.anchor)
    return "float"


def _conv_form(anchor: Equation) -> str:
    params, dims = anchor.params, anchor.params["dimension_numbers"]
    if not (
        (dims.lhs_spec, dims.rhs_spec, dims.out_spec) == _NHWC
        and params["batch_group_count"] == 1
        and set(params["lhs_dilation"]) == {1}
        and min(min(side) for side in params["padding"]) >= 0
    ):
        return "float"
    height, width, per_group, out_channels = anchor.eqn.invars[1].aval.shape
    groups = params["feature_group_count"]
    if groups == 1:
        dense = "patches" if per_group <= _FEW_CHANNELS else "conv"
        return "dot" if height == width == 1 else dense
    depthwise = per_group == 1 and groups == out_channels
    small = height * width <= _LARGEST_SHIFTED_KERNEL
    return "shifted" if depthwise and small else "block diagonal"


def int8_weights(layer: Layer, weights: LayerWeights) -> Int8Weights:
    """Rounds the weight of a layer to int8, in the shape that its form wants."""
    plain = Int8Weights(
        weight=None,
        channel_factor=jnp.float32(_FACTOR),
        factor=jnp.float32(_FACTOR),
        inverse=jnp.float32(1 / _FACTOR),
        rest=dataclasses.replace(weights, weight=None),
    )
    if layer.anchor is None or layer.weight is None or weights.weight is None:
        return plain
    largest = jnp.maximum(jnp.abs(weights.weight).max(), 1e-9)
    weight = jnp.round(weights.weight / largest * 127).astype(jnp.int8)
    if int8_form(layer) == "block diagonal":
        weight = _block_diagonal(weight, layer.anchor.params["feature_group_count"])
    out = layer.anchor.eqn.outvars[0].aval.shape
    axes = layer.weight.output_axes
    channels = [n if axis in axes else 1 for axis, n in enumerate(out)]
    channel_factor = jnp.full(channels, _FACTOR / 127, jnp.float32)
    return dataclasses.replace(plain, weight=weight, channel_factor=channel_factor)


def _block_diagonal(kernel: jax.Array, groups: int) -> jax.Array:
    """Returns the dense [h, w, groups * i, o] of a grouped [h, w, i, o]."""
    height, width, per_group, out_channels = kernel.shape
    own = np.repeat(np.eye(groups, dtype=np.int8), out_channels // groups, axis=1)
    spread = kernel[:, :, None] * own[:, None, :]
    return spread.reshape(height, width, groups * per_group, out_channels)


def run_int8_layer(
    layer: Layer, weights: Int8Weights, inputs: Sequence[jax.Array], dtypes: Sequence[Any]
) -> tuple[jax.Array, ...]:
    """Runs one layer on int8 tensors.

    Args:
      layer: of a form other than ``float``.
      weights: from `int8_weights`.
      inputs: values of ``layer.inputs``, int8 where the graph has floats.
      dtypes: of the same tensors in the graph.

    Returns:
      Values of ``layer.outputs``, int8 where the graph has floats.
    """
    form = int8_form(layer)
    codes = dict(zip(layer.input_values, inputs, strict=True))
    if form == "int8":
        (equation,) = layer.equations
        return (_max_pool(equation, codes[equation.values[0]]),)
    # What only an 8-bit product reads is never made float: XLA drops it.
    values: dict[int, Any] = {
        number: (code * weights.factor).astype(dtype) if _is_float(dtype) else code
        for (number, code), dtype in zip(codes.items(), dtypes, strict=True)
    }
    values.update(zip(layer.constants, weights.rest.constants, strict=True))
    for equation in layer.equations:
        if equation is layer.anchor and layer.weight is not None:
            (number,) = equation.values[:1] if layer.weight.position else equation.values[1:]
            code = codes[number] if number in codes else _to_int8(values[number], weights.inverse)
            sums = int8_product(form, equation, layer.weight.position, code, weights.weight)
            result = (sums * weights.channel_factor).astype(equation.eqn.outvars[0].aval.dtype)
            bias = weights.rest.bias
            folded = equation.outputs[0] if layer.folded is None else layer.folded
            values[folded] = result if bias is None else result + bias
            continue
        operands = [o.value if isinstance(o, Literal) else values[o] for o in equation.inputs]
        results = lowering.evaluate(equation, operands)
        values.update(zip(equation.outputs, results, strict=True))
    return tuple(_to_int8(values[v], weights.inverse) for v in layer.output_values)


def _to_int8(value: jax.Array, inverse: jax.Array) -> jax.Array:
    if not _is_float(value.dtype):
        return value
    # Clipped as integers: XLA:CPU takes a third longer to clip floats and convert these to int8.
    return jnp.clip(jnp.round(value * inverse).astype(jnp.int32), -128, 127).astype(jnp.int8)


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def int8_product(
    form: str, equation: Equation, position: int, x: jax.Array, weight: Any
) -> jax.Array:
    """Multiplies int8 by int8 into exact int32 sums.

    Args:
      form: see the module's table.
      equation: the convolution or product of floats.
      position: which operand the weight is.
      x: i8, the data.
      weight: i8, from `int8_weights`.
    """
    params = equation.params
    if equation.primitive == "dot_general":
        left, right = (x, weight) if position else (weight, x)
        dims = params["dimension_numbers"]
        return lax.dot_general(left, right, dims, preferred_element_type=jnp.int32)
    if form in ("conv", "block diagonal"):
        return lax.conv_general_dilated(
            x,
            weight,
            window_strides=params["window_strides"],
            padding=params["padding"],
            rhs_dilation=params["rhs_dilation"],
            dimension_numbers=params["dimension_numbers"],
            preferred_element_type=jnp.int32,
        )
    taps = _windows(equation, x, weight.shape[:2])  # one where the kernel is 1x1
    if form == "shifted":
        # A product of two int8 fits int16, whose multiplication is faster than that of int32.
        return sum(
            (window.astype(jnp.int16) * tap.astype(jnp.int16)).astype(jnp.int32)
            for window, tap in zip(taps, weight.reshape(-1, weight.shape[3]), strict=True)
        )
    patches = jnp.concatenate(taps, axis=3)
    matrix = weight.reshape(-1, weight.shape[3])
    dims = (((3,), (0,)), ((), ()))
    return lax.dot_general(patches, matrix, dims, preferred_element_type=jnp.int32)


def _windows(equation: Equation, x: jax.Array, kernel: tuple[int, int]) -> list[jax.Array]:
    """Returns what each filter tap reads, [N, H', W', C] each, row by row."""
    params, out = equation.params, equation.eqn.outvars[0].aval.shape
    rows, columns = params["window_strides"]
    down, right = params["rhs_dilation"]
    padded = jnp.pad(x, ((0, 0), *params["padding"], (0, 0)))
    return [
        padded[
            :,
            i * down : i * down + (out[1] - 1) * rows + 1 : rows,
            j * right : j * right + (out[2] - 1) * columns + 1 : columns,
        ]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def _max_pool(equation: Equation, x: jax.Array) -> jax.Array:
    params = equation.params
    return lax.reduce_window(
        x,
        np.int8(-128),
        lax.max,
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["base_dilation"],
        params["window_dilation"],
    )
