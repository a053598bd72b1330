r"""Runs a workload's five steps, or one of them, for any network of the zoo.

    python -m experiments.workload --config=configs/workloads/resnet18.py \
        --workdir=build/workloads/resnet18 --step=all
    python -m experiments.workload --config=configs/workloads/all.py --workdir=build/workloads

| step | what it does | files of the work directory |
|---|---|---|
| statistics | traces and profiles | ``profile.npz layers.csv tensors.csv graph.txt`` |
| split | solves, plans as others do | ``plans.json plan.json baselines.json front.png`` |
| latency | stages of each plan; the chosen split timed here | ``latency.csv latency.png`` |
| evaluate | runs each plan quantized on the photographs | ``accuracy.csv scores/`` |
| collect | puts all workloads of the work directory side by side | ``workloads.{csv,md,png}`` |
| all | all of these | |

With ``configs/workloads/all.py`` every workload gets a folder in the work directory. A step
first runs those before it that are not finished. When a step has finished it leaves
``STEP.json``: its figures, the run record and what it was made of. It runs again only where
that differs: another setting, another result of the step before, a file that is missing or
was changed. ``evaluate`` goes on with the plan at which it was interrupted, ``statistics``
with the photograph. One run at a time can use a work directory; a second one says which.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from autosplit.errors import AutosplitError, InputError
from autosplit.reporting import run_record
from experiments.flag_parsing import parse_flags
from experiments.workload_case import Case, check_config
from experiments.workload_collect import PAGE, collect
from experiments.workload_documents import Document, digest, finished, write_step
from experiments.workload_evaluate import run_evaluate
from experiments.workload_evaluate import settings_of as evaluate_settings
from experiments.workload_latency import run_latency
from experiments.workload_latency import settings_of as latency_settings
from experiments.workload_lock import only_run
from experiments.workload_split import run_split
from experiments.workload_split import settings_of as split_settings
from experiments.workload_statistics import run_statistics
from experiments.workload_statistics import settings_of as statistics_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A step of one workload.

    Attributes:
      needs: the step before it; None for the first.
      settings: all of a configuration that it depends on, beside that.
      run: writes its files; returns their names, and its figures.
    """

    needs: str | None
    settings: Callable[[ml_collections.ConfigDict], dict[str, Any]]
    run: Callable[[Case], tuple[tuple[str, ...], dict[str, Any]]]


STEPS: Mapping[str, Step] = {
    "statistics": Step(needs=None, settings=statistics_settings, run=run_statistics),
    "split": Step(needs="statistics", settings=split_settings, run=run_split),
    "latency": Step(needs="split", settings=latency_settings, run=run_latency),
    "evaluate": Step(needs="split", settings=evaluate_settings, run=run_evaluate),
}
"""The steps of one workload, each behind the one that it needs."""

COLLECT, ALL = "collect", "all"
STEP_NAMES = (*STEPS, COLLECT, ALL)


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", None, "Workload, e.g. configs/workloads/all.py.")
    flags.DEFINE_string("workdir", None, "Directory for all results.")
    flags.DEFINE_string("step", ALL, f"One of {', '.join(STEP_NAMES)}.")
    flags.mark_flags_as_required(["config", "workdir"])


def run(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, step: str = ALL
) -> pathlib.Path:
    """Runs a step, and those before it that are not finished.

    Args:
      config: see ``configs/workloads``.
      workdir: for the results; each of several workloads gets a folder in it.
      step: one of `STEP_NAMES`.

    Returns:
      The work directory, or the page of ``collect``.

    Raises:
      AutosplitError: a setting, the weights or the photographs are not as expected, or
        another run uses the work directory.
    """
    if step not in STEP_NAMES:
        raise InputError(f"There is no step {step!r}; expected one of {', '.join(STEP_NAMES)}.")
    several = "workloads" in config
    workloads = {
        workdir / name if several else workdir: each
        for name, each in (config.workloads.items() if several else [("", config)])
    }
    for each in workloads.values():
        check_config(each)  # before anything takes time
    with only_run(workdir):
        if step != COLLECT:
            for folder, each in workloads.items():
                print(f"==== {each.title}", flush=True)
                run_workload(each, folder, step, locked=folder == workdir)
        if step not in (COLLECT, ALL):
            return workdir
        collect(workdir, run_record(config.to_dict(), seed=0))
    return workdir / PAGE


def run_workload(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, step: str, *, locked: bool = False
) -> dict[str, Document]:
    """Runs the steps of one workload up to one of them, unless earlier runs have.

    Args:
      config: of the workload.
      workdir: of the workload.
      step: the last; `ALL` means all of them.
      locked: the caller holds the work directory.

    Returns:
      The documents by step.
    """
    if not locked:
        with only_run(workdir):
            return run_workload(config, workdir, step, locked=True)
    case = Case(config=config, workdir=workdir)
    documents: dict[str, Document] = {}
    for name in _needed(step):
        needs = STEPS[name].needs
        after = "" if needs is None else digest(documents[needs])
        done = finished(workdir, name, STEPS[name].settings(config), after)
        if done is None:
            done = _run_step(case, name, after)
        else:
            print(f"== {name}: done by an earlier run in {done['step_s']:.1f} s", flush=True)
        documents[name] = done
    return documents


def _needed(step: str) -> list[str]:
    """Returns a step and all that it needs, in order; every step for `ALL`.

    >>> _needed("evaluate")
    ['statistics', 'split', 'evaluate']
    """
    if step == ALL:
        return list(STEPS)
    needs = STEPS[step].needs
    return [*([] if needs is None else _needed(needs)), step]


def _run_step(case: Case, name: str, after: str) -> Document:
    """Runs a step; meanwhile it and those that need it count as unfinished."""
    for other in STEPS:
        if name in _needed(other):
            (case.workdir / f"{other}.json").unlink(missing_ok=True)
    step = STEPS[name]
    record = run_record(case.config.to_dict(), case.config.seed)
    print(f"== {name} ...", flush=True)
    start = time.perf_counter()
    files, result = step.run(case)
    step_s = time.perf_counter() - start
    print(f"   done in {step_s:.1f} s", flush=True)
    return write_step(case.workdir, name, settings=step.settings(case.config), after=after,
                      files=files, result=result, record=record, step_s=step_s)  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Reads the flags and runs the step."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    values = flags.FLAGS
    try:
        found = run(values.config, pathlib.Path(values.workdir).resolve(), values.step)
    except (AutosplitError, OSError) as error:
        sys.exit(f"workload: {error}")
    print(f"The results are in {found}")


if __name__ == "__main__":
    define_flags()
    jax.config.config_with_absl()
    app.run(main, flags_parser=parse_flags)
