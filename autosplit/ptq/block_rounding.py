"""Learns the rounding of all weights of a block together, and the steps of its activations.

A loop in Python over one compiled step: convolutions inside a compiled loop are about ten times
slower on XLA:CPU.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.assignment import Assignment
from autosplit.ptq.block_loss import (
    MEASURED_CALLS,
    Arrays,
    BlockArrays,
    BlockProgram,
    block_error,
    gather_block,
    rounding_error,
)
from autosplit.ptq.blocks import Block
from autosplit.ptq.layer_rounding import RoundingOptions
from autosplit.ptq.shared_programs import compiled, run_shared
from autosplit.ptq.two_networks import TwoNetworks, call_parts
from autosplit.ptq.weight_grid import hard_levels, soft_levels, start_of
from autosplit.quant.rounding import WARM_UP, beta_at, rounding_loss
from autosplit.workload import FLOAT_BITS

_FEWEST_POSITIONS = 400  # output pixels in a step: eight maps of 7 x 7
_CLIP_RATE = 1e-3  # of the logarithm of an activation's step
_OPTIMIZER = optax.scale_by_adam()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedBlock:
    """What the reconstruction of a block found.

    Attributes:
      weights: by layer, on their grids.
      clips: low and high by tensor, where they were learned.
      error: of the block's outputs on all calls, over that of nearest rounding; at most 1.
    """

    weights: Arrays
    clips: dict[int, tuple[jax.Array, jax.Array]]
    error: float


def learn_block(
    graph: LayerGraph,
    weights: GraphWeights,
    levels: GraphWeights,
    assignment: Assignment,
    tensors: TwoNetworks,
    block: Block,
    *,
    options: RoundingOptions,
    batch: int,
    seed: int,
    learn_clips: bool,
    importance: Mapping[int, jax.Array] | None = None,
) -> LearnedBlock | None:
    """Learns the rounding of a block's weights, with the clips of what it writes if wanted.

    Args:
      graph: traced function.
      weights: in float.
      levels: on their levels, nearest in this block.
      assignment: bits and clips.
      tensors: before the block.
      block: its layers.
      options: of the optimizer.
      batch: most calls in a step; fewer where these have pixels enough.
      seed: orders the calls.
      learn_clips: learn the steps of quantized activations too.
      importance: of the elements of an output, ``[m, *shape]`` by tensor; mean 1.

    Returns:
      What was found, or None where nothing can be learned.
    """
    on_edge = tuple(bool(flag) for flag in np.asarray(assignment.on_edge))
    program = BlockProgram(graph=graph, block=block, on_edge=on_edge)
    arrays = gather_block(program, weights, levels, assignment, tensors, importance or {})
    learnable = [t for t in arrays.clips if learn_clips and _is_quantized(graph, assignment, t)]
    read = [*arrays.inputs.values(), *arrays.targets.values()]
    if not (arrays.grids or learnable) or not arrays.targets or any(x.size == 0 for x in read):
        return None
    calls = len(read[0])
    order = _order(calls, _calls_in_step(graph, block, calls, batch), options.steps, seed)
    v, growth = _minimize(program, arrays, learnable, order, options)
    return _better(program, arrays, v, growth, calls)


def _is_quantized(graph: LayerGraph, assignment: Assignment, tensor: int) -> bool:
    return graph.tensors[tensor].is_float and int(assignment.a_bits[tensor]) < FLOAT_BITS


def _calls_in_step(graph: LayerGraph, block: Block, calls: int, batch: int) -> int:
    """Returns as few calls as have enough pixels, at least 2 and at most ``batch``."""
    positions = [1]
    for layer in (graph.layers[i] for i in block.layers):
        if layer.weight is not None:
            size = graph.tensors[layer.outputs[0]].size
            positions.append(size // max(layer.weight.channels, 1))
    enough = math.ceil(_FEWEST_POSITIONS / max(min(positions[1:] or positions), 1))
    return min(max(enough, 2), batch, calls)


def _order(calls: int, size: int, steps: int, seed: int) -> jax.Array:
    """Returns the calls of each step, i32[steps, size]: every call once, then again."""
    random = np.random.default_rng(seed)
    rounds = math.ceil(steps * size / calls)
    drawn = np.concatenate([random.permutation(calls) for _ in range(rounds)])
    return jnp.asarray(drawn[: steps * size].reshape(steps, size).astype(np.int32))


def _sum_over_calls(
    function: Callable[..., jax.Array], calls: int, *arguments: Any
) -> float:
    parts = call_parts(calls, MEASURED_CALLS)
    rows = [jnp.arange(part.start, part.stop) for part in parts]
    return sum(float(run_shared(function, *arguments, r)) for r in rows)


def _minimize(
    program: BlockProgram,
    arrays: BlockArrays,
    learnable: list[int],
    order: jax.Array,
    options: RoundingOptions,
) -> tuple[Arrays, Arrays]:
    """Runs Adam; returns V by layer and the logarithm of the steps' factors by tensor."""
    calls = len(next(iter(arrays.inputs.values())))
    own = _sum_over_calls(functools.partial(rounding_error, program), calls, arrays) / calls
    count = sum(grid.floor.size for grid in arrays.grids.values())
    parameters = (
        {i: start_of(_weight(arrays, i), grid) for i, grid in arrays.grids.items()},
        dict.fromkeys(learnable, jnp.float32(0)),
    )
    state = (parameters, _OPTIMIZER.init(parameters))
    # Without an error of the roundings (none are learned) the unit means nothing.
    unit = count / own if count and own else 1.0
    settings = jnp.array([options.steps, options.learning_rate, options.strength, unit])
    step = functools.partial(_step, program)
    run = compiled(step, state, arrays, order[0], jnp.float32(0), settings)
    for number, rows in enumerate(order):
        state = run(state, arrays, rows, jnp.float32(number), settings)
    return state[0]


def _weight(arrays: BlockArrays, layer: int) -> jax.Array:
    weight = arrays.own[layer].weight
    assert weight is not None
    return weight


def _step(
    program: BlockProgram,
    state: Any,
    arrays: BlockArrays,
    rows: jax.Array,
    number: jax.Array,
    settings: jax.Array,
) -> Any:
    """Takes one step of Adam; the rate of the activations' steps falls along a cosine."""
    parameters, moments = state
    steps, rate, strength, unit = settings
    strength = jnp.where(number >= WARM_UP * steps, strength, 0.0)
    beta = beta_at(number, steps)

    def loss(parameters: tuple[Arrays, Arrays]) -> jax.Array:
        v, growth = parameters
        soft = {
            i: soft_levels(one, arrays.grids[i]).astype(arrays.levels[i].dtype)
            for i, one in v.items()
        }
        rebuilt = block_error(program, arrays, soft, growth, rows) / len(rows)
        rounding = sum((rounding_loss(one, beta) for one in v.values()), jnp.float32(0))
        return unit * rebuilt + strength * rounding

    updates, moments = _OPTIMIZER.update(jax.grad(loss)(parameters), moments)
    rates = (rate, _CLIP_RATE * 0.5 * (1 + jnp.cos(jnp.pi * number / steps)))
    scaled = tuple(
        jax.tree.map(lambda u, r=r: -r * u, update)
        for update, r in zip(updates, rates, strict=True)
    )
    return optax.apply_updates(parameters, scaled), moments


def _better(
    program: BlockProgram, arrays: BlockArrays, v: Arrays, growth: Arrays, calls: int
) -> LearnedBlock:
    """Rounds for good, and keeps the result where it beats nearest rounding on all calls."""
    hard = {
        i: hard_levels(one, arrays.grids[i]).astype(arrays.levels[i].dtype)
        for i, one in v.items()
    }
    error = functools.partial(block_error, program)
    still = dict.fromkeys(growth, jnp.float32(0))
    nearest = _sum_over_calls(error, calls, arrays, arrays.levels, still)
    learned = _sum_over_calls(error, calls, arrays, {**arrays.levels, **hard}, growth)
    if learned > nearest:
        plain = {i: arrays.levels[i] for i in hard}
        return LearnedBlock(weights=plain, clips={}, error=1.0)
    clips = {
        t: (arrays.clips[t][0] * jnp.exp(g), arrays.clips[t][1] * jnp.exp(g))
        for t, g in growth.items()
    }
    return LearnedBlock(weights=hard, clips=clips, error=learned / nearest if nearest else 1.0)
