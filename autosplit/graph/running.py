"""Runs the layers of a graph: hoisted values once, then layer by layer, with hooks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from autosplit.errors import InputError
from autosplit.graph import _jax_compat as compat
from autosplit.graph import lowering
from autosplit.graph.inlining import Literal, Operand
from autosplit.graph.layers import Layer, LayerGraph
from autosplit.graph.simplify import fold

Hook = Callable[[int, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """What one layer reads beside its tensors.

    Attributes:
      weight: folded weight, or None.
      bias: folded bias, broadcastable to the anchor's output, or None.
      constants: the other hoisted values, in the order of ``layer.constants``.
    """

    weight: jax.Array | None
    bias: jax.Array | None
    constants: tuple[Any, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphWeights:
    """What a graph reads beside its inputs.

    Attributes:
      layers: one `LayerWeights` per layer.
      outputs: the graph outputs that depend on parameters alone, in order.
    """

    layers: tuple[LayerWeights, ...]
    outputs: tuple[Any, ...]


@functools.partial(jax.jit, static_argnames=("graph",))
def prepare(graph: LayerGraph, params: Any) -> GraphWeights:
    """Computes all that depends on parameters alone, and folds batch norm.

    Args:
      graph: the traced function; static, so that each graph compiles once.
      params: the pytree that it was traced with (values may differ).

    Returns:
      Weights, biases and constants by layer. Differentiable.

    Raises:
      InputError: structure, shape or dtype differ from the traced parameters.
    """
    leaves = _check_leaves(graph, params)
    numbers = graph.program.inputs[: graph.num_params]
    values: dict[int, Any] = dict(zip(numbers, leaves, strict=True))
    values.update(graph.program.constants)

    def read(operand: Operand) -> Any:
        return operand.value if isinstance(operand, Literal) else values[operand]

    for equation in graph.hoisted:
        results = compat.evaluate(equation.eqn, [read(o) for o in equation.inputs])
        values.update(zip(equation.outputs, results, strict=True))
    layers = []
    for layer in graph.layers:
        weight = bias = None
        if layer.weight is not None and layer.anchor is not None:
            rank = len(layer.anchor.eqn.outvars[0].aval.shape)
            weight, bias = fold(values[layer.weight.value], layer.weight, read, rank)
        constants = tuple(values[v] for v in layer.constants)
        layers.append(LayerWeights(weight=weight, bias=bias, constants=constants))
    outputs = tuple(
        jnp.asarray(read(operand))
        for operand, tensor in zip(graph.program.outputs, graph.outputs, strict=True)
        if tensor is None
    )
    return GraphWeights(layers=tuple(layers), outputs=outputs)


def _check_leaves(graph: LayerGraph, params: Any) -> list[Any]:
    leaves, tree = jax.tree.flatten(params)
    if tree != graph.param_tree:
        raise InputError(
            f"The parameters have the structure {tree}; the graph was traced with "
            f"{graph.param_tree}. Pass the parameters that the function was traced with."
        )
    for number, leaf in zip(graph.program.inputs[: graph.num_params], leaves, strict=True):
        expected = graph.program.avals[number]
        if jnp.shape(leaf) != tuple(expected.shape):
            raise InputError(
                f"A parameter has the shape {jnp.shape(leaf)}; the graph was traced with "
                f"{tuple(expected.shape)}. Trace again with these parameters."
            )
        if jnp.result_type(leaf) != expected.dtype:
            raise InputError(
                f"A parameter has the dtype {jnp.result_type(leaf)}; the graph was traced with "
                f"{expected.dtype}. Trace again with these parameters."
            )
    return leaves


def run_layer(
    layer: Layer, weights: LayerWeights, inputs: Iterable[Any], weight: jax.Array | None
) -> tuple[Any, ...]:
    """Runs one layer.

    Args:
      layer: what to run.
      weights: its bias and constants.
      inputs: values of ``layer.inputs``.
      weight: its weight (which may have been quantized).

    Returns:
      Values of ``layer.outputs``.
    """
    values: dict[int, Any] = dict(zip(layer.input_values, inputs, strict=True))
    values.update(zip(layer.constants, weights.constants, strict=True))
    for equation in layer.equations:
        is_anchor = equation is layer.anchor
        operands = [
            weight
            if is_anchor and layer.weight is not None and position == layer.weight.position
            else (operand.value if isinstance(operand, Literal) else values[operand])
            for position, operand in enumerate(equation.inputs)
        ]
        results = lowering.evaluate(equation, operands)
        if is_anchor and layer.folded is not None:
            values[layer.folded] = results[0] if weights.bias is None else results[0] + weights.bias
        else:
            values.update(zip(equation.outputs, results, strict=True))
    return tuple(values[v] for v in layer.output_values)


def run_layers(
    graph: LayerGraph,
    weights: GraphWeights,
    tensors: Mapping[int, Any],
    layers: Iterable[int],
    *,
    on_weight: Hook = lambda _, value: value,
    on_tensor: Hook = lambda _, value: value,
) -> dict[int, Any]:
    """Runs some layers in order.

    Args:
      graph: the traced function.
      weights: from `prepare`.
      tensors: known values by tensor index.
      layers: indices in topological order.
      on_weight: ``(layer index, weight) -> weight``, applied before use.
      on_tensor: ``(tensor index, value) -> value``, applied to each result.

    Returns:
      All known values by tensor index.
    """
    known = dict(tensors)
    for index in layers:
        layer, own = graph.layers[index], weights.layers[index]
        weight = None if own.weight is None else on_weight(index, own.weight)
        results = run_layer(layer, own, [known[t] for t in layer.inputs], weight)
        for tensor, value in zip(layer.outputs, results, strict=True):
            known[tensor] = on_tensor(tensor, value)
    return known


def flat_outputs(graph: LayerGraph, weights: GraphWeights, tensors: Mapping[int, Any]) -> list[Any]:
    """Collects the flat outputs of the function from known tensors."""
    fixed = iter(weights.outputs)
    return [next(fixed) if t is None else tensors[t] for t in graph.outputs]
