"""Runs the whole job: trace, profile, solve, split, run in two processes, evaluate, report.

    python -m experiments.main --config=configs/demo.py --workdir=build/demo \
        [--config.network.uplink_bits_per_s=1e6 ...]

The work directory gets ``profile.npz``, ``plans.json``, ``plans.csv``, ``plan.json``, the saved
split (``split/``), the edge's report (``edge.json``, ``edge.npz``), ``accuracy.json``,
``run.json`` (config, commit, versions, seed, device), the plots and, last, ``report.html``.
Each file is whole or absent.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

import autosplit
from autosplit.errors import AutosplitError, InputError
from autosplit.files import write_json
from autosplit.profiling.storage import save_profile
from autosplit.reporting import run_record, write_report
from experiments.accuracy import evaluate
from experiments.flag_parsing import parse_flags
from experiments.pages import Results, report_data
from experiments.processes import run_two_processes
from experiments.steps import (
    Job,
    check_fields,
    constraints_of,
    decoded_jpegs,
    is_detector,
    load_job,
    profile_settings,
)


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
    check_fields(config)
    if is_detector(config.model.name):
        raise InputError(
            f"config.model.name is {config.model.name}, a detector; expected a classifier, whose "
            "answers this report shows. Use experiments.workload."
        )
    record = run_record(config.to_dict(), config.seed)
    # Both before anything takes time.
    constraints, settings = constraints_of(config), profile_settings(config)
    with step("Load the network and the photographs"):
        job = load_job(config)
    workdir.mkdir(parents=True, exist_ok=True)
    # The page comes last: while there is none, the other files are those of an unfinished run.
    (workdir / "report.html").unlink(missing_ok=True)
    with step("Trace"):
        graph = autosplit.trace(job.apply, job.variables, job.inputs[:1])
        print(graph.summary())
    profile, plans = plan_job(job, graph, constraints, settings, workdir)
    chosen = plans.best_split
    chosen.save(workdir / "plan.json")
    with step("Split, and run edge and cloud as two processes"):
        split = autosplit.split(graph, job.variables, chosen, network=profile.network)
        outputs, edge_report = run_two_processes(split, job.inputs, workdir)
    with step("Evaluate"):
        scores, reference = evaluate(job, graph, plans, chosen, outputs)
        write_json(workdir / "accuracy.json", scores)
    with step("Report"):
        results = Results(
            config=config, record=record, job=job, graph=graph, profile=profile, plans=plans,
            chosen=chosen, edge_report=edge_report, scores=scores, reference=reference,
            outputs=outputs,
        )  # fmt: skip
        return write_report(report_data(results), workdir)


def plan_job(
    job: Job,
    graph: autosplit.LayerGraph,
    constraints: autosplit.Constraints,
    settings: Mapping[str, Any],
    workdir: pathlib.Path,
) -> tuple[autosplit.Profile, autosplit.Plans]:
    """Profiles and solves, and writes the profile and all plans.

    Args:
      job, graph: what to plan for.
      constraints: of the plans.
      settings: from `profile_settings`.
      workdir: for the files.

    Returns:
      The profile, and the plans with their measured errors.
    """
    calibration = job.calibration_inputs
    with step("Profile every tensor at every bit-width"):
        profile = autosplit.profile(
            graph, job.variables, calibration, images=job.calibration_images, **settings
        )
        save_profile(profile, workdir / "profile.npz")
    with step("Solve, and measure the error of every plan"):
        plans = autosplit.solve_measured(
            graph,
            job.variables,
            calibration,
            profile,
            constraints,
            decoded=decoded_jpegs(job.calibration_images, job.normalize),
            on_round=_tell_round,
        )
        plans.save(workdir / "plans.json")
        plans.to_csv(workdir / "plans.csv")
    return profile, plans


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Prints what begins and, unless it fails, how long it took."""
    print(f"== {name} ...", flush=True)
    start_s = time.perf_counter()
    yield
    print(f"   done in {time.perf_counter() - start_s:.1f} s", flush=True)


def _tell_round(number: int, plans: autosplit.Plans) -> None:
    best = next((plan for plan in plans if plan.label == "auto-split"), None)
    if best is not None:
        print(
            f"   round {number + 1}: {len(plans)} plans; auto-split {best.cut_name}: "
            f"{best.latency_s * 1e3:.1f} ms, output error {best.predicted_output_error:.3g} "
            f"predicted, {best.output_error:.3g} measured",
            flush=True,
        )


def main(argv: Sequence[str]) -> None:
    """Reads the flags and runs the job."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    try:
        page = run(flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir).resolve())
    except (AutosplitError, OSError) as error:
        sys.exit(f"main: {error}")
    print(f"The report is {page}")


if __name__ == "__main__":
    define_flags()
    jax.config.config_with_absl()
    app.run(main, flags_parser=parse_flags)
