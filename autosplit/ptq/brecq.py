"""BRECQ: rounds the weights of each block of layers so that the block's output stays.

As `autosplit.ptq.adaround`, but the squared error is that of a block's outputs, weighted by the
squared gradients of the network's output loss, over all its weights together; where activations
are quantized, the steps of their grids are learned with them.

Reference: Li et al. 2021 (arXiv 2102.05426), equation 10 and algorithm 1. Deviations: weights
and activation steps are learned in one pass; the gradients are of a Gauss-Newton probe
(`autosplit.ptq.importance`); fewer steps; a block that came out worse than nearest rounding
keeps that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.assignment import Assignment, Quantized, quantized_weights
from autosplit.ptq.block_rounding import LearnedBlock, learn_block
from autosplit.ptq.blocks import find_blocks
from autosplit.ptq.importance import importance_of
from autosplit.ptq.layer_rounding import RoundingOptions
from autosplit.ptq.two_networks import advance, at_inputs, check_counts


def brecq(
    graph: LayerGraph,
    weights: GraphWeights,
    assignment: Assignment,
    calls: Sequence[jax.Array],
    *,
    steps: int = 1000,
    batch: int = 16,
    seed: int = 0,
    labels: Any = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Quantized:
    """Learns the rounding of all weights, and the clips of activations, block by block.

    Weights in float, of one symmetric bit, and tables that are looked up are left to nearest
    rounding.

    Args:
      graph: traced function.
      weights: in float, from `prepare` (perhaps equalized).
      assignment: bits and clips.
      calls: flat inputs, each ``[m, *traced shape]``.
      steps: of Adam for each block.
      batch: most calls in a step.
      seed: of the order of the calls.
      labels: class of each image, for the gradients; by default the network's own predictions.
      on_progress: told in a line what each block gained.

    Returns:
      The weights on their grids, so that fake quantization leaves them, and the assignment with
      the learned clips of activations.

    Raises:
      InputError: ``steps`` or ``batch`` is below 1, or there are labels and no classes.
    """
    check_counts(steps, batch)
    blocks = find_blocks(graph)
    outputs = [t for block in blocks for t in block.outputs]
    importance = importance_of(graph, weights, calls, outputs, labels=labels, seed=seed)
    tensors = at_inputs(graph, calls)
    quantized = Quantized(weights=weights, assignment=assignment)
    for number, block in enumerate(blocks):
        levels = quantized_weights(quantized.weights, quantized.assignment)
        found = learn_block(
            graph, weights, levels, quantized.assignment, tensors, block,
            options=RoundingOptions(steps=steps), batch=batch, seed=seed + number,
            learn_clips=True, importance=importance,
        )  # fmt: skip
        if found is not None:
            quantized = _with_block(quantized, found)
            levels = quantized_weights(quantized.weights, quantized.assignment)
            names = [graph.layers[i].name for i in (block.layers[0], block.layers[-1])]
            on_progress(
                f"brecq: {number + 1} of {len(blocks)} {' to '.join(names)}, error "
                f"{found.error:.2f} of nearest"
            )
        tensors = advance(
            graph, weights, levels, quantized.assignment, tensors, block.layers
        )
    return quantized


def _with_block(quantized: Quantized, found: LearnedBlock) -> Quantized:
    layers = tuple(
        dataclasses.replace(own, weight=found.weights[i]) if i in found.weights else own
        for i, own in enumerate(quantized.weights.layers)
    )
    low, high = quantized.assignment.a_low, quantized.assignment.a_high
    for tensor, (lower, upper) in found.clips.items():
        low, high = low.at[tensor].set(lower), high.at[tensor].set(upper)
    return Quantized(
        weights=dataclasses.replace(quantized.weights, layers=layers),
        assignment=dataclasses.replace(quantized.assignment, a_low=low, a_high=high),
    )
