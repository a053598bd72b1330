"""Runs plans on photographs by one compiled program, and scores what they answer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import autosplit
from autosplit.evaluation.coco import evaluate_detections
from autosplit.graph.running import GraphWeights, flat_outputs
from autosplit.profiling.assignment import (
    Assignment,
    assignment_of,
    quantize_tensor,
    quantized_weights,
    relative_error,
    run_assigned_layers,
    weight_clips,
)
from autosplit.profiling.image_codecs import decode_roundtrip
from autosplit.profiling.many_assignments import with_weights
from autosplit.workload import FLOAT_BITS
from experiments.detections import in_photographs
from experiments.photograph_chunks import filled_chunks
from experiments.quantize_scores import score_logits
from experiments.workload_case import Case

Scores = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """What a network says of N photographs.

    Attributes:
      compared: f32[N, ...]: the logits, or a detector's raw heads. Found boxes jump when
        two scores change places; heads do not.
      outputs: flat outputs, each with a first axis N.
    """

    compared: list[Any]
    outputs: list[Any]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Runner:
    """Runs the plans of a case.

    Attributes:
      case: loaded when the first plan runs.
      first: so many photographs, from the first on; None for all.
    """

    case: Case
    first: int | None = None

    @functools.cached_property
    def reference(self) -> Answers:
        """What the network says in float."""
        self.case.checked_profile()
        return self._answers(float_assignment(self.case.graph, self.case.weights), self._images)

    @property
    def _images(self) -> np.ndarray:
        return self.case.job.photographs.images[: self.first]

    def scores(self, plan: autosplit.SplitPlan | None) -> Scores:
        """Scores a plan against the truth, where it is known, and against float.

        Args:
          plan: None is the float network.

        Returns:
          Of a classifier ``images``, ``top1``, ``top5`` (None without labels), ``agreement``
          and ``output_error``; of a detector ``images``, ``map``, ``map50`` (None without
          boxes) and ``output_error``, which is that of the raw heads.
        """
        reference = self.reference
        found = reference if plan is None else self._run(plan)
        job = self.case.job
        if not self.case.is_detector:
            labels = job.photographs.labels
            known = None if labels is None else labels[: self.first]
            return score_logits(reference.compared[0][:, 0], known, found.compared[0][:, 0])
        usable = all(np.isfinite(head).all() for head in found.compared)
        error = relative_error(found.compared, reference.compared) if usable else float("inf")
        some = job.truth is None or self.first is not None
        mean_ap = (None, None) if some else self._mean_ap(found)
        return {"images": len(self._images), "map": mean_ap[0], "map50": mean_ap[1],
                "output_error": error}  # fmt: skip

    def _run(self, plan: autosplit.SplitPlan) -> Answers:
        graph, weights = self.case.graph, self.case.weights
        images = self._images
        if plan.error_is_predicted:
            return self._answers(assignment_of(graph, weights, plan), images)
        quality = int(plan.encoding.removeprefix("jpeg-q"))
        return self._answers(float_assignment(graph, weights), decode_roundtrip(images, quality))

    def _answers(self, assignment: Assignment, images: np.ndarray) -> Answers:
        case = self.case
        graph, weights = case.graph, case.weights
        heads = graph.layers[-1].inputs if case.is_detector else ()
        own = with_weights(weights, _quantize(weights, assignment))
        parts = []
        for part, valid in filled_chunks(images, case.config.evaluation.chunk):
            calls = jnp.asarray(case.job.normalize(part)[:, None])
            found = run_plan(graph, own, assignment, calls, heads)
            parts.append(jax.tree.map(lambda leaf, valid=valid: np.asarray(leaf)[:valid], found))
        outputs, compared = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        return Answers(compared=compared or outputs[:1], outputs=outputs)

    def _mean_ap(self, found: Answers) -> tuple[float | None, float | None]:
        case, truth = self.case, self.case.job.truth
        assert truth is not None
        boxes = jax.tree.unflatten(case.graph.out_tree, [leaf[:, 0] for leaf in found.outputs])
        scores = evaluate_detections(in_photographs(boxes, case.job.photographs), truth)
        # Where there is nothing to find they are no numbers.
        ap, ap50 = (None if math.isnan(ap) else ap for ap in (scores.ap, scores.ap50))
        return ap, ap50


def float_assignment(graph: autosplit.LayerGraph, weights: GraphWeights) -> Assignment:
    """Returns the assignment that quantizes nothing, of the same form as all others."""
    layers, tensors = len(graph.layers), len(graph.tensors)
    return Assignment(
        on_edge=jnp.zeros(layers, bool),
        w_bits=jnp.full(layers, FLOAT_BITS, jnp.int32),
        w_high=weight_clips(graph, weights, np.ones(layers)),
        a_bits=jnp.full(tensors, FLOAT_BITS, jnp.int32),
        a_low=jnp.zeros(tensors),
        a_high=jnp.ones(tensors),
    )


@jax.jit
def _quantize(weights: GraphWeights, assignment: Assignment) -> list[jax.Array | None]:
    return [layer.weight for layer in quantized_weights(weights, assignment).layers]


@functools.partial(jax.jit, static_argnames=("graph", "kept"))
def run_plan(
    graph: autosplit.LayerGraph,
    weights: GraphWeights,
    assignment: Assignment,
    calls: jax.Array,
    kept: Sequence[int],
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Runs calls under an assignment.

    Args:
      graph: traced with one input.
      weights: quantized already.
      assignment: bits and clips of the tensors.
      calls: ``[m, *traced shape]``.
      kept: tensors to return.

    Returns:
      Flat outputs, and the tensors, each with a first axis m.
    """

    def one(call: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        (place,) = graph.inputs
        sent = {place: quantize_tensor(graph, assignment, place, call)}
        every = range(len(graph.layers))
        known = run_assigned_layers(graph, weights, assignment, {place: call}, every, sent=sent)
        return flat_outputs(graph, weights, known), [known[tensor] for tensor in kept]

    return jax.vmap(one)(calls)
