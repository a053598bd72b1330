"""AdaRound: rounds the weights of each layer up or down so that its output stays.

``min_V E|| act(W x + b) - act(W~(V) x~ + b) ||^2 + strength sum(1 - |2 h(V) - 1|^beta)``, layer
by layer in order. ``x~`` is what the quantized network gives so far, with its activations in
few bits where the assignment says so; ``x`` and the target are of the network in float.

Reference: Nagel et al. 2020 (arXiv 2004.10568), equations 21 to 25. Deviations: the steps are
fewer (the published 10,000 take an hour on a CPU); losses are over sampled output positions;
the reconstruction error is in units of what nearest rounding adds, so one strength fits layers
of any scale; a channel that came out worse than nearest rounding keeps that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax

from autosplit.graph import Layer, LayerGraph
from autosplit.graph.running import GraphWeights, LayerWeights
from autosplit.profiling.assignment import Assignment, Quantized, quantized_weights
from autosplit.ptq.block_rounding import learn_block
from autosplit.ptq.blocks import block_of
from autosplit.ptq.layer_rounding import RoundingOptions, learn_layer
from autosplit.ptq.products import product_form
from autosplit.ptq.two_networks import (
    TwoNetworks,
    advance,
    at_inputs,
    check_counts,
    layer_inputs,
)
from autosplit.ptq.weight_grid import weight_grid


def adaround(
    graph: LayerGraph,
    weights: GraphWeights,
    assignment: Assignment,
    calls: Sequence[jax.Array],
    *,
    steps: int = 1000,
    batch: int = 16,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Quantized:
    """Learns the rounding of all weights, layer by layer.

    Weights in float, of one symmetric bit, and tables that are looked up (each entry is its
    own output, so nearest is best) are left to nearest rounding.

    Args:
      graph: traced function.
      weights: in float, from `prepare` (perhaps equalized).
      assignment: bits and clips.
      calls: flat inputs, each ``[m, *traced shape]``.
      steps: of Adam for each layer.
      batch: calls in a step.
      seed: of the positions and calls that the steps see.
      on_progress: told in a line what each layer gained.

    Returns:
      The weights on their grids, so that fake quantization leaves them, and the assignment.

    Raises:
      InputError: ``steps`` or ``batch`` is below 1.
    """
    check_counts(steps, batch)
    options = RoundingOptions(steps=steps)
    tensors = at_inputs(graph, calls)
    levels = quantized_weights(weights, assignment)
    learned = list(weights.layers)
    count = sum(own.weight is not None for own in learned)
    for index, layer in enumerate(graph.layers):
        own = learned[index]
        if _can_learn(layer, own):
            found = _learn(
                graph, weights, levels, assignment, tensors, index,
                options=options, batch=batch, seed=seed,
            )  # fmt: skip
            if found is not None:
                weight, error = found
                learned[index] = dataclasses.replace(own, weight=weight)
                done = sum(one.weight is not None for one in learned[: index + 1])
                on_progress(
                    f"adaround: {done} of {count} {layer.name}, error {error:.2f} of nearest"
                )
                levels = _with_layer(levels, index, learned[index])
        tensors = advance(graph, weights, levels, assignment, tensors, [index])
    return Quantized(
        weights=dataclasses.replace(weights, layers=tuple(learned)), assignment=assignment
    )


def _can_learn(layer: Layer, own: LayerWeights) -> bool:
    return own.weight is not None and layer.weight is not None and bool(layer.weight.output_axes)


def _with_layer(weights: GraphWeights, index: int, own: LayerWeights) -> GraphWeights:
    layers = (*weights.layers[:index], own, *weights.layers[index + 1 :])
    return dataclasses.replace(weights, layers=layers)


def _learn(
    graph: LayerGraph,
    weights: GraphWeights,
    levels: GraphWeights,
    assignment: Assignment,
    tensors: TwoNetworks,
    index: int,
    *,
    options: RoundingOptions,
    batch: int,
    seed: int,
) -> tuple[jax.Array, float] | None:
    """Returns a layer's weight and its error over nearest; None where nothing is free."""
    layer, own = graph.layers[index], weights.layers[index]
    assert own.weight is not None
    grid = weight_grid(own.weight, assignment, index)
    if grid is None or not all(x.size for x in tensors.plain.values()):
        return None
    form = product_form(layer)
    if form is None:
        # Transposed convolutions and batched products: as a block of one layer.
        outcome = learn_block(
            graph, weights, levels, assignment, tensors, block_of(graph, [index]),
            options=options, batch=batch, seed=seed, learn_clips=False,
        )  # fmt: skip
        return None if outcome is None else (outcome.weights[index], outcome.error)
    moved = layer_inputs(graph, assignment, tensors.quantized, index)[0]
    result = learn_layer(
        layer, form, own, grid, tensors.plain[layer.inputs[0]], moved,
        options=options, batch=batch, seed=seed + index,
    )  # fmt: skip
    return result.weight, result.error
