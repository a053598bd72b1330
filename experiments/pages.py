"""What the report page of the main job shows: photographs, accuracies and notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

import autosplit
from autosplit.data import class_names
from autosplit.profiling.plan import FLOAT_BITS
from autosplit.reporting import Accuracy, Photograph, ReportData
from autosplit.reporting.formats import format_error, format_rate
from experiments.accuracy import ALL, HELD_OUT, Score, confidence, find_score
from experiments.steps import Job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What a run of the main job came to.

    Attributes:
      config: of the run.
      record: from `run_record`.
      job, graph, profile, plans: what was worked on, and what was found.
      chosen: the plan that was split and run.
      edge_report: from ``run_edge``.
      scores: from `experiments.accuracy.evaluate`.
      reference: f32[N, classes], outputs of the float network.
      outputs: f32[N, classes], outputs of the two processes.
    """

    config: ml_collections.ConfigDict
    record: Mapping[str, Any]
    job: Job
    graph: autosplit.LayerGraph
    profile: autosplit.Profile
    plans: autosplit.Plans
    chosen: autosplit.SplitPlan
    edge_report: Mapping[str, Any]
    scores: Sequence[Score]
    reference: np.ndarray
    outputs: np.ndarray


def report_data(run: Results) -> ReportData:
    """Returns what the report page shows of a run."""
    model = run.config.model
    return ReportData(
        title=run.config.title,
        network_name=model.get("title", model.name),
        profile=run.profile,
        plans=run.plans.plans,
        chosen=run.chosen,
        constraints=run.plans.constraints,
        record=run.record,
        measured=run.edge_report["measured"],
        measured_note=measured_note(
            run.edge_report["requests"], run.profile.network, bool(run.chosen.uplink_bytes)
        ),
        accuracies=tuple(accuracies(run.scores)),
        photographs=photographs(run.job, run.reference, run.outputs),
        photographs_note=calibration_note(run.job),
        graph_svg=run.graph.to_svg(run.chosen.on_edge, _weight_bits(run.chosen)),
        notes=(
            agreement_note(
                run.job, run.scores, run.chosen.label, run.plans.constraints.output_error
            ),
        ),
    )


def measured_note(requests: int, network: autosplit.Network, sends: bool) -> str:
    """Says how the stage times were measured."""
    if not sends:
        return f"Median of {requests} requests in one process on this machine; nothing is sent."
    return (
        f"Median of {requests} requests between two processes on this machine; the link of "
        f"{format_rate(network.uplink_bits_per_s)} is imitated by waiting."
    )


def accuracies(scores: Sequence[Score]) -> list[Accuracy]:
    """Returns the scores as the report counts them; none without labels.

    A score on the held-out photographs says so in its label: no figure of the report
    mixes the two sets.
    """
    return [
        Accuracy(
            label=score.label if score.subset == ALL else f"{score.label}, held-out images",
            images=score.images,
            correct=score.correct,
            correct_top5=score.correct_top5,
            same_as_float=score.same_as_float,
        )
        for score in scores
        if score.correct is not None
    ]


def agreement_note(
    job: Job, scores: Sequence[Score], label: str, error_limit: float | None
) -> str:
    """Says how far a plan is from float, on all photographs and on the held-out ones.

    Args:
      job: with the photographs.
      scores: of the plan and of float.
      label: of the plan.
      error_limit: that the plan keeps on the photographs that calibrate, if there is one.

    Returns:
      A few sentences.
    """
    everywhere = find_score(scores, label, ALL)
    held_out = find_score(scores, label, HELD_OUT)
    sentences = [calibration_note(job)]
    if everywhere is not None:
        sentences.append(f"On all {everywhere.images} {_agreement(everywhere)}.")
    if held_out is not None:
        sentences.append(f"On the {held_out.images} held out {_agreement(held_out)}.")
        if error_limit is not None and held_out.output_error > error_limit:
            sentences.append(
                f"So there it is above the limit of {format_error(error_limit)}, which is judged "
                "on the photographs that calibrate."
            )
        sentences += _right(held_out, find_score(scores, "float", HELD_OUT))
    if job.photographs.labels is None:
        sentences.append("They have no labels, so right answers cannot be counted.")
    return " ".join(sentences)


def calibration_note(job: Job) -> str:
    """Says which photographs calibrated."""
    count, total = job.calibration, len(job.photographs)
    if count == total:
        return f"All {total} photographs were also used to calibrate: none is held out."
    return f"The first {count} of the {total} photographs were also used to calibrate."


def _agreement(score: Score) -> str:
    return (
        f"the split network, as it ran, gives the float network's answer {score.same_as_float} of "
        f"{score.images} times, with an output error of {format_error(score.output_error)}"
    )


def _right(split: Score, reference: Score | None) -> list[str]:
    if split.correct is None or reference is None:
        return []
    return [
        f"Of these {split.images} the split network has {split.correct} right, float "
        f"{reference.correct}."
    ]


def photographs(job: Job, reference: np.ndarray, outputs: np.ndarray) -> tuple[Photograph, ...]:
    """Returns every photograph with its class and both answers."""
    # ImageNet has two pairs of classes with equal names: the number keeps them apart.
    names = [f"{name} ({number})" for number, name in enumerate(class_names())]
    labels = job.photographs.labels
    return tuple(
        Photograph(
            name=path.name,
            image=image,
            label=None if labels is None else names[labels[index]],
            float_prediction=names[int(reference[index].argmax())],
            split_prediction=names[int(outputs[index].argmax())],
            float_confidence=confidence(reference[index]),
            split_confidence=confidence(outputs[index]),
        )
        for index, (path, image) in enumerate(
            zip(job.photographs.paths, job.photographs.images, strict=True)
        )
    )


def _weight_bits(plan: autosplit.SplitPlan) -> dict[int, str]:
    """Returns the caption of every layer of the drawing whose weights are quantized."""
    return {
        index: f"w{plan.w_bits[index]}"
        for index, flag in enumerate(plan.on_edge)
        if flag and plan.w_bits[index] < FLOAT_BITS
    }
