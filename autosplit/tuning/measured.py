"""``autosplit.measure`` and ``autosplit.solve_measured``: plans that keep their error budget.

A solver predicts the output error of a plan to first order. Here it is measured
end to end on the calibration batch, and where the best split breaks the budget
the solver gets a tighter one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from autosplit.errors import InfeasibleError
from autosplit.graph import LayerGraph
from autosplit.profiling.assignment import input_error, output_errors
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers import Constraints, Objective, Plans, judge, solve

SAFETY = 0.9
"""Part of the proportionally tightened budget that the next round may use."""


def measure(
    graph: LayerGraph,
    params: Any,
    calibration: Any,
    plans: Plans,
    *,
    decoded: Mapping[str, Any] | None = None,
) -> Plans:
    """Measures the end-to-end output error of every plan and judges the plans by it.

    Args:
      graph: traced function.
      params: its parameters.
      calibration: as for `autosplit.profile`.
      plans: made for the graph.
      decoded: for each lossy encoding (``"jpeg-q90"``) the batch as the cloud decodes
        it; a lossy plan without one stays unmeasured.

    Returns:
      The same plans with ``output_error`` set, judged again.

    Raises:
      PlanMismatchError: the plans were made for another graph.
    """
    batches = decoded or {}
    known = [plan for plan in plans if plan.error_is_predicted]
    errors = dict(
        zip(map(id, known), output_errors(graph, params, calibration, known), strict=True)
    )
    for plan in plans:
        if not plan.error_is_predicted and plan.encoding in batches:
            errors[id(plan)] = input_error(graph, params, calibration, batches[plan.encoding])
    measured = [
        judge(dataclasses.replace(plan, output_error=errors.get(id(plan))), plans.constraints)
        for plan in plans
    ]
    return dataclasses.replace(plans, plans=tuple(measured))


def solve_measured(
    graph: LayerGraph,
    params: Any,
    calibration: Any,
    profile: Profile,
    constraints: Constraints,
    objective: Objective | None = None,
    *,
    decoded: Mapping[str, Any] | None = None,
    rounds: int = 6,
    on_round: Callable[[int, Plans], None] = lambda _, __: None,
) -> Plans:
    """Solves, measures, and tightens the predicted budget until the best split keeps it.

    Args:
      graph, params, calibration, decoded: as for `measure`.
      profile: of the graph.
      constraints: of the user; judged by the measured error.
      objective: as for `autosplit.solve`.
      rounds: most solves.
      on_round: called with the round and its measured plans.

    Returns:
      The plans of all rounds, measured and judged by ``constraints``. ``lower_bound`` is
      that of the first round: it bounds the plans whose *predicted* costs keep the
      constraints, so ``gap`` also tells what the tighter budgets cost.

    Raises:
      InfeasibleError: no plan keeps the constraints.
    """
    limit = budget = constraints.output_error
    collected: dict[tuple[Any, ...], SplitPlan] = {}
    rounds_done: list[Plans] = []
    for number in range(rounds):
        try:
            tightened = dataclasses.replace(constraints, output_error=budget)
            solved = solve(profile, tightened, objective)
        except InfeasibleError:
            if not rounds_done:
                raise
            break  # the tighter budget leaves nothing; what was found before may still do
        solved = dataclasses.replace(solved, constraints=constraints)
        plans = measure(graph, params, calibration, solved, decoded=decoded)
        rounds_done.append(plans)
        on_round(number, plans)
        for plan in plans:
            key = (plan.label, plan.encoding, plan.on_edge, plan.w_bits, plan.a_bits)
            collected.setdefault(key, plan)
        best = next((p for p in plans if p.label == "auto-split"), None)
        if not limit or not budget or best is None or not best.output_error or best.feasible:
            break
        budget = SAFETY * budget * min(limit / best.output_error, 1.0)
    if not any(plan.feasible for plan in collected.values()):
        reasons = tuple(f"{plan.label}: {plan.reason}" for plan in collected.values())
        raise InfeasibleError(
            "No plan keeps the constraints once its output error is measured. "
            + "; ".join(reasons[:3]),
            reasons,
        )
    return dataclasses.replace(
        rounds_done[-1],
        plans=tuple(collected.values()),
        lower_bound=rounds_done[0].lower_bound,
    )
