"""Runs Auto-Split's experiments: one workload, or all of them and the original's chart.

    python -m experiments.paper --config=configs/paper/resnet50.py --workdir=build/paper/resnet50
    python -m experiments.paper --config=configs/paper/all.py --workdir=build/paper

The work directory of a workload gets ``profile.npz``, a table (``.csv``) and plots (``.png``) of
each experiment, ``paper.md``, which shows all of them, and, last, ``results.json``: what was
compared, and the run record. A workload whose ``results.json`` was made of the same
configuration is not run again; an unfinished one starts from its profile. With all workloads,
``summary.md`` puts them side by side.
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from autosplit.errors import ArtefactError, AutosplitError
from autosplit.files import read_document, to_plain, write_document
from autosplit.reporting import run_record
from experiments.flag_parsing import parse_flags
from experiments.main import step
from experiments.paper_case import make_case
from experiments.paper_chart import write_chart
from experiments.paper_page import PAGE, write_results
from experiments.paper_plans import JPEG, best_of_families
from experiments.paper_summary import write_summary
from experiments.paper_sweeps import check_sweeps, run_all
from experiments.paper_tables import row_of

KIND, VERSION = "autosplit.paper.results", 1
RESULTS = "results.json"


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/paper/all.py.")
    flags.DEFINE_string("workdir", None, "Directory for all results.")
    flags.mark_flags_as_required(["config", "workdir"])


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Runs one workload or, where the configuration has ``workloads``, all of them.

    Args:
      config: see ``configs/paper``.
      workdir: for the results; each of several workloads gets a folder in it.

    Returns:
      The page with the results.

    Raises:
      AutosplitError: a setting, weights or photographs are not as expected.
    """
    if "workloads" not in config:
        run_workload(config, workdir)
        return workdir / PAGE
    for workload in config.workloads.values():
        check_sweeps(workload)  # before anything takes time
    results = {}
    for name, workload in config.workloads.items():
        print(f"==== {name}", flush=True)
        results[name] = run_workload(workload, workdir / name)
    with step("The chart of the original, and the summary"):
        chart = write_chart(workdir, run_record(config.to_dict(), seed=0))
        return write_summary(results, chart, workdir)


def run_workload(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Runs the experiments of one network, unless an earlier run has.

    Returns:
      What ``results.json`` holds: ``title``, ``rows`` by experiment, ``config`` and ``record``.
    """
    check_sweeps(config)
    plain = to_plain(config.to_dict())
    done = finished(workdir, plain)
    if done is not None:
        print(f"   done by an earlier run: {workdir / RESULTS}", flush=True)
        return done
    start_s = time.perf_counter()
    (workdir / RESULTS).unlink(missing_ok=True)
    record = run_record(plain, config.seed)
    with step("Load, trace and profile"):
        case = make_case(config, workdir)
    with step("Solve and measure every experiment"):
        entries = run_all(config, case)
    with step("Write tables and plots"):
        write_results(case, entries, workdir)
    document = {
        "title": config.title,
        "random_weights": case.random_weights,
        "best_jpeg": next((e.plan.encoding for e in best_of_families(entries["comparison"])
                           if e.series == JPEG), None),
        "rows": {name: [row_of(entry) for entry in found] for name, found in entries.items()},
        "profile_s": case.profile_s,
        "run_s": time.perf_counter() - start_s,
        "config": plain,
        "record": record,
    }
    write_document(workdir / RESULTS, KIND, VERSION, to_plain(document))
    return to_plain(document)


def finished(workdir: pathlib.Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the results of an earlier run of the same configuration, None without one."""
    try:
        document = read_document(workdir / RESULTS, KIND, VERSION)
    except ArtefactError:
        return None
    return document if document["config"] == config else None


def main(argv: Sequence[str]) -> None:
    """Reads the flags and runs the experiments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    try:
        page = run(flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir).resolve())
    except (AutosplitError, OSError) as error:
        sys.exit(f"paper: {error}")
    print(f"The results are in {page}")


if __name__ == "__main__":
    define_flags()
    jax.config.config_with_absl()
    app.run(main, flags_parser=parse_flags)
