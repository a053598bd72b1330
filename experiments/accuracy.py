"""Counts how often the float network, the split run and the baselines are right."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import autosplit
from autosplit.data import normalize
from autosplit.execution.assignment import assignment_of, assignment_outputs, float_outputs
from autosplit.graph.running import prepare
from autosplit.profiling.image_codecs import decode_roundtrip
from autosplit.reporting import Accuracy
from experiments.steps import Job


def accuracies_of(
    job: Job,
    graph: autosplit.LayerGraph,
    plans: autosplit.Plans,
    chosen: autosplit.SplitPlan,
    outputs: np.ndarray,
) -> tuple[list[Accuracy], np.ndarray]:
    """Evaluates on all photographs.

    Args:
      job: with the photographs.
      graph: traced network.
      plans: with the baselines.
      chosen: the plan that was run.
      outputs: f32[N, classes], what the two processes answered.

    Returns:
      One `Accuracy` each for float, the chosen plan (as it ran in two processes),
      uniform 8-bit and every JPEG quality, and the float logits. Empty list without labels.
    """
    weights = jax.jit(lambda p: prepare(graph, p))(job.variables)
    reference = _float(graph, weights, job.inputs)
    logits = {"float": reference, chosen.label: outputs}
    for plan in plans:
        if plan.label in logits:
            continue
        if plan.label.startswith("uniform"):
            calls = [jnp.asarray(job.inputs[:, None])]
            found = assignment_outputs(graph, weights, assignment_of(graph, plan), calls)
            logits[plan.label] = np.asarray(found[0][:, 0])
        elif plan.encoding.startswith("jpeg-q"):
            quality = int(plan.encoding.removeprefix("jpeg-q"))
            images = normalize(decode_roundtrip(job.photographs.images, quality))
            logits[plan.label] = _float(graph, weights, images)
    labels = job.photographs.labels
    if labels is None:
        return [], reference
    return [_count(name, found, labels, reference) for name, found in logits.items()], reference


def _float(
    graph: autosplit.LayerGraph, weights: autosplit.graph.running.GraphWeights, inputs: np.ndarray
) -> np.ndarray:
    return np.asarray(float_outputs(graph, weights, [jnp.asarray(inputs[:, None])])[0][:, 0])


def _count(
    name: str, logits: np.ndarray, labels: np.ndarray, reference: np.ndarray
) -> Accuracy:
    ranked = np.argsort(-logits, axis=1, kind="stable")
    return Accuracy(
        label=name,
        images=len(labels),
        correct=int(np.sum(ranked[:, 0] == labels)),
        correct_top5=int(np.sum(ranked[:, :5] == labels[:, None])),
        same_as_float=int(np.sum(ranked[:, 0] == reference.argmax(axis=1))),
    )


def confidence(logits: np.ndarray) -> float:
    """Returns the probability of the most probable class (softmax)."""
    shifted = np.exp(logits - logits.max())
    return float(shifted.max() / shifted.sum())
