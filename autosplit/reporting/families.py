"""Families of plans and stages of a request: their order, names and colours."""

from __future__ import annotations

from collections.abc import Sequence

from autosplit.profiling.plan import SplitPlan

# Colours of Okabe and Ito, told apart with every kind of colour blindness; the blue and
# the yellow are shifted so that they stand out on white and on black.
FAMILIES: dict[str, str] = {
    "auto-split": "#2B7BBA",
    "cloud-only": "#E69F00",
    "edge-only": "#009E73",
    "uniform": "#CC79A7",
    "other": "#8A8F98",
}
"""Colour of each family of plans."""

STAGES: dict[str, tuple[str, str]] = {
    "edge_s": ("edge layers", "#2B7BBA"),
    "pack_s": ("pack", "#56B4E9"),
    "uplink_s": ("uplink", "#E69F00"),
    "unpack_s": ("unpack", "#D8C62E"),
    "cloud_s": ("cloud layers", "#009E73"),
    "downlink_s": ("downlink", "#D55E00"),
    "round_trip_s": ("round trip", "#8A8F98"),
}
"""Title and colour of each stage, in the order in which a request passes them."""


def family_of(label: str) -> str:
    """Returns the family of a plan by its label.

    >>> [family_of(x) for x in ("cloud-only (png)", "uniform 8-bit", "dads")]
    ['cloud-only', 'uniform', 'other']
    """
    return next((name for name in FAMILIES if label.startswith(name)), "other")


def compared(plans: Sequence[SplitPlan], chosen: SplitPlan) -> tuple[SplitPlan, ...]:
    """Returns the chosen plan and its baselines, the baselines by latency.

    A baseline is a plan that is not Auto-Split's; of several with one label it is the
    fastest feasible one (the fastest where none is feasible); the chosen plan's own label is none.
    """
    best: dict[str, SplitPlan] = {}
    for plan in sorted(plans, key=lambda plan: (not plan.feasible, plan.latency_s)):
        if family_of(plan.label) != "auto-split" and plan.label != chosen.label:
            best.setdefault(plan.label, plan)
    return (chosen, *sorted(best.values(), key=lambda plan: plan.latency_s))
