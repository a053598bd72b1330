"""Infeasibility: which limits contradict each other, what is attainable, the shortfall."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from autosplit.errors import InfeasibleError
from autosplit.profiling.plan import SplitPlan
from autosplit.solvers import knapsack
from autosplit.solvers.charging import runs_all, runs_some
from autosplit.solvers.constraints import Constraints, costs, violations, within
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import Found, budgets_of, find_fastest, plan_of
from autosplit.solvers.tables import RESOURCES

BISECTIONS = 12
CLOSE = 1.01
"""An attainable value is narrowed down to this factor; more would cost more than the solve."""

COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}


def explain_all(relaxation: Relaxation, constraints: Constraints,
                plans: list[SplitPlan]) -> InfeasibleError:
    """Makes the error for constraints that no plan keeps, cloud-only included.

    Args:
      plans: cloud-only under each encoding, and whatever else is listed.
    """
    some = runs_some(relaxation.tables.profile)
    reasons = _Limits(relaxation, constraints, some, plans).explain()
    return InfeasibleError("No plan keeps the constraints, not even cloud-only. "
                           f"{' '.join(reasons)} Relax one of them.", reasons)


def explain_splits(relaxation: Relaxation, constraints: Constraints, split: Found,
                   edge: Found) -> tuple[str, ...]:
    """Explains why no proper split, or not edge-only, keeps the constraints.

    Returns:
      One sentence for each cause; empty where both keep them.
    """
    profile = relaxation.tables.profile
    whole = runs_all(profile)
    some = runs_some(profile) & ~whole
    sentences: list[str] = []
    for what, found, cuts in (("a proper split", split, some), ("edge-only", edge, whole)):
        if not cuts.any():
            sentences.append(f"{what}: the profile has no such cut.")
        elif found.cut is None or violations(plan_of(profile, found, constraints, what),
                                             constraints):
            limits = _Limits(relaxation, constraints, cuts, [])
            sentences += [f"{what}: {reason}" for reason in limits.explain()]
    return tuple(sentences)


class _Limits:
    """The limits of some constraints, and which of them some cuts can keep together.

    ``plans`` are known ones; what the searches find joins them.
    """

    def __init__(self, relaxation: Relaxation, constraints: Constraints, cuts: np.ndarray,
                 plans: list[SplitPlan]):
        self.relaxation, self.constraints, self.cuts = relaxation, constraints, cuts
        self.limits = constraints.limits()
        self.plans = list(plans)

    def explain(self) -> tuple[str, ...]:
        """Returns a sentence on the smallest set of limits that contradict each other.

        Before it comes one for each of them: the least attainable within the others.
        """
        names = self._smallest()
        shortfalls = tuple(self._shortfall(name, names) for name in names)
        if len(names) == 1:
            return shortfalls
        listed = " and ".join(f"{name} of {self.limits[name]:.6g}" for name in names)
        alone = "each" if len(names) == 2 else f"any {COUNTS[len(names) - 1]} of them"
        return (*shortfalls, f"{listed} contradict each other: {alone} can be kept, but not "
                f"all {COUNTS[len(names)]} together.")

    def _smallest(self) -> tuple[str, ...]:
        for size in range(1, len(self.limits)):
            for names in itertools.combinations(self.limits, size):
                if not self._keeps(self._only(names)):
                    return names
        return tuple(self.limits)

    def _only(self, names: tuple[str, ...]) -> Constraints:
        return Constraints(**{name: self.limits[name] for name in names})

    def _keeps(self, constraints: Constraints,
               max_labels: int = knapsack.MAX_LABELS) -> SplitPlan | None:
        """Returns a plan that keeps some constraints, None where none was found."""
        known = next((plan for plan in self.plans if not violations(plan, constraints)), None)
        if known is not None:
            return known
        found = find_fastest(self.relaxation, budgets_of(constraints), self.cuts,
                             enough=self._enough(constraints), max_labels=max_labels)
        if found.cut is None:
            return None
        plan = plan_of(self.relaxation.tables.profile, found, constraints, "auto-split")
        self.plans.append(plan)
        return None if violations(plan, constraints) else plan

    def _enough(self, constraints: Constraints) -> float:
        """Returns the cost at which the objective's own limit is kept."""
        objective = self.relaxation.tables.objective
        limit = constraints.limits().get(objective.minimises or "", math.inf)
        return objective.weigh(limit, limit)

    def _shortfall(self, name: str, names: tuple[str, ...]) -> str:
        others = tuple(other for other in names if other != name)
        limit, best = self.limits[name], self._least(name, self._only(others))
        scope = "".join(f" with {other} within {self.limits[other]:.6g}" for other in others)
        if not math.isfinite(best):
            return (f"{name}: {limit:.6g} was asked for; no plan{scope} is known to attain any "
                    "value (lossy encodings must be measured first).")
        return (f"{name}: {limit:.6g} was asked for, the best attainable{scope} is {best:.6g}, "
                f"short by {best - limit:.6g}.")

    def _least(self, name: str, others: Constraints) -> float:
        """Returns the least value of a resource within other limits.

        Exact for the objective's own resource and where its bound can be met, else
        narrowed down by bisection to `CLOSE`. In any case a plan with the value was found.
        """
        others = dataclasses.replace(others, **{name: math.inf})  # known, whatever it is
        self._keeps(others)
        if name == self.relaxation.tables.objective.minimises:
            self._keeps(dataclasses.replace(others, **{name: np.finfo(float).tiny}))
            return self._known(name, others)
        nodes = self.cuts[self.relaxation.cut]
        least = self.relaxation.least_use(RESOURCES.index(name))[nodes].min(initial=math.inf)
        low = trial = max(self.limits[name], float(least))
        high = self._known(name, others)
        for _ in range(BISECTIONS):
            if within(high, max(low, CLOSE * low)):
                break
            trial_limits = dataclasses.replace(others, **{name: trial})
            if not self._keeps(trial_limits, knapsack.FIRST_LABELS):
                low = trial
            high = self._known(name, others)
            trial = math.sqrt(low * high) if low > 0 else (low + high) / 2
        return high

    def _known(self, name: str, others: Constraints) -> float:
        values = [costs(plan)[name] for plan in self.plans if not violations(plan, others)]
        return min((value for value in values if value is not None), default=math.inf)
