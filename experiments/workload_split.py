"""The step ``split``: all plans of a profile, the chosen split, and what others would do."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_collections

import autosplit
from autosplit.errors import InfeasibleError
from autosplit.files import to_plain
from autosplit.reporting.canvas import save_figure
from autosplit.reporting.pareto import pareto_figure
from autosplit.workload import FLOAT_BITS
from experiments.paper_plans import baselines
from experiments.steps import constraints_of, decoded_jpegs
from experiments.workload_case import BASELINES, CHOSEN, PLANS, Case, clocked
from experiments.workload_heads import solve_by_heads, with_head_gains


def settings_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what this step depends on, beside the one before it."""
    return to_plain({"constraints": config.constraints.to_dict()})


def run_split(case: Case) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Solves, and compares with the baselines.

    Where the output error is limited, plans are measured until the best keeps the limit;
    otherwise they are held to what is predicted.

    Returns:
      The files that were written, and the figures.
    """
    constraints = constraints_of(case.config)
    (plans, profile), solve_time = clocked("solve", lambda: _solve(case, constraints))
    print(f"   {len(plans)} plans in {solve_time['solve_s']:.1f} s", flush=True)
    found, baselines_time = clocked("baselines", lambda: baselines(profile, constraints))
    others = dataclasses.replace(plans, plans=tuple(plan for _, plan in found))
    chosen = chosen_split(plans)
    folder = case.workdir
    plans.save(folder / PLANS)
    plans.to_csv(folder / "plans.csv")
    others.save(folder / BASELINES)
    others.to_csv(folder / "baselines.csv")
    (folder / CHOSEN).unlink(missing_ok=True)
    if chosen is not None:
        chosen.save(folder / CHOSEN)
    shown = chosen or plans.best
    save_figure(pareto_figure([*plans, *others], shown), folder / "front.png")
    files = (PLANS, "plans.csv", BASELINES, "baselines.csv", "front.png",
             *([CHOSEN] if chosen is not None else []))  # fmt: skip
    return files, {
        "chosen": None if chosen is None else plan_figures(chosen),
        "no_split_because": list(plans.split_infeasible) if chosen is None else [],
        "lower_bound": plans.lower_bound,
        "plans": len(plans),
        "baselines": len(others),
        **solve_time,
        **baselines_time,
    }


def _solve(
    case: Case, constraints: autosplit.Constraints
) -> tuple[autosplit.Plans, autosplit.Profile]:
    """Returns the plans, and the profile that they were solved with."""
    profile, job = case.checked_profile(), case.job
    if constraints.output_error is None:
        return autosplit.solve(profile, constraints), profile
    if case.is_detector:
        profile = with_head_gains(case, profile)
        return solve_by_heads(case, profile, constraints, _tell_error), profile
    plans = autosplit.solve_measured(
        case.graph,
        job.variables,
        job.calibration_inputs,
        profile,
        constraints,
        decoded=decoded_jpegs(job.calibration_images, job.normalize),
        on_round=_tell,
    )
    return plans, profile


def _tell(number: int, plans: autosplit.Plans) -> None:
    print(f"   round {number + 1}: {len(plans)} plans are measured", flush=True)


def _tell_error(number: int, error: float | None) -> None:
    found = "there is no split" if error is None else f"the best split has an error of {error:.3g}"
    print(f"   round {number + 1}: {found}", flush=True)


def chosen_split(plans: autosplit.Plans) -> autosplit.SplitPlan | None:
    """Returns the best plan with a layer on the edge; None where none keeps the constraints."""
    try:
        return plans.best_split
    except InfeasibleError:
        return None


def plan_figures(plan: autosplit.SplitPlan) -> dict[str, Any]:
    """Returns what a table of workloads says of a split."""
    weights = [b for b, on in zip(plan.w_bits, plan.on_edge, strict=True) if on and b < FLOAT_BITS]
    return {
        "label": plan.label,
        "cut": plan.cut_name,
        "edge_layers": sum(plan.on_edge),
        "mean_weight_bits": sum(weights) / len(weights) if weights else None,
        "uplink_bytes": plan.uplink_bytes,
        "edge_memory_bytes": plan.edge_memory_bytes,
        "simulated_latency_s": plan.latency_s,
        "lower_bound": plan.lower_bound,
    }
