"""Compares the float network, the split as it ran and the baselines on the photographs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

import autosplit
from autosplit.evaluation import agreement, output_error, top_k_accuracy
from autosplit.graph.running import GraphWeights, prepare
from autosplit.profiling.assignment import (
    assignment_of,
    assignment_outputs,
    float_outputs,
)
from autosplit.profiling.image_codecs import decode_roundtrip
from autosplit.reporting.families import compared
from experiments.steps import Job

ALL, HELD_OUT = "all", "held-out"
"""Names of the subsets; the photographs that calibrated are in the first alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """How one way to run the network did on one set of photographs.

    Attributes:
      label: ``"float"``, or the plan's.
      subset: `ALL` or `HELD_OUT`.
      images: photographs of the subset.
      correct: with the true class as the most probable one; None without labels.
      correct_top5: with the true class among the five most probable; None likewise.
      same_as_float: with the same most probable class as in float.
      output_error: relative mean squared error of the outputs against float.
    """

    label: str
    subset: str
    images: int
    correct: int | None
    correct_top5: int | None
    same_as_float: int
    output_error: float


def evaluate(
    job: Job,
    graph: autosplit.LayerGraph,
    plans: autosplit.Plans,
    chosen: autosplit.SplitPlan,
    outputs: np.ndarray,
) -> tuple[list[Score], np.ndarray]:
    """Scores all photographs, and apart from them those that did not calibrate.

    Args:
      job: with the photographs.
      graph: traced network.
      plans: with the baselines.
      chosen: the plan that was run.
      outputs: f32[N, classes], what the two processes answered.

    Returns:
      Scores of float, of the chosen plan as it ran and of every baseline of the report,
      first for `ALL`, then, if some photographs did not calibrate, for `HELD_OUT`;
      and the float outputs f32[N, classes].
    """
    weights = jax.jit(lambda p: prepare(graph, p))(job.variables)
    reference = _float_logits(graph, weights, job.inputs)
    logits = {"float": reference, chosen.label: outputs}
    for plan in compared(plans.plans, chosen)[1:]:
        logits[plan.label] = _plan_logits(job, graph, weights, plan)
    subsets = {ALL: slice(None)}
    if job.calibration < len(job.photographs):
        subsets[HELD_OUT] = slice(job.calibration, None)
    scores = [
        _score(name, subset, found[part], reference[part], _labels(job, part))
        for subset, part in subsets.items()
        for name, found in logits.items()
    ]
    return scores, reference


def find_score(scores: Sequence[Score], label: str, subset: str) -> Score | None:
    """Returns the score with a label on a subset, None where there is none."""
    return next((one for one in scores if (one.label, one.subset) == (label, subset)), None)


def confidence(logits: np.ndarray) -> float:
    """Returns the probability of the most probable class (softmax).

    >>> confidence(np.zeros(4))
    0.25
    """
    shifted = np.exp(logits - logits.max())
    return float(shifted.max() / shifted.sum())


def _plan_logits(
    job: Job, graph: autosplit.LayerGraph, weights: GraphWeights, plan: autosplit.SplitPlan
) -> np.ndarray:
    if plan.encoding.startswith("jpeg-q"):
        quality = int(plan.encoding.removeprefix("jpeg-q"))
        images = job.normalize(decode_roundtrip(job.photographs.images, quality))
        return _float_logits(graph, weights, images)
    calls = [jnp.asarray(job.inputs[:, None])]
    found = assignment_outputs(graph, weights, assignment_of(graph, weights, plan), calls)
    return np.asarray(found[0][:, 0])


def _float_logits(
    graph: autosplit.LayerGraph, weights: GraphWeights, inputs: np.ndarray
) -> np.ndarray:
    return np.asarray(float_outputs(graph, weights, [jnp.asarray(inputs[:, None])])[0][:, 0])


def _labels(job: Job, part: slice) -> np.ndarray | None:
    labels = job.photographs.labels
    return None if labels is None else labels[part]


def _score(
    label: str, subset: str, logits: np.ndarray, reference: np.ndarray, labels: np.ndarray | None
) -> Score:
    count = len(logits)

    def right(k: int) -> int | None:
        return None if labels is None else round(top_k_accuracy(logits, labels, k) * count)

    return Score(
        label=label,
        subset=subset,
        images=count,
        correct=right(1),
        correct_top5=right(5),
        same_as_float=round(agreement(reference, logits) * count),
        output_error=output_error(reference, logits),
    )
