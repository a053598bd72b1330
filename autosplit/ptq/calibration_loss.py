"""The loss of a quantized network on calibration calls, as one compiled program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from autosplit.errors import InputError
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.assignment import Assignment, quantized_weights, run_assignment
from autosplit.profiling.error import channel_axes
from autosplit.quant.weight_correction import corrected_weight

CROSS_ENTROPY, DIVERGENCE, OUTPUT_ERROR = "cross-entropy", "divergence", "output error"


def loss_kind(graph: LayerGraph, labels: Any) -> str:
    """Chooses the loss.

    Args:
      graph: traced function.
      labels: class of each image of the calibration batch, or None.

    Returns:
      ``"cross-entropy"`` where there are labels; else, for one output of two axes, the
      ``"divergence"`` ``KL(softmax(float) || softmax(quantized))``; else the relative
      ``"output error"``.

    Raises:
      InputError: labels are given for a function that is no classifier.
    """
    shapes = graph.output_shapes
    classifier = len(shapes) == 1 and len(shapes[0][0]) == 2 and jnp.issubdtype(
        shapes[0][1], jnp.floating
    )
    if labels is None:
        return DIVERGENCE if classifier else OUTPUT_ERROR
    if not classifier:
        raise InputError(
            f"labels are given, but the function returns {[s for s, _ in shapes]}; expected one "
            "output of the shape [N, classes]. Leave the labels out."
        )
    return CROSS_ENTROPY


@functools.partial(jax.jit, static_argnames=("graph", "kind", "corrected"))
def calibration_loss(
    graph: LayerGraph,
    kind: str,
    corrected: bool,
    weights: GraphWeights,
    assignment: Assignment,
    calls: Sequence[jax.Array],
    target: Any,
) -> jax.Array:
    """Computes the loss under an assignment, which is an argument: no second compilation.

    Args:
      graph, kind: static; the kind is from `loss_kind`.
      corrected: static; the loss is that of weights whose mean and deviation are repaired
        (`autosplit.quant.weight_correction`).
      weights: in float.
      assignment: bits and clips.
      calls: flat inputs, each ``[m, *traced shape]``.
      target: labels i32[m, N] for ``"cross-entropy"``, else the outputs in float.

    Returns:
      f32[], the mean over images, or the relative error.
    """
    levels = quantized_weights(weights, assignment)
    if corrected:
        levels = _corrected(graph, weights, levels)
    outputs = jax.vmap(lambda leaves: run_assignment(graph, levels, assignment, leaves))(
        list(calls)
    )
    if kind == OUTPUT_ERROR:
        return _output_error(outputs, target)
    logs = jax.nn.log_softmax(outputs[0].astype(jnp.float32))
    if kind == CROSS_ENTROPY:
        return -jnp.take_along_axis(logs, target[..., None], axis=-1).mean()
    wanted = jax.nn.log_softmax(target[0].astype(jnp.float32))
    return jnp.sum(jnp.exp(wanted) * (wanted - logs), axis=-1).mean()


def _corrected(graph: LayerGraph, weights: GraphWeights, levels: GraphWeights) -> GraphWeights:
    layers = [
        level
        if own.weight is None or level.weight is None
        else dataclasses.replace(
            level, weight=corrected_weight(own.weight, level.weight, channel_axes(graph, index))
        )
        for index, (own, level) in enumerate(zip(weights.layers, levels.layers, strict=True))
    ]
    return dataclasses.replace(levels, layers=tuple(layers))


def _output_error(outputs: Sequence[jax.Array], target: Sequence[jax.Array]) -> jax.Array:
    pairs = [
        (y.astype(jnp.float32), f.astype(jnp.float32))
        for y, f in zip(outputs, target, strict=True)
        if jnp.issubdtype(f.dtype, jnp.floating)
    ]
    distance = sum((jnp.sum((y - f) ** 2) for y, f in pairs), start=jnp.float32(0))
    norm = sum((jnp.sum(f**2) for _, f in pairs), start=jnp.float32(0))
    return distance / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)
