"""Ladder: the trade-offs between latency, error and memory, by exact solves.

Epsilon-constraint: the fastest plan for each of a ladder of error budgets times a
few memory budgets. Only plans that beat what keeps all budgets without an error and
without memory (lossless cloud-only) are of interest; without one, the list is empty.
"""

from __future__ import annotations

import math

import numpy as np

from autosplit.profiling.plan import SplitPlan
from autosplit.solvers.charging import PACKED, runs_all, runs_some
from autosplit.solvers.constraints import ROUNDING, Constraints, known_error
from autosplit.solvers.pareto import non_dominated
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import budgets_of, find_fastest, plan_of

ERROR_RUNGS = 10
MEMORY_SHARES = (1.0, 0.5, 0.25, 0.125)
"""Of the memory that the fastest plan uses."""

SMALLEST_SHARE = 1e-6
"""Of the fastest plan's error: the lowest rung that is ever tried."""


def find_trade_offs(relaxation: Relaxation, constraints: Constraints,
                    known: list[SplitPlan]) -> list[SplitPlan]:
    """Finds plans that trade latency for a lower error or less edge memory.

    Args:
      relaxation: of the profile.
      constraints: every plan found keeps them.
      known: feasible plans, the exact optima at ``constraints`` among them.

    Returns:
      Plans of which none beats another in latency, predicted error and memory.
    """
    lossless = [plan.latency_s for plan in known
                if plan.edge_memory_bytes == 0 and known_error(plan) == 0]
    upper = min(lossless, default=math.inf)
    if constraints.latency_s is not None:
        upper = min(upper, constraints.latency_s * (1 + ROUNDING))
    tops = [plan for plan in known if plan.encoding == PACKED and plan.latency_s < upper]
    if not tops:
        return []
    top = min(tops, key=lambda plan: plan.latency_s)
    found = [top]
    for share in MEMORY_SHARES:
        budgets = budgets_of(constraints)
        if share < 1:
            budgets[2] = min(budgets[2], share * top.edge_memory_bytes)
        _descend_errors(relaxation, constraints, budgets, upper, found)
    return [found[index] for index in non_dominated(_coordinates(found))]


def _coordinates(plans: list[SplitPlan]) -> np.ndarray:
    return np.array([(plan.latency_s, plan.predicted_output_error, plan.edge_memory_bytes)
                     for plan in plans])


def _descend_errors(relaxation: Relaxation, constraints: Constraints, budgets: np.ndarray,
                    upper: float, found: list[SplitPlan]) -> None:
    """Adds the fastest plan of each rung to ``found``, until cloud-only is faster."""
    highest = found[0].predicted_output_error
    for error in _rungs(relaxation, budgets, upper, highest):
        budgets = np.array([min(error, budgets[0]), *budgets[1:]])
        latencies = [latency for latency, *use in _coordinates(found)
                     if use[0] <= budgets[0] and use[1] <= budgets[2]]
        fastest = find_fastest(relaxation, budgets, runs_some(relaxation.tables.profile),
                               upper=min([upper, *latencies]))
        if fastest.cut is not None:
            label = _label(relaxation, fastest.cut)
            found.append(plan_of(relaxation.tables.profile, fastest, constraints, label))
        elif not latencies:
            return


def _label(relaxation: Relaxation, cut: int) -> str:
    return "edge-only" if runs_all(relaxation.tables.profile)[cut] else "auto-split"


def _rungs(relaxation: Relaxation, budgets: np.ndarray, upper: float,
           highest: float) -> np.ndarray:
    """Returns error budgets, descending, down to where the bounds rule everything out."""
    if highest <= 0:
        return budgets[:1]
    lowest = highest
    for error in np.geomspace(highest, highest * SMALLEST_SHARE, 4 * ERROR_RUNGS):
        if relaxation.bounds(np.array([error, *budgets[1:]])).min(initial=math.inf) >= upper:
            break
        lowest = error
    return np.geomspace(highest, lowest, ERROR_RUNGS)
