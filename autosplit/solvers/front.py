"""Front: the plans that trade the objective, the output error and the edge memory.

Every cut and every assignment of bits takes part; `sweep` explores the budgets by exact
solves. Only plans that cost less than what keeps all budgets without an error and without
edge memory (lossless cloud-only) are of interest. A lossy encoding bounds nothing: its
error is not known before it is measured.
"""

from __future__ import annotations

import dataclasses
import math

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.solvers.charging import runs_all
from autosplit.solvers.constraints import ROUNDING, Constraints, known_error
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import Found, budgets_of, plan_of
from autosplit.solvers.sweep import Sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolution:
    """How much more than a plan that is not listed a listed one may spend.

    ResNet-50 at 3 Mbps (72 layers, 85 cuts, 7 bits) on one core: the default takes 0.5 s for
    31 plans. Where the edge is so fast that many cuts compete: 8.5 s for 308 plans; 0.25 and
    0.1, 3.4 s for 122; 0.5 and 0.2, 0.9 s for 50.

    Attributes:
      output_error, memory_bytes: relative, 0 or more. Both 0: every plan of the front,
        for small graphs; a large one may have millions.

    Raises:
      InputError: a value is no number, below 0 or not finite.
    """

    output_error: float = 0.1
    memory_bytes: float = 0.05

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise InputError(f"Resolution.{name} is {value!r}; expected a finite number, 0 for "
                                 "every plan or the share that plans may lie apart.")


REFINEMENTS = (Resolution(output_error=0.5, memory_bytes=0.2),
               Resolution(output_error=0.25, memory_bytes=0.1), Resolution())
"""Resolutions of a front that must not take long, each on top of what the one before found.

The profiles named at `Resolution` end at 0.25 and 0.1 after 0.5 s with 23 plans, and at
0.5 and 0.2 after 0.9 s with 50; graphs of 200 layers with up to 2,500 cuts take 1 to 2 s.
"""

ENOUGH_SOLVES = 60
"""A front that took more solves than this is not refined."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Front:
    """Plans of which none beats another, and what they are proven to cover.

    Every plan with a layer on the edge that keeps the constraints and costs less than
    ``upper`` has a listed plan (or, where ``cost_factor`` exceeds 1, ``upper`` itself) of
    at most ``cost_factor`` times its cost, ``error_factor`` times its predicted error and
    ``memory_factor`` times its memory. All 1.0: the exact front, up to rounding.

    Attributes:
      plans: by rising cost; each one's ``lower_bound`` is proven for its own budgets.
      upper: cost of the cheapest lossless cloud-only plan, infinity without one.
      cost_factor: 1.0, unless a knapsack ran out of labels.
      error_factor, memory_factor: 1 plus the resolution.
      solves: searches that it took.
    """

    plans: tuple[SplitPlan, ...]
    upper: float
    cost_factor: float
    error_factor: float
    memory_factor: float
    solves: int

    @property
    def exact(self) -> bool:
        """No plan is left out that no listed one beats or equals."""
        return self.cost_factor == self.error_factor == self.memory_factor == 1.0


def find_front(relaxation: Relaxation, constraints: Constraints, known: list[SplitPlan],
               resolution: Resolution | None = None) -> Front:
    """Finds the front of all plans with a layer on the edge.

    Args:
      relaxation: of the profile, for an objective; its pool grows.
      constraints: every plan found keeps them.
      known: feasible plans; lossless cloud-only among them bounds what is of interest.
      resolution: of error and memory. Where None: that of the last of `REFINEMENTS` that is
        reached before the solves exceed `ENOUGH_SOLVES`; the front's factors tell.

    Returns:
      The front; empty where nothing keeps the constraints and is of interest.

    >>> find_front(relaxation, Constraints(), plans).exact  # doctest: +SKIP
    False
    """
    upper = _interesting_below(relaxation, constraints, known)
    sweep = Sweep(relaxation, budgets_of(constraints), upper)
    for step in REFINEMENTS if resolution is None else (resolution,):
        error_factor, memory_factor = 1 + step.output_error, 1 + step.memory_bytes
        covers = sweep.run(error_factor, memory_factor)
        if sweep.solves > ENOUGH_SOLVES:
            break
    return Front(plans=tuple(_plan(relaxation, constraints, found) for found in covers),
                 upper=upper, cost_factor=sweep.cost_factor, error_factor=error_factor,
                 memory_factor=memory_factor, solves=sweep.solves)


def _interesting_below(relaxation: Relaxation, constraints: Constraints,
                       known: list[SplitPlan]) -> float:
    objective = relaxation.tables.objective
    lossless = [objective.cost(plan) for plan in known
                if plan.edge_memory_bytes == 0 and known_error(plan) == 0]
    upper = min(lossless, default=math.inf)
    # The search does not look at a limit of what it minimises.
    limit = constraints.limits().get(objective.minimises or "")
    if limit is None:
        return upper
    return min(upper, objective.weigh(limit, limit) * (1 + ROUNDING))


def _plan(relaxation: Relaxation, constraints: Constraints, found: Found) -> SplitPlan:
    profile = relaxation.tables.profile
    label = "edge-only" if runs_all(profile)[found.cut] else "auto-split"
    return plan_of(profile, found, constraints, label)
