"""Empirical bias correction: what quantized weights add to the mean of a channel is taken off.

Layer by layer in order, with everything before it quantized and corrected already:
``b_c <- b_c - E[(W_q - W) x]_c``, the mean over the calibration calls and all axes but the
channels.

Reference: Nagel et al. 2019 (arXiv 1906.04721), section 4.2. Deviation: their appendix D takes
the mean in float from the network in float, ``E[W_q x_q] - E[W x]``, which also moves what
earlier layers lost. On ResNet-18 with weights of 4 bits this made the network answer one class:
activations that rounding made smaller got back their mean before a ReLU, fewer of them passed
it, and so on in every layer. Here both weights see the same ``x``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from autosplit.graph import Layer, LayerGraph
from autosplit.graph.running import GraphWeights, LayerWeights, run_layer
from autosplit.profiling.assignment import (
    Assignment,
    Quantized,
    quantize_tensor,
    quantized_weights,
    run_assigned_layers,
)

MAX_CALLS = 32
"""All calls pass a layer together; more calls than these are thinned out evenly."""


def correct_biases(
    graph: LayerGraph, reference: GraphWeights, quantized: Quantized, calls: Sequence[jax.Array]
) -> Quantized:
    """Corrects the bias of every convolution and product for the error of its weight.

    A layer without bias gets one. Embeddings (a gather) are left as they are.

    Args:
      graph: traced function.
      reference: the weights before they were moved to a grid; equalized ones where
        ``quantized`` is equalized.
      quantized: what to correct.
      calls: flat inputs, each ``[m, *traced shape]``.

    Returns:
      The same with other biases.
    """
    levels = quantized_weights(quantized.weights, quantized.assignment)
    offsets = [
        None if own.weight is None or level.weight is None else own.weight - level.weight
        for own, level in zip(reference.layers, levels.layers, strict=True)
    ]
    return add_mean_of_offsets(graph, quantized, offsets, calls)


def add_mean_of_offsets(
    graph: LayerGraph,
    quantized: Quantized,
    offsets: Sequence[jax.Array | None],
    calls: Sequence[jax.Array],
) -> Quantized:
    """Adds what offsets of the weights would add on average: ``b_c <- b_c + E[offset x]_c``.

    Args:
      graph, quantized, calls: as for `correct_biases`.
      offsets: L arrays that broadcast to the weights; None without one.

    Returns:
      The same with other biases.
    """
    step = -(-len(calls[0]) // MAX_CALLS)
    few = [c[::step] for c in calls]
    biases = _biases(graph, quantized.weights, quantized.assignment, tuple(offsets), few)
    layers = tuple(
        dataclasses.replace(own, bias=biases.get(i, own.bias))
        for i, own in enumerate(quantized.weights.layers)
    )
    return dataclasses.replace(
        quantized, weights=dataclasses.replace(quantized.weights, layers=layers)
    )


@functools.partial(jax.jit, static_argnames=("graph",))
def _biases(
    graph: LayerGraph,
    weights: GraphWeights,
    assignment: Assignment,
    offsets: tuple[jax.Array | None, ...],
    calls: Sequence[jax.Array],
) -> dict[int, jax.Array]:
    """Returns the corrected bias by layer."""
    levels = list(quantized_weights(weights, assignment).layers)
    known = dict(zip(graph.inputs, calls, strict=True))
    # Graph inputs as the cloud reads them.
    sent = {t: quantize_tensor(graph, assignment, t, x) for t, x in known.items()}
    biases = {}
    for index, layer in enumerate(graph.layers):
        own, offset = levels[index], offsets[index]
        if has_channels(layer) and own.weight is not None and offset is not None:
            inputs = [
                jnp.where(assignment.on_edge[index], known[t], sent[t]) if t in sent else known[t]
                for t in layer.inputs
            ]
            alone = jnp.broadcast_to(offset, own.weight.shape).astype(own.weight.dtype)
            added = _mean(layer, dataclasses.replace(own, weight=alone, bias=None), inputs)
            biases[index] = added if own.bias is None else own.bias + added
            levels[index] = dataclasses.replace(own, bias=biases[index])
        known = _advanced(graph, levels, weights, assignment, known, sent, index)
    return biases


def _advanced(
    graph: LayerGraph,
    levels: Sequence[LayerWeights],
    weights: GraphWeights,
    assignment: Assignment,
    known: dict[int, jax.Array],
    sent: dict[int, jax.Array],
    index: int,
) -> dict[int, jax.Array]:
    """Runs one layer on all calls, and quantizes what it writes."""
    current = dataclasses.replace(weights, layers=tuple(levels))

    def one(known: dict[int, jax.Array], sent: dict[int, jax.Array]) -> dict[int, jax.Array]:
        return run_assigned_layers(graph, current, assignment, known, [index], sent=sent)

    return jax.vmap(one)(known, sent)


def has_channels(layer: Layer) -> bool:
    """Tells whether a layer has output channels that a bias can move."""
    return layer.weight is not None and bool(layer.weight.output_axes)


def anchor_alone(layer: Layer) -> Layer:
    """Returns a layer without what is fused behind its bias: it writes ``W x + b``."""
    assert layer.anchor is not None
    assert layer.folded is not None
    return dataclasses.replace(layer, equations=(layer.anchor,), output_values=(layer.folded,))


def _mean(layer: Layer, own: LayerWeights, inputs: Sequence[jax.Array]) -> jax.Array:
    """Returns the mean of ``W x + b`` by output channel, broadcastable to a call's output."""
    assert layer.weight is not None
    alone = anchor_alone(layer)
    (y,) = jax.vmap(lambda *leaves: run_layer(alone, own, leaves, own.weight))(*inputs)
    others = [a for a in range(y.ndim - 1) if a not in layer.weight.output_axes]
    return y.mean(axis=0).mean(axis=others, keepdims=True)
