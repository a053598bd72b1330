"""Planner: all plans of a profile, exactly solved.

The problem. For a cut c, an activation level A (bytes, one of the sizes that an edge
tensor can have whose bits are free) and a top b (one of the candidate bits):
  - every such tensor on the edge (read or written by an edge layer) takes the largest
    bits up to b with tensor_bytes <= A; a crossing tensor takes any bits up to that;
  - every weight group takes one of the candidate bits;
  - latency = edge layers (by weight bits and the widest tensor touched) + pack +
    uplink + unpack + cloud layers + downlink + round trip (edge-only: edge layers);
  - predicted_output_error = sum of gain * quant_mse over edge weights and tensors
    made on the edge; quant_mse the same without gains;
  - edge memory = packed edge weights + largest edge activation.
  - energy = edge layers + pack + sending + receiving, of the edge device.
Minimise the objective, a weighted sum of latency and energy, within the budgets of
all of these. Each (c, A, b) is a multi-choice knapsack; `search` solves them together,
best bound first, with a proof.

Reference: Auto-Split (arXiv 2108.13041), section 4. Deviations: all crossing tensors
are charged; crossing tensors may be narrower than the level; the top lets narrow tensors
be faster than the memory asks for, so that every uniform assignment is one of these (bits
chosen tensor by tensor within the edge are not); the knapsack is exact
instead of its convex hull; budgets are searched instead of sampled; every cut is
searched (the rule T_n <= T_0 could drop the optimum, since the edge's own time counts).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers import charging
from autosplit.solvers.cloud_only import price_in_cloud
from autosplit.solvers.constraints import Constraints, judge
from autosplit.solvers.front import find_front
from autosplit.solvers.infeasibility import explain_all, explain_splits
from autosplit.solvers.objective import Objective, check_energy
from autosplit.solvers.open_cuts import search_open_cuts
from autosplit.solvers.plan_list import Plans
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import Found, budgets_of, find_fastest, plan_of
from autosplit.solvers.tables import Tables
from autosplit.solvers.uniform import best_uniform

UNIFORM_BITS = 8


def solve(profile: Profile, constraints: Constraints | None = None,
          objective: Objective | None = None) -> Plans:
    """Finds the plan of least cost within the constraints, and the trade-offs around it.

    The list always holds cloud-only under each encoding, edge-only (the optimum of
    the last cut, or why there is none), the best uniform 8-bit split and the best
    proper split, whether or not they are dominated; beyond these the Pareto front over
    cost, predicted error and edge memory (`front` says what it covers). ``lower_bound`` of a
    plan bounds the splits (edge-only: the assignments of the last cut) within that
    plan's own budgets; of a uniform plan, all plans; of cloud-only, it is its cost.

    Args:
      profile: of the graph, for one edge, cloud and network.
      constraints: to keep; none by default.
      objective: what a cost is; the latency by default.

    Returns:
      Plans, the cheapest first; ``plans.best`` is feasible.

    Raises:
      InfeasibleError: no plan keeps the constraints, cloud-only included.
      InputError: the profile prices no input encoding or has no cloud-only cut, or
        energy is asked for and the profile knows none.

    >>> plans = solve(profile, Constraints(memory_bytes=4 << 20))  # doctest: +SKIP
    >>> plans.best.label                                           # doctest: +SKIP
    'auto-split'
    """
    constraints = Constraints() if constraints is None else constraints
    objective = Objective() if objective is None else objective
    _check_energy(profile, constraints, objective)
    cloud = _cloud_only(profile, constraints, objective)
    relaxation = Relaxation(Tables(profile, objective))
    budgets = budgets_of(constraints)
    whole = charging.runs_all(profile)
    split = find_fastest(relaxation, budgets, charging.runs_some(profile) & ~whole)
    opened = search_open_cuts(relaxation.tables, budgets, split)
    if opened.profile is not profile:
        profile = opened.profile
        relaxation = Relaxation(relaxation.tables.at(profile))
        whole = charging.runs_all(profile)
    split = opened.found
    edge = find_fastest(relaxation, budgets, whole)
    always = [*cloud, *_split_plans(profile, split, constraints)]
    always += _edge_only(relaxation, edge, constraints, whole)
    uniform = _uniform(profile, constraints, objective)
    bounds = [plan.lower_bound for plan in always if plan.feasible]
    bounds += [objective.cost(uniform)] * uniform.feasible
    bounds += [found.lower_bound for found in (split, edge) if not found.proven]
    lower = min(bounds, default=math.inf)
    always.append(dataclasses.replace(uniform, lower_bound=min(lower, objective.cost(uniform))))
    if not any(plan.feasible for plan in always):
        raise explain_all(relaxation, constraints, always)
    front = find_front(relaxation, constraints, [p for p in always if p.feasible])
    return Plans(plans=_distinct([*always, *front.plans]), constraints=constraints,
                 objective=objective, lower_bound=lower,
                 split_infeasible=explain_splits(relaxation, constraints, split, edge))


def _check_energy(profile: Profile, constraints: Constraints, objective: Objective) -> None:
    if objective.energy_weight > 0:
        check_energy(profile, f"Objective.energy_weight of {objective.energy_weight:.6g}")
    if constraints.energy_j is not None:
        check_energy(profile, f"Constraints.energy_j of {constraints.energy_j:.6g}")


def _cloud_only(profile: Profile, constraints: Constraints,
                objective: Objective) -> list[SplitPlan]:
    if not profile.input_encodings:
        raise InputError("The profile has no input encodings; expected at least one, the price "
                         "of cloud-only. Profile the graph again.")
    plans = [price_in_cloud(profile, encoding.name) for encoding in profile.input_encodings]
    plans = [dataclasses.replace(plan, lower_bound=objective.cost(plan)) for plan in plans]
    return [judge(plan, constraints) for plan in plans]


def _split_plans(profile: Profile, split: Found, constraints: Constraints) -> list[SplitPlan]:
    if split.cut is None:
        return []
    return [plan_of(profile, split, constraints, "auto-split")]


def _edge_only(relaxation: Relaxation, edge: Found, constraints: Constraints,
               whole: np.ndarray) -> list[SplitPlan]:
    """Returns the optimum of the last cut, or a plan that shows what it lacks.

    Where no assignment keeps the budgets: the optimum without the memory budget;
    where the errors cannot be kept either, the widest bits everywhere.
    """
    profile = relaxation.tables.profile
    if not whole.any():
        return []
    if edge.cut is None:
        unlimited = dataclasses.replace(constraints, memory_bytes=None)
        edge = find_fastest(relaxation, budgets_of(unlimited), whole)
    if edge.cut is not None:
        return [plan_of(profile, edge, constraints, "edge-only")]
    w_bits = np.full(len(profile.macs), profile.bits[-1])
    a_bits = np.full(len(profile.producer), profile.bits[-1])
    plan = charging.price(profile, cut=int(np.flatnonzero(whole)[0]), w_bits=w_bits,
                          a_bits=a_bits, label="edge-only")
    return [judge(plan, constraints)]


def _uniform(profile: Profile, constraints: Constraints, objective: Objective) -> SplitPlan:
    bits = UNIFORM_BITS if UNIFORM_BITS in profile.bits else int(profile.bits[-1])
    return best_uniform(profile, bits, constraints, objective)


def _distinct(plans: list[SplitPlan]) -> tuple[SplitPlan, ...]:
    """Drops plans that repeat an earlier one's assignment (a uniform one stays)."""
    kept: dict[tuple[object, ...], SplitPlan] = {}
    for plan in plans:
        name = plan.label if plan.label.startswith("uniform") else ""
        kept.setdefault((name, plan.encoding, plan.on_edge, plan.w_bits, plan.a_bits), plan)
    return tuple(kept.values())
