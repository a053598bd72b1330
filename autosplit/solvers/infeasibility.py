"""Infeasibility: what the constraints ask for, what is attainable, and the shortfall."""

from __future__ import annotations

import dataclasses

import numpy as np

from autosplit.errors import InfeasibleError
from autosplit.profiling.plan import SplitPlan
from autosplit.solvers.charging import runs_all, runs_some
from autosplit.solvers.constraints import Constraints, costs, violations, within
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import Found, budgets_of, find_fastest, plan_of
from autosplit.solvers.subproblem import RESOURCES


def explain_all(relaxation: Relaxation, constraints: Constraints,
                plans: list[SplitPlan]) -> InfeasibleError:
    """Makes the error for constraints that no plan keeps, cloud-only included.

    For each constraint, the least value among plans that keep the others: the
    fastest of all plans without that constraint and those on the list.
    """
    reasons = tuple(_attainable(relaxation, constraints, plans, name)
                    for name in constraints.limits())
    listed = " ".join(reasons)
    return InfeasibleError(f"No plan keeps the constraints, not even cloud-only. {listed} "
                           "Relax one of them.", reasons)


def _attainable(relaxation: Relaxation, constraints: Constraints, plans: list[SplitPlan],
                name: str) -> str:
    limit = constraints.limits()[name]
    others = dataclasses.replace(constraints, **{name: None})
    profile = relaxation.tables.profile
    found = find_fastest(relaxation, budgets_of(others), runs_some(profile))
    candidates = list(plans)
    if found.cut is not None:
        candidates.append(plan_of(profile, found, others, "auto-split"))
    kept = [plan for plan in candidates if not violations(plan, others)]
    values = [value for plan in kept or candidates
              if (value := costs(plan)[name]) is not None]
    best = min(values)
    scope = "within the other limits" if kept else "even without the other limits"
    if within(best, limit):
        return f"{name}: {limit:.6g} can be kept, but not together with the other limits."
    return (f"{name}: {limit:.6g} was asked for, the best attainable {scope} is {best:.6g}, "
            f"short by {best - limit:.6g}.")


def explain_splits(relaxation: Relaxation, constraints: Constraints, split: Found,
                   edge: Found) -> tuple[str, ...]:
    """Explains why no proper split, or not edge-only, keeps the constraints.

    Returns:
      One sentence for each cause; empty where both keep them.
    """
    whole = runs_all(relaxation.tables.profile)
    some = runs_some(relaxation.tables.profile) & ~whole
    sentences: list[str] = []
    for what, found, cuts in (("a proper split", split, some), ("edge-only", edge, whole)):
        if not cuts.any():
            sentences.append(f"{what}: the profile has no such cut.")
        elif found.cut is None:
            sentences += _unattainable(relaxation, constraints, what, cuts)
        elif constraints.latency_s is not None and not within(found.latency_s,
                                                              constraints.latency_s):
            sentences.append(f"{what}: the fastest takes {found.latency_s:.6g} s, "
                             f"{found.latency_s - constraints.latency_s:.6g} s over the limit.")
    return tuple(sentences)


def _unattainable(relaxation: Relaxation, constraints: Constraints, what: str,
                  cuts: np.ndarray) -> list[str]:
    least = relaxation.least_use()[cuts[relaxation.cut]].min(axis=0)
    sentences = []
    for name, needed in zip(RESOURCES, least, strict=True):
        limit = getattr(constraints, name)
        if limit is not None and not within(needed, limit):
            sentences.append(f"{what}: {name} of {limit:.6g} is too small, the smallest that any "
                             f"needs is {needed:.6g}, {needed - limit:.6g} more.")
    return sentences or [f"{what}: each limit can be kept alone, but no assignment keeps all."]
