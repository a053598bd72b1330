"""A block of layers as a function of its roundings and activation steps, on some calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights, LayerWeights, run_layer
from autosplit.profiling.assignment import Assignment
from autosplit.ptq.blocks import Block
from autosplit.ptq.shared_programs import run_shared
from autosplit.ptq.two_networks import (
    Clip,
    TwoNetworks,
    call_parts,
    clip_of,
    quantized_tensor,
)
from autosplit.ptq.weight_grid import WeightGrid, weight_grid
from autosplit.quant.affine import activation_grid
from autosplit.workload import FLOAT_BITS

MEASURED_CALLS = 16
"""Most calls that are measured together."""

Arrays = dict[int, Any]
"""Arrays by the index of a layer or tensor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockProgram:
    """What is fixed when a block is compiled.

    Attributes:
      graph: traced function.
      block: its layers.
      on_edge: a flag per layer of the graph.
    """

    graph: LayerGraph
    block: Block
    on_edge: tuple[bool, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockArrays:
    """What a block reads.

    Attributes:
      own: weights in float, by layer.
      grids: of the weights that are learned, by layer.
      levels: fake quantized weights, by layer with a weight.
      clips: of what the block writes, by tensor.
      inputs, sent: of all calls, by tensor; graph inputs as the edge and as the cloud reads them.
      targets: outputs in float, by tensor.
      importance: of the elements of the outputs, by tensor; no entry where all weigh the same.
    """

    own: dict[int, LayerWeights]
    grids: dict[int, WeightGrid]
    levels: Arrays
    clips: dict[int, Clip]
    inputs: Arrays
    sent: Arrays
    targets: Arrays
    importance: Arrays


def gather_block(
    program: BlockProgram,
    weights: GraphWeights,
    levels: GraphWeights,
    assignment: Assignment,
    tensors: TwoNetworks,
    importance: Mapping[int, jax.Array],
) -> BlockArrays:
    """Gathers what a block reads, and computes what it should give.

    Args:
      program: of the block.
      weights: in float.
      levels: fake quantized.
      assignment: bits and clips.
      tensors: before the block.
      importance: by tensor, ``[m, *shape]``.
    """
    graph, block = program.graph, program.block
    own = {i: weights.layers[i] for i in block.layers}
    grids = {}
    for i, one in own.items():
        spec = graph.layers[i].weight
        if spec is not None and spec.output_axes and one.weight is not None:
            grids[i] = weight_grid(one.weight, assignment, i)
    inputs = {t: tensors.quantized[t] for t in block.inputs}
    received = [t for t in block.inputs if t in graph.inputs]
    outputs = [t for t in block.outputs if graph.tensors[t].is_float]
    written = [t for i in block.layers for t in graph.layers[i].outputs]
    return BlockArrays(
        own=own,
        grids={i: grid for i, grid in grids.items() if grid is not None},
        levels={i: levels.layers[i].weight for i in own if own[i].weight is not None},
        clips={t: clip_of(graph, assignment, t) for t in written},
        inputs=inputs,
        sent={t: quantized_tensor(inputs[t], clip_of(graph, assignment, t)) for t in received},
        targets=_targets(program, own, {t: tensors.plain[t] for t in block.inputs}, outputs),
        importance={t: importance[t] for t in outputs if t in importance},
    )


def _targets(
    program: BlockProgram, own: dict[int, LayerWeights], inputs: Arrays, outputs: list[int]
) -> Arrays:
    """Returns the outputs of a block in float, for all calls."""
    if not inputs or not outputs:
        return {}

    def one(own: dict[int, LayerWeights], known: Arrays) -> Arrays:
        for i in program.block.layers:
            layer = program.graph.layers[i]
            results = run_layer(layer, own[i], [known[t] for t in layer.inputs], own[i].weight)
            known = {**known, **dict(zip(layer.outputs, results, strict=True))}
        return {t: known[t] for t in outputs}

    parts = [
        run_shared(jax.vmap(one, (None, 0)), own, {t: x[part] for t, x in inputs.items()})
        for part in call_parts(len(next(iter(inputs.values()))), MEASURED_CALLS)
    ]
    return jax.tree.map(lambda *ys: jnp.concatenate(ys), *parts)


def block_outputs(
    program: BlockProgram, arrays: BlockArrays, found: Arrays, growth: Arrays, rows: jax.Array
) -> Arrays:
    """Runs some calls through a block.

    Args:
      program: of the block.
      arrays: what it reads.
      found: weights by layer; others are those in float.
      growth: by tensor, the logarithm of the factor of its step; others stay.
      rows: i32[n], the calls.

    Returns:
      Its outputs by tensor, ``[n, *shape]``.
    """

    def one(known: Arrays, sent: Arrays) -> Arrays:
        for i in program.block.layers:
            layer, own = program.graph.layers[i], arrays.own[i]
            inputs = [
                sent[t] if t in sent and not program.on_edge[i] else known[t]
                for t in layer.inputs
            ]
            results = run_layer(layer, own, inputs, found.get(i, own.weight))
            for t, y in zip(layer.outputs, results, strict=True):
                known = {**known, t: stepped(y, arrays.clips[t], growth.get(t))}
        return {t: known[t] for t in arrays.targets}

    inputs, sent = ({t: x[rows] for t, x in a.items()} for a in (arrays.inputs, arrays.sent))
    return jax.vmap(one)(inputs, sent)


def stepped(x: jax.Array, clip: Clip, growth: jax.Array | None) -> jax.Array:
    """Quantizes with the step times ``exp(growth)``, straight through where it rounds.

    The derivative by the step is ``round(x / s) - x / s`` inside the clip, and its end's level
    outside, as in LSQ (Esser et al. 2020, arXiv 1902.08153, equation 3).
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    low, high, bits = clip
    scale, zero_point, top = activation_grid(low, high, bits)
    scale = scale if growth is None else scale * jnp.exp(growth)
    level = x / scale
    level = level + jax.lax.stop_gradient(jnp.round(level) - level) + zero_point
    # Not by clip, which halves the gradient of the first and the last level.
    level = jnp.where(level > top, top, jnp.where(level < 0, 0.0, level))
    return jnp.where(bits >= FLOAT_BITS, x, ((level - zero_point) * scale).astype(x.dtype))


def block_error(
    program: BlockProgram, arrays: BlockArrays, found: Arrays, growth: Arrays, rows: jax.Array
) -> jax.Array:
    """Returns the weighted squared distance of a block's outputs to those in float."""
    outputs = block_outputs(program, arrays, found, growth, rows)
    return _distance(arrays, outputs, {t: x[rows] for t, x in arrays.targets.items()}, rows)


def rounding_error(program: BlockProgram, arrays: BlockArrays, rows: jax.Array) -> jax.Array:
    """Returns the part of `block_error` that nearest rounding of the block's weights makes."""
    rounded = block_outputs(program, arrays, arrays.levels, {}, rows)
    return _distance(arrays, rounded, block_outputs(program, arrays, {}, {}, rows), rows)


def _distance(
    arrays: BlockArrays, outputs: Arrays, wanted: Arrays, rows: jax.Array
) -> jax.Array:
    total = jnp.float32(0)
    for t, y in outputs.items():
        square = (y.astype(jnp.float32) - wanted[t].astype(jnp.float32)) ** 2
        if t in arrays.importance:
            square *= arrays.importance[t][rows].astype(jnp.float32)
        total += jnp.sum(square)
    return total
