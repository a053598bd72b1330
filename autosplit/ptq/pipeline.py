"""``autosplit.quantize``: a network and a recipe in, weights and an assignment out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights, prepare
from autosplit.profiling.assignment import Assignment, Quantized, float_outputs
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.output_scores import label_rows
from autosplit.ptq.bias_correction import correct_biases
from autosplit.ptq.calibration_loss import (
    CROSS_ENTROPY,
    calibration_loss,
    loss_kind,
)
from autosplit.ptq.channel_allocation import allocate_bits
from autosplit.ptq.clips import (
    Shapes,
    assignment_for,
    clip_tensors,
    clip_weights,
    collect_shapes,
    given_bits,
)
from autosplit.ptq.equalization import equalize
from autosplit.ptq.lapq import Loss, joint_search, lp_start, named_start
from autosplit.ptq.recipe import Recipe
from autosplit.ptq.weight_correction import correct_weights
from autosplit.quant.clipping import clip_rule

OnProgress = Callable[[str], None]

_LOSS_CALLS = 32
"""Calls that the loss runs together."""


def quantize(
    graph: LayerGraph,
    params: Any,
    calibration: Any,
    recipe: Recipe,
    *,
    labels: Any = None,
    seed: int = 0,
    on_progress: OnProgress = lambda _: None,
) -> Quantized:
    """Quantizes a network after training.

    In this order: equalization, statistics and clips, bits by channel, joint search,
    rounding, correction; each as the recipe says.

    Args:
      graph: traced function.
      params: its parameters.
      calibration: one input (or the tuple of inputs) with a first axis that is a multiple
        of the traced one.
      recipe: bits and methods.
      labels: class of each image of the batch, for the cross-entropy of LAPQ and the gradients
        of BRECQ; without them the outputs in float take their place.
      seed: of the batches that learned rounding draws.
      on_progress: told in a line what is being done.

    Returns:
      Weights and assignment; run them with `autosplit.profiling.assignment.assignment_outputs`.

    Raises:
      CalibrationError: the batch is empty, misshapen or not finite.
      InputError: the recipe or the labels do not fit the graph.
    """
    calls = [jnp.asarray(c) for c in calibration_calls(graph, calibration)]
    # Before anything takes time.
    given_bits(graph, recipe)
    if recipe.joint == "lapq" and loss_kind(graph, labels) == CROSS_ENTROPY:
        label_rows(graph, labels, len(calls[0]))
    weights = prepare(graph, params)
    if recipe.equalize:
        found = equalize(graph, weights)
        on_progress(
            f"equalize: {len(found.pairs)} pairs of layers, {len(found.skipped)} left out for "
            "their activation"
        )
        weights = found.weights
    on_progress(f"clips: histograms over {len(calls[0])} calls")
    shapes = collect_shapes(
        graph, weights, calls, recipe.granularity, by_layer=recipe.joint == "lapq"
    )
    quantized = Quantized(weights=weights, assignment=_clipped(graph, weights, recipe, shapes))
    if recipe.joint == "lapq":
        assignment = _joint(
            graph, recipe, weights, shapes, quantized.assignment, calls, labels, on_progress
        )
        quantized = dataclasses.replace(quantized, assignment=assignment)
    quantized = _rounded(graph, recipe, quantized, calls, labels, seed, on_progress)
    if recipe.correct == "weights":
        return correct_weights(graph, quantized, calls)
    if recipe.correct == "bias":
        on_progress("bias correction")
        return correct_biases(graph, weights, quantized, calls)
    return quantized


def _clipped(
    graph: LayerGraph, weights: GraphWeights, recipe: Recipe, shapes: Shapes
) -> Assignment:
    """Returns the clips of all weights and tensors, each at its own bits."""
    assignment = assignment_for(graph, recipe, shapes)
    if recipe.channel_bits:
        assignment = allocate_bits(graph, weights, assignment)
    assignment = clip_weights(shapes, assignment, clip_rule(recipe.weight_clipping))
    rule = clip_rule(recipe.activation_clipping)
    return clip_tensors(shapes, assignment, rule, recipe.symmetric_activations)


def _joint(
    graph: LayerGraph,
    recipe: Recipe,
    weights: GraphWeights,
    shapes: Shapes,
    assignment: Assignment,
    calls: Sequence[jax.Array],
    labels: Any,
    on_progress: OnProgress,
) -> Assignment:
    """Returns the clips that LAPQ finds."""
    loss = loss_of(
        graph, weights, calls, labels, images=recipe.lapq_images,
        corrected=recipe.correct == "weights",
    )  # fmt: skip
    symmetric = recipe.symmetric_activations
    if recipe.lapq_init == "lp":
        start, p = lp_start(shapes, assignment, loss, symmetric_activations=symmetric)
        on_progress(f"lapq: starts from the clips of p = {p:.3g}")
    else:
        start = named_start(
            recipe.lapq_init, shapes, assignment, symmetric_activations=symmetric
        )
    found = joint_search(
        graph, start, loss, evaluations=recipe.lapq_evaluations,
        iterations=recipe.lapq_iterations, on_progress=on_progress,
    )  # fmt: skip
    on_progress(
        f"lapq: loss {found.start_loss:.4g} to {found.loss:.4g} in {found.evaluations} evaluations"
    )
    return found.assignment


def loss_of(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[jax.Array],
    labels: Any = None,
    *,
    images: int = 0,
    corrected: bool = False,
) -> Loss:
    """Returns the calibration loss as a function of an assignment.

    Args:
      graph: traced function.
      weights: in float.
      calls: flat inputs, each ``[m, *traced shape]``.
      labels: see `loss_kind`.
      images: calls to use, evenly taken; 0 for all. Above 32 a multiple of 32 is used.
      corrected: see `calibration_loss`.
    """
    kind = loss_kind(graph, labels)
    count = len(calls[0])
    used = min(images or count, count)
    used -= used % _LOSS_CALLS if used > _LOSS_CALLS else 0
    rows = np.arange(used) * count // used
    arranged = label_rows(graph, labels, count) if kind == CROSS_ENTROPY else None
    chunks = []
    for part in np.array_split(rows, max(used // _LOSS_CALLS, 1)):
        few = [c[part] for c in calls]
        target = float_outputs(graph, weights, few) if arranged is None else arranged[part]
        chunks.append((few, target))
    compute = functools.partial(calibration_loss, graph, kind, corrected, weights)

    def loss(assignment: Assignment) -> float:
        return float(np.mean([compute(assignment, few, target) for few, target in chunks]))

    return loss


def _rounded(
    graph: LayerGraph,
    recipe: Recipe,
    quantized: Quantized,
    calls: Sequence[jax.Array],
    labels: Any,
    seed: int,
    on_progress: OnProgress,
) -> Quantized:
    """Learns the rounding of the weights, if the recipe says so."""
    if recipe.rounding == "nearest":
        return quantized
    # Optimizers take a second to import, and most recipes need none.
    from autosplit.ptq.adaround import adaround
    from autosplit.ptq.brecq import brecq

    by_block = functools.partial(brecq, labels=labels)
    learn: Callable[..., Quantized] = adaround if recipe.rounding == "adaround" else by_block
    return learn(
        graph, quantized.weights, quantized.assignment, calls, steps=recipe.rounding_steps,
        batch=min(recipe.rounding_batch, len(calls[0])), seed=seed, on_progress=on_progress,
    )  # fmt: skip
