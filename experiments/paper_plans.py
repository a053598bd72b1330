"""The plans that the paper compares, for one profile: entries with what they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

import autosplit
from autosplit.errors import InfeasibleError
from autosplit.profiling.assignment import input_error, output_errors
from autosplit.solvers import best_uniform, judge, price
from autosplit.solvers.baselines import applicable, compare_baselines
from autosplit.solvers.charging import PACKED, PLAIN
from autosplit.solvers.open_cuts import with_cuts
from experiments.paper_case import Case

AUTO = "auto-split"
"""The fastest split found whose measured error keeps the limit."""
PREDICTED = "optimum (predicted error)"
"""The exact optimum among splits; what its error is predicted to be keeps the limit."""
EDGE, RAW, PNG = "edge-only", "cloud-only (raw)", "cloud-only (png)"
JPEG, UNIFORM = "cloud-only (best JPEG)", "uniform (best width)"
"""The fastest of a family whose measured error keeps the limit."""
ROUNDS, SAFETY = 8, 0.97
"""Of `kept`: most solves, and the part of a tightened budget that the next may use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A plan at a place in the experiments.

    Attributes:
      value: what was varied has this value; None where nothing was.
      series: what the plan stands for, e.g. ``"uniform (best width)"``.
      plan: priced, and judged by the constraints.
      constraints: that it was asked for.
      keeps_predicted: the constraints, by the error that was predicted.
      cloud_only_s: latency of cloud-only with the raw input under the same link.
    """

    value: float | str | None
    series: str
    plan: autosplit.SplitPlan
    constraints: autosplit.Constraints
    keeps_predicted: bool
    cloud_only_s: float


def entries_of(
    plans: Sequence[tuple[str, autosplit.SplitPlan]],
    constraints: autosplit.Constraints,
    value: float | str | None = None,
) -> list[Entry]:
    """Returns entries of named plans of one profile, cloud-only raw among them."""
    cloud_only_s = next(plan.latency_s for series, plan in plans if series == RAW)
    return [
        Entry(value=value, series=series, plan=plan, constraints=constraints,
              keeps_predicted=plan.feasible, cloud_only_s=cloud_only_s)
        for series, plan in plans
    ]  # fmt: skip


def solved(
    profile: autosplit.Profile, constraints: autosplit.Constraints
) -> list[tuple[str, autosplit.SplitPlan]]:
    """Returns the exact optimum among proper splits, edge-only, and cloud-only in every code.

    Where no proper split keeps the constraints, there is none in the list.
    """
    return named_plans(autosplit.solve(profile, constraints), PREDICTED)


def named_plans(plans: autosplit.Plans, split: str) -> list[tuple[str, autosplit.SplitPlan]]:
    """Picks the plans that experiments compare out of a list of a solver.

    Args:
      plans: the best comes first.
      split: what the best proper split is called.
    """
    splits = [p for p in plans if p.feasible and p.encoding == PACKED and not all(p.on_edge)]
    whole = [p for p in plans if p.label == EDGE]
    cloud = [p for p in plans if not any(p.on_edge)]
    # The trade-offs around the optimum are no part of this.
    chosen = splits[:1] + sorted(whole, key=lambda p: (not p.feasible, p.latency_s))[:1] + cloud
    return [(split if p in splits else p.label, p) for p in chosen]


def kept(
    case: Case, profile: autosplit.Profile, constraints: autosplit.Constraints
) -> list[tuple[str, autosplit.SplitPlan]]:
    """Returns what `solved` does, and the split that keeps the limit as it is measured.

    As `autosplit.solve_measured`, but it measures the optimum alone: where that breaks the
    limit, the solver gets a tighter one.
    """
    plans = solved(profile, constraints)
    limit = budget = constraints.output_error
    found = dict(plans).get(PREDICTED)
    if limit is None or budget is None:  # no limit that a measurement could find broken
        return plans if found is None else [*plans, (AUTO, found)]
    for _ in range(ROUNDS):
        if found is None:
            break
        error = _measured(case, found)
        if error <= limit:
            return [*plans, (AUTO, dataclasses.replace(found, output_error=error))]
        budget = SAFETY * budget * min(limit / error, 1.0)
        tighter = dataclasses.replace(constraints, output_error=budget)
        found = dict(solved(profile, tighter)).get(PREDICTED)
    return plans


def _measured(case: Case, plan: autosplit.SplitPlan) -> float:
    job = case.job
    return output_errors(case.graph, job.variables, job.calibration_inputs, [plan])[0]


def baselines(
    profile: autosplit.Profile, constraints: autosplit.Constraints
) -> list[tuple[str, autosplit.SplitPlan]]:
    """Returns what others would do, under the same charging; cloud-only is in `solved`."""
    names = [name for name in applicable(profile) if not name.startswith("cloud-only")]
    return [(plan.label, plan) for plan in compare_baselines(profile, constraints, names)]


def uniform(
    profile: autosplit.Profile, constraints: autosplit.Constraints
) -> list[tuple[str, autosplit.SplitPlan]]:
    """Returns the fastest plan with each width everywhere on the edge, where one fits."""
    plans = [best_uniform(profile, int(b), constraints) for b in profile.bits]
    return [(plan.label, plan) for plan in plans if plan.feasible]


def sent_plain(
    profile: autosplit.Profile, plan: autosplit.SplitPlan, constraints: autosplit.Constraints
) -> autosplit.SplitPlan:
    """Prices a split again, its crossing tensors sent as numbers of 16 bits."""
    edge = np.array(plan.on_edge)
    if not (profile.on_edge == edge).all(axis=1).any():
        profile = with_cuts(profile, edge[None])  # a cut that the solver found
    found = np.flatnonzero((profile.on_edge == edge).all(axis=1))
    repriced = price(
        profile, cut=int(found[0]), w_bits=np.array(plan.w_bits), a_bits=np.array(plan.a_bits),
        label=plan.label, encoding=PLAIN,
    )  # fmt: skip
    return judge(repriced, constraints)


def best_sent_plain(
    profile: autosplit.Profile, constraints: autosplit.Constraints
) -> autosplit.SplitPlan | None:
    """Finds the fastest split that sends 16-bit numbers; None where no split fits.

    The solver packs what it sends, so it gets a profile whose packing takes as long as
    sending 16-bit numbers does, on a link that takes no time.
    """
    network, wide = profile.network, profile.unquantized
    overhead_s = network.uplink_s(0)
    sending_s = wide.pack_s + network.uplink_s(wide.tensor_bytes) - overhead_s
    instant = dataclasses.replace(
        network,
        uplink_bits_per_s=1e30,
        downlink_bits_per_s=network.downlink_bits_per_s or network.uplink_bits_per_s,
        round_trip_s=network.round_trip_s + overhead_s,
    )
    changed = dataclasses.replace(
        profile,
        network=instant,
        pack_s=np.broadcast_to(sending_s[:, None], profile.pack_s.shape),
        unpack_s=np.broadcast_to(wide.unpack_s[:, None], profile.unpack_s.shape),
    )
    try:
        plan = next(p for name, p in solved(changed, constraints) if name == PREDICTED)
    except (InfeasibleError, StopIteration):
        return None
    return sent_plain(profile, plan, constraints)


def measure(case: Case, entries: Sequence[Entry]) -> list[Entry]:
    """Measures the output error of every plan on the calibration photographs, each once.

    Args:
      case: what the plans were made for.
      entries: plans that are measured already stay so.

    Returns:
      The entries with ``output_error`` set and judged by it.
    """
    todo = {_assignment(e.plan): e.plan for e in entries if e.plan.output_error is None}
    coded = {name: p for name, p in todo.items() if not p.error_is_predicted}
    plain = {name: p for name, p in todo.items() if p.error_is_predicted}
    job = case.job
    found = output_errors(case.graph, job.variables, job.calibration_inputs, list(plain.values()))
    errors = dict(zip(plain, found, strict=True))
    jpegs = case.jpegs if coded else {}
    for name, plan in coded.items():
        decoded = jpegs[plan.encoding]
        errors[name] = input_error(case.graph, job.variables, job.calibration_inputs, decoded)
    return [dataclasses.replace(entry, plan=_judged(entry, errors)) for entry in entries]


def _judged(entry: Entry, errors: dict[Any, float]) -> autosplit.SplitPlan:
    plan = entry.plan
    if plan.output_error is None:
        plan = dataclasses.replace(plan, output_error=errors[_assignment(plan)])
    return judge(plan, entry.constraints)


def _assignment(plan: autosplit.SplitPlan) -> tuple[Any, ...]:
    """Returns what decides the outputs of a plan: how packed tensors travel does not."""
    code = "" if any(plan.on_edge) else plan.encoding
    return (code, plan.on_edge, plan.w_bits, plan.a_bits)


def best_of_families(entries: Sequence[Entry]) -> list[Entry]:
    """Returns, for each value, the fastest JPEG and width whose measured error keeps the limit.

    Where the output error is not limited, the JPEG of the best quality: none could break a limit.
    """
    families = {"cloud-only (jpeg": JPEG, "uniform ": UNIFORM}
    best: dict[Any, Entry] = {}
    coded = [entry.plan.uplink_bytes for entry in entries if not entry.plan.error_is_predicted]
    finest = max(coded, default=0.0)
    for entry in sorted(entries, key=lambda entry: entry.plan.latency_s):
        lossy = not entry.plan.error_is_predicted
        if lossy and entry.constraints.output_error is None and entry.plan.uplink_bytes < finest:
            continue
        for start, series in families.items():
            if entry.series.startswith(start) and entry.plan.feasible:
                best.setdefault(
                    (entry.value, series), dataclasses.replace(entry, series=series)
                )
    return list(best.values())
