"""The paper's experiments on one profile: the comparison and the sweeps, as entries."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence

import ml_collections

import autosplit
from autosplit.errors import InfeasibleError, InputError
from autosplit.hardware import named_network
from autosplit.solvers.bandwidth import with_uplink
from autosplit.solvers.lagrange_heuristic import plan_lagrange_heuristic
from autosplit.solvers.objective import Objective
from experiments.paper_case import Case
from experiments.paper_plans import (
    AUTO,
    PREDICTED,
    Entry,
    baselines,
    best_of_families,
    best_sent_plain,
    entries_of,
    kept,
    measure,
    named_plans,
    sent_plain,
    solved,
    uniform,
)

SAME_PLAN, BEST_PLAIN = "same plan, sent at 16 bits", "best plan, sent at 16 bits"
LEAST_ENERGY = "split of least energy"
HEURISTIC = "lagrange heuristic"
ERROR_LIMITS = ("output_error", "quant_mse")
"""Constraints that can limit the error; a configuration has one of them, and sweeps it."""

Series = list[tuple[str, autosplit.SplitPlan]]


def check_sweeps(config: ml_collections.ConfigDict) -> None:
    """Raises `InputError` unless every sweep has values, and they are ones that can be had."""
    empty = ml_collections.ConfigDict()
    sweeps, constraints = config.get("sweeps", empty), config.get("constraints", empty)
    limits = [name for name in ERROR_LIMITS if constraints.get(name) is not None]
    if len(limits) != 1:
        raise InputError(
            f"config.constraints limits {limits or 'no error'}; expected one of {ERROR_LIMITS}."
        )
    numbers = ("uplink_bits_per_s", "memory_bytes", limits[0])
    for name in (*numbers, "energy_networks"):
        if not sweeps.get(name):
            raise InputError(
                f"config.sweeps.{name} is {sweeps.get(name)!r}; expected one value or more. Take "
                "those of configs/paper/_base.py."
            )
    for name in numbers:
        for value in sweeps[name]:
            if not 0 < value < math.inf:
                raise InputError(
                    f"config.sweeps.{name} has the value {value}; expected finite numbers above 0."
                )
    for network in sweeps.energy_networks:
        named_network(network)


def run_all(config: ml_collections.ConfigDict, case: Case) -> dict[str, list[Entry]]:
    """Solves every experiment and measures the error of every plan.

    Args:
      config: see ``configs/paper/_base.py``.
      case: the network.

    Returns:
      Entries by experiment: ``comparison``, ``bandwidth``, ``error``, ``memory``,
      ``transmission`` and ``energy``.
    """
    profile, limits, sweeps = case.profile, case.constraints, config.sweeps

    def at_rate(rate: float) -> autosplit.Profile:
        return with_uplink(profile, rate)

    def with_limit(name: str) -> Callable[[float], autosplit.Constraints]:
        return lambda value: dataclasses.replace(limits, **{name: value})

    limited = error_limit(limits)
    by_error, by_memory = with_limit(limited), with_limit("memory_bytes")
    jobs: dict[str, Callable[[], list[Entry]]] = {
        "comparison": lambda: compare(case),
        "bandwidth": lambda: _sweep(
            sweeps.uplink_bits_per_s, at_rate, lambda _: limits,
            lambda p, c: [*kept(case, p, c), *baselines(p, c)]),
        "error": lambda: _sweep(sweeps[limited], lambda _: profile, by_error,
                                functools.partial(budgeted, case)),
        "memory": lambda: _sweep(sweeps.memory_bytes, lambda _: profile, by_memory,
                                 functools.partial(budgeted, case)),
        "transmission": lambda: _sweep(
            sweeps.uplink_bits_per_s, at_rate, lambda _: limits, transmission),
        "energy": lambda: _sweep(
            sweeps.energy_networks,
            lambda name: dataclasses.replace(profile, network=named_network(name)),
            lambda _: limits, energy),
    }  # fmt: skip
    found: dict[str, list[Entry]] = {}
    for name, job in jobs.items():
        start_s = time.perf_counter()
        found[name] = measure(case, job())
        found[name] += best_of_families(found[name]) if name != "comparison" else []
        taken_s = time.perf_counter() - start_s
        print(f"   {name}: {len(found[name])} plans in {taken_s:.1f} s", flush=True)
    return found


def error_limit(constraints: autosplit.Constraints) -> str:
    """Returns the name of the constraint that limits the error."""
    return next(name for name in ERROR_LIMITS if name in constraints.limits())


def compare(case: Case) -> list[Entry]:
    """Returns every way to run the network under the constraints and link of the case.

    Auto-split is the fastest split whose *measured* error keeps the limit.
    """
    job = case.job
    try:
        plans = autosplit.solve_measured(
            case.graph, job.variables, job.calibration_inputs, case.profile, case.constraints,
            decoded=case.jpegs,
        )  # fmt: skip
    except InfeasibleError:
        plans = autosplit.solve(case.profile, case.constraints)
    return entries_of(
        [*named_plans(plans, AUTO), *baselines(case.profile, case.constraints)], case.constraints
    )


def _sweep(
    values: Sequence[float | str],
    profile_at: Callable[..., autosplit.Profile],
    constraints_at: Callable[..., autosplit.Constraints],
    plans_of: Callable[[autosplit.Profile, autosplit.Constraints], Series],
) -> list[Entry]:
    entries: list[Entry] = []
    for value in values:
        profile, constraints = profile_at(value), constraints_at(value)
        entries += entries_of(plans_of(profile, constraints), constraints, value)
    return entries


def budgeted(
    case: Case, profile: autosplit.Profile, constraints: autosplit.Constraints
) -> Series:
    """Returns the optimum, the best of each width, and what the original's search finds."""
    found = plan_lagrange_heuristic(profile, constraints)
    plans = [*kept(case, profile, constraints), *uniform(profile, constraints)]
    return [*plans, (HEURISTIC, found)]


def transmission(profile: autosplit.Profile, constraints: autosplit.Constraints) -> Series:
    """Returns the optimum, the same sent at 16 bits, and the optimum among those sent so."""
    plans = solved(profile, constraints)
    best = next((plan for series, plan in plans if series == PREDICTED), None)
    if best is not None:
        plans.append((SAME_PLAN, sent_plain(profile, best, constraints)))
    plain = best_sent_plain(profile, constraints)
    return plans if plain is None else [*plans, (BEST_PLAIN, plain)]


def energy(profile: autosplit.Profile, constraints: autosplit.Constraints) -> Series:
    """Returns the splits of least latency and of least energy, edge-only and cloud-only."""
    plans = solved(profile, constraints)
    thrifty = autosplit.solve(profile, constraints, Objective(latency_weight=0, energy_weight=1))
    found = named_plans(thrifty, LEAST_ENERGY)
    return [*plans, *((series, plan) for series, plan in found if series == LEAST_ENERGY)]
