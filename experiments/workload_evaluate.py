"""The step ``evaluate``: every plan is run quantized on the photographs and scored."""

from __future__ import annotations

import pathlib
from typing import Any

import ml_collections

import autosplit
from autosplit.errors import ArtefactError
from autosplit.files import read_document, to_plain, write_document, write_text
from autosplit.reporting.formats import format_error, format_percent
from experiments.paper_tables import csv_text
from experiments.workload_case import Case
from experiments.workload_documents import digest
from experiments.workload_scores import Runner, Scores
from experiments.workload_statistics import settings_of as statistics_settings

KIND, VERSION = "autosplit.workload.scores", 1
TABLE, FOLDER = "accuracy.csv", "scores"
FLOAT = "float"
"""Stands for the network as it is, among the keys of plans."""

SHARES = {"top1": "top-1", "top5": "top-5", "agreement": "agreement", "map": "mAP",
          "map50": "mAP50"}  # fmt: skip
"""What is told of scores, where it is known."""


def settings_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what this step depends on, beside the one before it."""
    return to_plain({"evaluation": config.evaluation.to_dict()})


def run_evaluate(case: Case) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Scores the float network and every plan; plans that an earlier run scored are kept.

    Returns:
      The files that were written, and the figures: the scores of float and of the chosen split.
    """
    made_of = scores_made_of(case)
    # Plans that differ in name, or in how tensors travel, answer the same.
    plans = {FLOAT: None, **{assignment_key(plan): plan for plan in case.listed}}
    runner = Runner(case=case)
    scores: dict[str, Scores] = {}
    for number, (key, plan) in enumerate(plans.items(), 1):
        path = case.workdir / FOLDER / f"{key[:32]}.json"
        scores[key] = kept_scores(path, made_of) or _score(runner, plan, path, made_of)
        label = FLOAT if plan is None else f"{plan.label}, {plan.cut_name}"
        print(f"   {number} of {len(plans)}: {label}: {one_line(scores[key])}", flush=True)
    rows = [{"plan": FLOAT, "cut": "", "encoding": "", **scores[FLOAT]}]
    rows += [
        {"plan": plan.label, "cut": plan.cut_name, "encoding": plan.encoding,
         **scores[assignment_key(plan)]}
        for plan in case.listed
    ]  # fmt: skip
    write_text(case.workdir / TABLE, csv_text(rows))
    chosen = case.chosen
    return (TABLE,), {
        "float": scores[FLOAT],
        "chosen": None if chosen is None else scores[assignment_key(chosen)],
        "plans": len(case.listed),
        "assignments": len(plans) - 1,
    }


def scores_made_of(case: Case) -> str:
    """Returns a digest of all that scores depend on, beside the plan."""
    about = statistics_settings(case.config)
    names = ("model", "images", "seed", "weights_sha256")
    shared = {name: about.get(name) for name in names}
    return digest([shared, settings_of(case.config), case.profile.fingerprint])


def assignment_key(plan: autosplit.SplitPlan) -> str:
    """Returns a digest of all that decides what a plan answers."""
    code = "" if plan.error_is_predicted else plan.encoding
    return digest([code, plan.on_edge, plan.w_bits, plan.a_bits, plan.weight_ratio,
                   plan.activation_low, plan.activation_high])  # fmt: skip


def kept_scores(path: pathlib.Path, made_of: str) -> Scores | None:
    """Returns the scores of an earlier run, None where there are none of the same making."""
    try:
        body = read_document(path, KIND, VERSION)
    except ArtefactError:
        return None
    return body["scores"] if body["made_of"] == made_of else None


def _score(
    runner: Runner, plan: autosplit.SplitPlan | None, path: pathlib.Path, made_of: str
) -> Scores:
    scores = to_plain(runner.scores(plan))
    write_document(path, KIND, VERSION, {"made_of": made_of, "scores": scores})
    return scores


def one_line(scores: Scores) -> str:
    """Writes scores in a line.

    >>> one_line({"images": 4, "top1": None, "agreement": 0.75, "output_error": 0.01})
    'agreement 75.0 %, output error 1.0e-02'
    """
    parts = [
        f"{name} {format_percent(scores[field])}"
        for field, name in SHARES.items()
        if scores.get(field) is not None
    ]
    return ", ".join([*parts, f"output error {format_error(float(scores['output_error']))}"])
