"""Constraints: what a plan may cost, and whether it does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan

ROUNDING = 1e-9
"""Relative excess over a limit that counts as floating-point rounding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraints:
    """Limits on a plan; None is no limit.

    >>> Constraints(memory_bytes=4 << 20, output_error=0.01).limits()
    {'memory_bytes': 4194304, 'output_error': 0.01}

    Attributes:
      memory_bytes: edge weights plus the largest edge activation, 0 or more.
      output_error: relative mean squared error of the outputs; the measured one
        where a plan has been measured, otherwise the predicted one.
      quant_mse: sum of the tensor-local errors on the edge (the paper's budget).
      latency_s: end to end, above 0.
      energy_j: of the edge device for one inference, above 0.

    Raises:
      InputError: a limit is no number, NaN or out of its range.
    """

    memory_bytes: float | None = None
    output_error: float | None = None
    quant_mse: float | None = None
    latency_s: float | None = None
    energy_j: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits().items():
            number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
            if not number or math.isnan(limit):
                raise InputError(f"Constraints.{name} is {limit!r}; expected a number or None.")
        if self.memory_bytes is not None and self.memory_bytes < 0:
            raise InputError(
                f"Constraints.memory_bytes is {self.memory_bytes}; expected 0 or more bytes."
            )
        for name, unit in (("latency_s", "s"), ("energy_j", "J")):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                raise InputError(f"Constraints.{name} is {limit}; expected above 0 {unit}.")

    def limits(self) -> dict[str, float]:
        """Returns the limits that are set, by name."""
        fields = dataclasses.fields(self)
        limits = {field.name: getattr(self, field.name) for field in fields}
        return {name: limit for name, limit in limits.items() if limit is not None}


def known_error(plan: SplitPlan) -> float | None:
    """Returns the measured error, else the predicted one, else None (lossy encoding)."""
    if plan.output_error is not None:
        return plan.output_error
    return plan.predicted_output_error if plan.error_is_predicted else None


def costs(plan: SplitPlan) -> dict[str, float | None]:
    """Returns what a plan costs, by the name of the constraint that limits it."""
    return {
        "memory_bytes": plan.edge_memory_bytes,
        "output_error": known_error(plan),
        "quant_mse": plan.quant_mse,
        "latency_s": plan.latency_s,
        "energy_j": plan.energy_j,
    }


def within(value: Any, limit: float) -> Any:
    """Returns whether ``value`` (or each of an array) is at most ``limit``, up to rounding.

    >>> within(0.1 + 0.2, 0.3), within(2, 1)
    (True, False)
    """
    return value <= limit + ROUNDING * abs(limit)


def limits_broken(spent: Mapping[str, np.ndarray], constraints: Constraints) -> np.ndarray:
    """Returns how many limits each of some assignments breaks.

    Args:
      spent: arrays of one shape by the name of the constraint, as `charging.Charges.costs`.
      constraints: to keep.

    Returns:
      i64 of that shape.
    """
    broken = np.zeros(np.shape(next(iter(spent.values()))), dtype=np.int64)
    for name, limit in constraints.limits().items():
        broken += ~within(spent[name], limit)
    return broken


_UNKNOWN = {
    "output_error": "not predicted for a lossy encoding; measure the plan first",
    "energy_j": "not known; profile with a device and a network that state their energy",
}


def violations(plan: SplitPlan, constraints: Constraints) -> dict[str, str]:
    """Returns one sentence for each constraint that a plan breaks, by name."""
    broken = {}
    spent = costs(plan)
    for name, limit in constraints.limits().items():
        value = spent[name]
        if value is None:
            broken[name] = f"{name}: {_UNKNOWN[name]}"
        elif not within(value, limit):
            broken[name] = f"{name}: {value:.6g} exceeds {limit:.6g} by {value - limit:.6g}"
    return broken


def judge(plan: SplitPlan, constraints: Constraints) -> SplitPlan:
    """Returns the plan with ``feasible`` and ``reason`` set.

    Call it again once ``output_error`` has been measured.
    """
    broken = violations(plan, constraints)
    reason = "; ".join(broken.values()) if broken else _praise(plan, constraints)
    return dataclasses.replace(plan, feasible=not broken, reason=reason)


def _praise(plan: SplitPlan, constraints: Constraints) -> str:
    spent = costs(plan)
    terms = [f"{name} {spent[name]:.6g} of {limit:.6g}"
             for name, limit in constraints.limits().items()]
    text = "within " + ", ".join(terms) if terms else "no constraints"
    if known_error(plan) is None:
        text += "; lossy encoding, its error is not predicted but measured"
    return text
