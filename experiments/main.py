"""Runs the whole job: trace, profile, solve, split, run in two processes, evaluate, report.

    python -m experiments.main --config=configs/demo.py --workdir=build/demo \
        [--config.network.uplink_bits_per_s=1e6 ...]

The work directory gets ``profile.npz``, ``plans.json``, ``plans.csv``, ``plan.json``, the saved
split (``split/``), the edge's report (``edge.json``, ``edge.npz``), ``accuracy.json``,
``run.json`` (config, commit, versions, seed, device), the plots and ``report.html``.
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import app, flags
from ml_collections import config_flags

import autosplit
from autosplit.data import class_names
from autosplit.errors import AutosplitError
from autosplit.files import write_json
from autosplit.hardware import named_device
from autosplit.profiling.storage import save_profile
from autosplit.reporting import Accuracy, Photograph, ReportData, run_record, write_report
from experiments.accuracy import accuracies_of, confidence
from experiments.steps import Job, decoded_jpegs, load_job, network_of, run_two_processes


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/demo.py.")
    flags.DEFINE_string("workdir", None, "Directory for all results.")
    flags.mark_flags_as_required(["config", "workdir"])


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Runs the job.

    Args:
      config: see ``configs/demo.py``.
      workdir: for the results; files of an earlier run are replaced.

    Returns:
      The report page.

    Raises:
      AutosplitError: an input, a constraint or a process is not as expected.
    """
    record = run_record(config.to_dict(), config.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    with _step("Load the network and the photographs"):
        job = load_job(config)
    with _step("Trace"):
        graph = autosplit.trace(job.apply, job.variables, job.inputs[:1])
        print(graph.summary())
    with _step("Profile every tensor at every bit-width"):
        profile = autosplit.profile(
            graph,
            job.variables,
            job.calibration_inputs,
            edge=named_device(config.edge),
            cloud=named_device(config.cloud),
            network=network_of(config),
            bits=tuple(config.bits),
            clipping=config.clipping,
            images=job.calibration_images,
            seed=config.seed,
        )
        save_profile(profile, workdir / "profile.npz")
    with _step("Solve, and measure the error of every plan"):
        plans = autosplit.solve_measured(
            graph,
            job.variables,
            job.calibration_inputs,
            profile,
            autosplit.Constraints(**config.constraints.to_dict()),
            decoded=decoded_jpegs(job.calibration_images),
            on_round=_tell_round,
        )
        plans.save(workdir / "plans.json")
        plans.to_csv(workdir / "plans.csv")
        chosen = plans.fastest_split
        chosen.save(workdir / "plan.json")
    with _step("Split, and run edge and cloud as two processes"):
        split = autosplit.split(graph, job.variables, chosen, network=network_of(config))
        outputs, edge_report = run_two_processes(split, job.inputs, workdir)
    with _step("Evaluate"):
        accuracies, reference = accuracies_of(job, graph, plans, chosen, outputs)
        write_json(workdir / "accuracy.json", accuracies)
    with _step("Report"):
        return write_report(
            _report_data(config, job, profile, plans, chosen, record, edge_report,
                         accuracies, (reference, outputs), graph),
            workdir,
        )  # fmt: skip


class _step:  # noqa: N801  (reads as a statement)
    """Prints what begins and how long it took."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        print(f"== {self.name} ...", flush=True)
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            print(f"   done in {time.perf_counter() - self.start:.1f} s", flush=True)


def _tell_round(number: int, plans: autosplit.Plans) -> None:
    best = next((plan for plan in plans if plan.label == "auto-split"), None)
    if best is not None:
        print(
            f"   round {number + 1}: {len(plans)} plans; auto-split {best.cut_name}: "
            f"{best.latency_s * 1e3:.1f} ms, output error {best.predicted_output_error:.3g} "
            f"predicted, {best.output_error:.3g} measured",
            flush=True,
        )


def _report_data(
    config: ml_collections.ConfigDict,
    job: Job,
    profile: autosplit.Profile,
    plans: autosplit.Plans,
    chosen: autosplit.SplitPlan,
    record: Mapping[str, Any],
    edge_report: Mapping[str, Any],
    accuracies: Sequence[Accuracy],
    logits: tuple[np.ndarray, np.ndarray],
    graph: autosplit.LayerGraph,
) -> ReportData:
    bits = {
        index: f"w{chosen.w_bits[index]}"
        for index, flag in enumerate(chosen.on_edge)
        if flag and chosen.w_bits[index] < 32
    }
    return ReportData(
        title=config.title,
        network_name=config.model.name,
        profile=profile,
        plans=plans.plans,
        chosen=chosen,
        constraints=plans.constraints,
        record=record,
        measured=edge_report["measured"],
        measured_note=(
            f"Median of {edge_report['requests']} requests between two processes on this "
            f"machine; the link of {profile.network.uplink_bits_per_s / 1e6:.3g} Mbit/s is "
            "imitated by waiting."
        ),
        accuracies=tuple(accuracies),
        photographs=_photographs(job, *logits),
        photographs_note=(
            f"The first {job.calibration} photographs were also used to calibrate."
        ),
        graph_svg=graph.to_svg(chosen.on_edge, bits),
    )


def _photographs(job: Job, reference: np.ndarray, outputs: np.ndarray) -> tuple[Photograph, ...]:
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


def main(argv: Sequence[str]) -> None:
    """Reads the flags and runs the job."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    try:
        page = run(flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir).resolve())
    except AutosplitError as error:
        sys.exit(f"main: {error}")
    print(f"The report is {page}")


if __name__ == "__main__":
    define_flags()
    jax.config.config_with_absl()
    app.run(main)
