"""Runs one layer of the edge on 8-bit codes.

| layer | how |
|---|---|
| a product or convolution with packed weights (`integer_forms`) | int8 by int8, int32 sums |
| max pool | codes are compared, then put on the grid of the output |
| no weight | codes become values, the equations run in float, the results become codes |
| anything else | likewise, with the weight's quantized values |

A sum of products of codes lacks the zero point: ``sum w (q - z) = sum w q - z sum w``. The
second term depends on weights alone: an integer ``correction`` by channel (by place, where
a convolution pads with its own zeros), so that sums stay exact. Then ``(sum + correction) *
factor + bias``, all that is fused into the layer and the rounding to the output's codes
are one loop over the sums.

Reference: Jacob et al. 2018 (arXiv 1712.05877), equations 4 and 7. Deviation: the
multiplier is a float32 number, not an integer and a shift: XLA has vector
instructions for the one and none for the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from autosplit.execution.grids import Grid, decode, encode
from autosplit.execution.integer_forms import (
    dense_kernel,
    form_of,
    integer_kind,
    integer_sums,
    pads_with_zeros,
    products_per_sum,
)
from autosplit.execution.weights import IntegerWeight, PackedWeight, unpack_levels
from autosplit.graph import Layer, LayerGraph, lowering
from autosplit.graph.inlining import Equation, Literal
from autosplit.graph.layers import WeightSpec
from autosplit.graph.running import LayerWeights, run_layer

_VECTOR_KINDS = frozenset({"add", "concat", "pool", "resize", "reduce", "elementwise", "reshape"})
_MOVES = frozenset({"reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "copy"})
_LARGEST_SUM = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """The weighted equation of a layer that sums integers; static.

    Attributes:
      kind: of the form, see `integer_forms.FORMS`.
      anchor: the convolution or product.
      weight: where its weight and channels are.
      data: grid of what the weight is multiplied with.
    """

    kind: str
    anchor: Equation
    weight: WeightSpec
    data: Grid

    @property
    def operand(self) -> Any:
        """The value that the weight is multiplied with."""
        return self.anchor.inputs[1 - self.weight.position]

    @property
    def pad_code(self) -> int:
        """What a convolution pads with."""
        return 0 if pads_with_zeros(self.kind, self.anchor) else self.data.zero

    def sums(self, x: jax.Array, levels: jax.Array) -> jax.Array:
        """Returns ``sum w q``, i32."""
        return integer_sums(
            self.kind, self.anchor, self.weight.position, x, levels, self.pad_code
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdgeLayer:
    """A layer and how it computes; static.

    Attributes:
      layer: of the graph.
      product: its integer form; None where it runs in float.
      inputs, outputs: grids of ``layer.inputs`` and ``layer.outputs``, None where the tensor
        is no code.
      dtypes: of ``layer.inputs`` in the graph.
    """

    layer: Layer
    product: Product | None
    inputs: tuple[Grid | None, ...]
    outputs: tuple[Grid | None, ...]
    dtypes: tuple[Any, ...]

    @property
    def pools_codes(self) -> bool:
        """It is a max pool from codes to codes."""
        names = [equation.primitive for equation in self.layer.equations]
        return names == ["reduce_window_max"] and None not in (*self.inputs, *self.outputs)

    def form(self, backend: str) -> str:
        """Returns how it computes in words: a form of the table, ``int8 vector float``."""
        if self.product is not None:
            return form_of(self.product.kind, backend)
        if self.pools_codes:
            return "int8"
        plain = self.layer.weight is None and self.layer.kind in _VECTOR_KINDS
        return "vector" if plain else "float"


def edge_layer(
    graph: LayerGraph, index: int, grids: Sequence[Grid | None], w_bits: int | None
) -> EdgeLayer:
    """Chooses how a layer computes.

    Args:
      graph: traced function.
      index: of the layer.
      grids: T grids, None where a tensor is no code.
      w_bits: of the layer's packed weight; None where that is float.
    """
    layer = graph.layers[index]
    return EdgeLayer(
        layer=layer,
        product=None if w_bits is None else _product(layer, grids, w_bits),
        inputs=tuple(grids[t] for t in layer.inputs),
        outputs=tuple(grids[t] for t in layer.outputs),
        dtypes=tuple(graph.tensors[t].dtype for t in layer.inputs),
    )


def _product(layer: Layer, grids: Sequence[Grid | None], w_bits: int) -> Product | None:
    """Returns the integer form; None where there is none or a sum might leave int32."""
    kind = integer_kind(layer)
    if kind is None or layer.anchor is None or layer.weight is None:
        return None
    known = {v: grids[t] for v, t in zip(layer.input_values, layer.inputs, strict=True)}
    # The data may have been moved since it entered the layer, but not computed with.
    for equation in layer.equations:
        if equation is layer.anchor:
            break
        if equation.primitive in _MOVES:
            known[equation.outputs[0]] = known.get(equation.values[0])
    operand = layer.anchor.inputs[1 - layer.weight.position]
    data = known.get(operand) if isinstance(operand, int) else None
    if data is None:
        return None
    largest_level = max((1 << (w_bits - 1)) - 1, 1)
    terms = products_per_sum(layer.anchor, layer.weight.position)
    if terms * largest_level * data.levels > _LARGEST_SUM:
        return None
    return Product(kind=kind, anchor=layer.anchor, weight=layer.weight, data=data)


def integer_weight(product: Product, packed: PackedWeight) -> IntegerWeight:
    """Brings a packed weight into the form that the product reads."""
    levels, spec = unpack_levels(packed), product.weight
    if product.kind == "grouped":
        levels = dense_kernel(levels, product.anchor.params["feature_group_count"])
    # The scales lie along the weight's channel axes; the sums have these elsewhere.
    order = sorted(range(len(spec.channel_axes)), key=lambda i: spec.output_axes[i])
    axes = [spec.channel_axes[i] for i in order]
    rest = [axis for axis in range(packed.scale.ndim) if axis not in axes]
    out = product.anchor.eqn.outvars[0].aval.shape
    channels = [n if axis in spec.output_axes else 1 for axis, n in enumerate(out)]
    scale = lax.transpose(packed.scale, [*axes, *rest]).reshape(channels)
    return IntegerWeight(
        weight=levels,
        factor=scale * np.float32(product.data.scale),
        correction=None if product.data.zero == 0 else _correction(product, levels),
    )


def _correction(product: Product, levels: jax.Array) -> jax.Array:
    """Returns ``-z sum w``, i32, broadcastable to the sums: what data of zeros would give."""
    position = 1 - product.weight.position
    shape = product.anchor.eqn.invars[position].aval.shape
    # Along the other axes all sums are alike: one is enough.
    summed = set(range(1, len(shape)))
    if product.kind == "product":
        contract, batch = product.anchor.params["dimension_numbers"]
        summed = {*contract[position], *batch[position]}
    zeros = jnp.full([n if axis in summed else 1 for axis, n in enumerate(shape)],
                     product.data.zero, jnp.int8)  # fmt: skip
    sums = product.sums(zeros, levels)
    uniform = product.kind != "product" and not pads_with_zeros(product.kind, product.anchor)
    return -(sums[:, :1, :1] if uniform else sums)


def run_edge_layer(
    step: EdgeLayer, own: LayerWeights, quantized: IntegerWeight | None, inputs: Sequence[Any]
) -> tuple[Any, ...]:
    """Runs one layer.

    Args:
      step: from `edge_layer`.
      own: weight in float (unless it is quantized), bias and constants.
      quantized: the weight of an integer form.
      inputs: codes where ``step.inputs`` has grids, else values.

    Returns:
      Codes where ``step.outputs`` has grids, else values.
    """
    if step.pools_codes:
        return (_pool_codes(step, inputs[0]),)
    floats = [
        x if grid is None else decode(grid, x, dtype)
        for grid, x, dtype in zip(step.inputs, inputs, step.dtypes, strict=True)
    ]
    if step.product is None or quantized is None:
        results = run_layer(step.layer, own, floats, own.weight)
    else:
        results = _run_integers(step.layer, step.product, own, quantized, inputs, floats)
    return tuple(
        value if grid is None else encode(grid, value)
        for grid, value in zip(step.outputs, results, strict=True)
    )


def _run_integers(
    layer: Layer,
    product: Product,
    own: LayerWeights,
    quantized: IntegerWeight,
    inputs: Sequence[Any],
    floats: Sequence[Any],
) -> tuple[Any, ...]:
    codes = dict(zip(layer.input_values, inputs, strict=True))
    # What only the product reads is never made float: the compiler drops it.
    values: dict[int, Any] = dict(zip(layer.input_values, floats, strict=True))
    values.update(zip(layer.constants, own.constants, strict=True))
    for equation in layer.equations:
        if equation is layer.anchor:
            result = _weighted(product, own, quantized, codes[product.operand])
            values[equation.outputs[0] if layer.folded is None else layer.folded] = result
            continue
        operands = [o.value if isinstance(o, Literal) else values[o] for o in equation.inputs]
        results = lowering.evaluate(equation, operands)
        values.update(zip(equation.outputs, results, strict=True))
        if equation.primitive in _MOVES and equation.values[0] in codes:
            codes[equation.outputs[0]] = lowering.evaluate(equation, [codes[equation.values[0]]])[0]
    return tuple(values[v] for v in layer.output_values)


def _weighted(
    product: Product, own: LayerWeights, quantized: IntegerWeight, code: jax.Array
) -> jax.Array:
    sums = product.sums(code, quantized.weight)
    if quantized.correction is not None:
        sums = sums + quantized.correction
    value = sums.astype(jnp.float32) * quantized.factor
    if own.bias is not None:
        value = value + own.bias
    return value.astype(product.anchor.eqn.outvars[0].aval.dtype)


def _pool_codes(step: EdgeLayer, x: jax.Array) -> jax.Array:
    """Pools codes: the largest code is that of the largest value."""
    (equation,), (source,), (target,) = step.layer.equations, step.inputs, step.outputs
    params = equation.params
    largest = lax.reduce_window(
        x,
        np.int8(-128),
        lax.max,
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["base_dilation"],
        params["window_dilation"],
    )
    if source is None or target is None or source == target:
        return largest
    return encode(target, decode(source, largest))
