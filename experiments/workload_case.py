"""What the steps of a workload work on, each part loaded when a step first needs it."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import ml_collections

import autosplit
from autosplit.errors import InputError, PlanMismatchError
from autosplit.graph.running import GraphWeights, prepare
from autosplit.profiling.storage import load_profile
from experiments.steps import (
    Job,
    check_fields,
    constraints_of,
    is_detector,
    load_job,
    profile_settings,
)

T = TypeVar("T")

PROFILE, PLANS, BASELINES, CHOSEN = "profile.npz", "plans.json", "baselines.json", "plan.json"
"""Files of the work directory that one step writes and another reads."""

REQUIRED = ("images.crop_pixels", "cloud_bits", "sensitivity_calls", "latency.repeats",
            "evaluation.chunk")  # fmt: skip
"""Fields beside those of `steps.check_fields`; `configs/workloads/_base.py` explains them."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A workload: one network under one configuration.

    Attributes:
      config: see ``configs/workloads/_base.py``.
      workdir: of this workload alone.
    """

    config: ml_collections.ConfigDict
    workdir: pathlib.Path

    @functools.cached_property
    def job(self) -> Job:
        """Network, weights and photographs."""
        return load_job(self.config)

    @functools.cached_property
    def traced(self) -> tuple[autosplit.LayerGraph, dict[str, float]]:
        """The graph, and how long tracing took: `clocked` with the name ``trace``."""
        job = self.job
        return clocked("trace", lambda: autosplit.trace(job.apply, job.variables, job.inputs[:1]))

    @property
    def graph(self) -> autosplit.LayerGraph:
        """The traced network."""
        return self.traced[0]

    @functools.cached_property
    def weights(self) -> GraphWeights:
        """What the layers read, in float."""
        graph = self.graph
        return jax.jit(lambda variables: prepare(graph, variables))(self.job.variables)

    @functools.cached_property
    def profile(self) -> autosplit.Profile:
        """What the step ``statistics`` wrote."""
        return load_profile(self.workdir / PROFILE)

    @functools.cached_property
    def plans(self) -> autosplit.Plans:
        """What the step ``split`` wrote."""
        return autosplit.Plans.load(self.workdir / PLANS)

    @functools.cached_property
    def baselines(self) -> autosplit.Plans:
        """The plans of others, from the same step."""
        return autosplit.Plans.load(self.workdir / BASELINES)

    @property
    def listed(self) -> list[autosplit.SplitPlan]:
        """All plans and baselines."""
        return [*self.plans, *self.baselines]

    @property
    def chosen(self) -> autosplit.SplitPlan | None:
        """The split that is chosen; None where no split keeps the constraints."""
        path = self.workdir / CHOSEN
        return autosplit.SplitPlan.load(path) if path.exists() else None

    @property
    def is_detector(self) -> bool:
        """The network gives boxes, not classes."""
        return is_detector(self.config.model.name)

    def checked_profile(self) -> autosplit.Profile:
        """Returns the profile; raises `PlanMismatchError` where it is of another graph."""
        if self.profile.fingerprint != self.graph.fingerprint:
            raise PlanMismatchError(
                f"{self.workdir / PROFILE} was made of a graph with fingerprint "
                f"{self.profile.fingerprint[:12]}; this version traces {self.config.model.name} as "
                f"{self.graph.fingerprint[:12]}. Delete {self.workdir / 'statistics.json'}."
            )
        return self.profile


def clocked(name: str, work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Runs work and measures it.

    On a machine that others use, the processor's seconds tell more than those of the clock:
    with both cores busy all the time it would take half of them.

    >>> clocked("work", lambda: 7)[0], list(clocked("work", lambda: 7)[1])
    (7, ['work_s', 'work_cpu_s'])

    Args:
      name: begins the names of the figures.
      work: to run.

    Returns:
      Its result; seconds by the clock, and of the processor over all threads.
    """
    start, start_cpu = time.perf_counter(), time.process_time()
    found = work()
    taken_s, taken_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    return found, {f"{name}_s": taken_s, f"{name}_cpu_s": taken_cpu_s}


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises an error unless a configuration has all that the steps read.

    Raises:
      InputError: a field is missing or out of range, or there is no such model or device.
    """
    check_fields(config)
    missing = []
    for name in REQUIRED:
        found: Any = config
        for part in name.split("."):
            found = found.get(part) if isinstance(found, ml_collections.ConfigDict) else None
        if found is None:
            missing.append(f"config.{name}")
    if missing:
        raise InputError(
            f"The configuration lacks {', '.join(missing)}; expected all fields of "
            "configs/workloads/_base.py. Add them."
        )
    is_detector(config.model.name)
    profile_settings(config)
    constraints_of(config)
    counts = {"images.calibration": config.images.calibration, "images.limit": config.images.limit,
              "sensitivity_calls": config.sensitivity_calls,
              "latency.repeats": config.latency.repeats,
              "evaluation.chunk": config.evaluation.chunk}  # fmt: skip
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"config.{name} is {count}; expected 1 or more.")
    if config.images.calibration > config.images.limit:
        raise InputError(
            f"config.images.calibration is {config.images.calibration}; expected at most "
            f"{config.images.limit}, config.images.limit."
        )
