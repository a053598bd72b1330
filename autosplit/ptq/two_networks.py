"""The network in float and the quantized one, side by side, layer by layer on all calls.

Learned rounding takes its targets from the one and its inputs from the other. A tensor is kept
until its last reader has run, so memory holds the inputs of a few layers, not of all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from autosplit.errors import InputError
from autosplit.graph import Layer, LayerGraph
from autosplit.graph.running import GraphWeights, LayerWeights, run_layer
from autosplit.profiling.assignment import Assignment
from autosplit.ptq.shared_programs import run_shared
from autosplit.quant.affine import fake_quant
from autosplit.workload import FLOAT_BITS

Clip = tuple[jax.Array, jax.Array, jax.Array]
"""Low, high and bits of a tensor."""

_CALLS = 32
"""Most calls that pass a layer together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoNetworks:
    """Tensors of all calls ``[m, *shape]``, by index, that some later layer reads.

    Attributes:
      plain: of the network in float.
      quantized: of the quantized network, graph inputs as they are on the edge.
    """

    plain: Mapping[int, jax.Array]
    quantized: Mapping[int, jax.Array]


def at_inputs(graph: LayerGraph, calls: Sequence[jax.Array]) -> TwoNetworks:
    """Returns the two networks before their first layer."""
    known = {t: jnp.asarray(x) for t, x in zip(graph.inputs, calls, strict=True)}
    return TwoNetworks(plain=known, quantized=known)


def clip_of(graph: LayerGraph, assignment: Assignment, tensor: int) -> Clip:
    """Returns the clip of a tensor; for one that is no float, bits that leave it as it is."""
    bits = assignment.a_bits[tensor] if graph.tensors[tensor].is_float else jnp.int32(FLOAT_BITS)
    return assignment.a_low[tensor], assignment.a_high[tensor], bits


def layer_inputs(
    graph: LayerGraph, assignment: Assignment, known: Mapping[int, jax.Array], index: int
) -> list[jax.Array]:
    """Returns what a layer of the quantized network reads: in the cloud, inputs as they arrive."""
    in_cloud = not bool(assignment.on_edge[index])
    return [
        quantized_tensor(known[t], clip_of(graph, assignment, t))
        if in_cloud and t in graph.inputs
        else known[t]
        for t in graph.layers[index].inputs
    ]


def quantized_tensor(x: jax.Array, clip: Clip) -> jax.Array:
    """Quantizes and dequantizes a tensor; integers stay."""
    return fake_quant(x, *clip) if jnp.issubdtype(x.dtype, jnp.floating) else x


def advance(
    graph: LayerGraph,
    weights: GraphWeights,
    quantized: GraphWeights,
    assignment: Assignment,
    tensors: TwoNetworks,
    layers: Sequence[int],
) -> TwoNetworks:
    """Runs some layers in both networks, and drops what no later layer reads.

    Args:
      graph: traced function.
      weights: in float.
      quantized: those of the quantized network, on their levels.
      assignment: of the quantized network.
      tensors: before these layers.
      layers: indices that follow next, in topological order.

    Returns:
      The tensors behind them.
    """
    plain, moved = dict(tensors.plain), dict(tensors.quantized)
    for index in layers:
        layer = graph.layers[index]
        clips = [clip_of(graph, assignment, t) for t in layer.outputs]
        as_is = [(low, high, jnp.int32(FLOAT_BITS)) for low, high, _ in clips]
        inputs = layer_inputs(graph, assignment, moved, index)
        results = _run(layer, weights.layers[index], [plain[t] for t in layer.inputs], as_is)
        plain.update(zip(layer.outputs, results, strict=True))
        results = _run(layer, quantized.layers[index], inputs, clips)
        moved.update(zip(layer.outputs, results, strict=True))
        done = {t for t in plain if all(c <= index for c in graph.tensors[t].consumers)}
        plain = {t: x for t, x in plain.items() if t not in done}
        moved = {t: x for t, x in moved.items() if t not in done}
    return TwoNetworks(plain=plain, quantized=moved)


def _run(
    layer: Layer,
    own: LayerWeights,
    inputs: Sequence[jax.Array],
    clips: Sequence[Clip],
) -> list[jax.Array]:
    """Runs one layer on all calls, a few at a time."""

    def some(own: LayerWeights, inputs: Sequence[jax.Array], clips: Sequence[Clip]) -> list[Any]:
        results = jax.vmap(lambda leaves: run_layer(layer, own, leaves, own.weight))(inputs)
        return [quantized_tensor(y, clip) for y, clip in zip(results, clips, strict=True)]

    parts = [
        run_shared(some, own, [x[rows] for x in inputs], clips)
        for rows in call_parts(len(inputs[0]))
    ]
    by_output = zip(*parts, strict=True)
    return [jnp.concatenate(part) if len(part) > 1 else part[0] for part in by_output]


def call_parts(calls: int, most: int = _CALLS) -> list[slice]:
    """Returns slices of at most ``most`` calls, of one size where that divides them well."""
    even = max((size for size in range(1, most + 1) if calls % size == 0), default=1)
    size = even if 2 * even >= most else most
    return [slice(start, min(start + size, calls)) for start in range(0, max(calls, 1), size)]


def check_counts(steps: int, batch: int) -> None:
    """Raises `InputError` unless both are whole numbers of 1 or more."""
    for name, value in (("steps", steps), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}; expected a whole number of 1 or more.")
