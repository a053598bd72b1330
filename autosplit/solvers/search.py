"""Search: the fastest assignment within budgets, best bound first.

Every (cut, level) starts with its bound from the relaxation. The least bound is
popped, sharpened by its own dual (whose multipliers join the pool and so bound
all the others), then branched on the bits of its crossing tensors, and once these
are fixed solved as an exact knapsack. Done when no bound is below the best.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers import knapsack
from autosplit.solvers.charging import price
from autosplit.solvers.constraints import ROUNDING, Constraints, judge
from autosplit.solvers.lagrangian import Dual, maximise_dual, threshold
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.subproblem import RESOURCES, Subproblem

TIE = 1e-9
"""Relative difference of bounds that counts as a tie; the wider level then goes first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The result of a search.

    Attributes:
      cut: index along C; None where nothing faster than ``upper`` fits.
      w_index: i64[L]; a_index: i64[T], along the profile's bits.
      latency_s: of the assignment, else infinity.
      lower_bound_s: proven for all assignments of the searched cuts that are faster
        than ``upper``; equal to latency_s when that is proven optimal.
    """

    cut: int | None
    w_index: np.ndarray | None
    a_index: np.ndarray | None
    latency_s: float
    lower_bound_s: float

    @property
    def proven(self) -> bool:
        """The assignment is there and optimal."""
        return self.cut is not None and self.lower_bound_s >= self.latency_s


def find_fastest(relaxation: Relaxation, budgets: np.ndarray, cuts: np.ndarray,
                 upper: float = math.inf, max_labels: int = knapsack.MAX_LABELS) -> Found:
    """Finds the fastest assignment of some cuts within budgets.

    Args:
      relaxation: of the profile; its pool grows.
      budgets: f64[3] by `RESOURCES`, infinity for none.
      cuts: bool[C], those to search.
      upper: seconds; only faster assignments are of interest.
      max_labels: of one knapsack; what it discards widens the bound.
    """
    return _Search(relaxation, budgets, cuts, upper, max_labels).run()


def budgets_of(constraints: Constraints) -> np.ndarray:
    """Returns f64[3] by `RESOURCES`, with half of the rounding that `within` allows.

    The other half is for the order of summation, so that what is found also passes.
    """
    limits = [getattr(constraints, name) for name in RESOURCES]
    return np.array([math.inf if limit is None else limit + ROUNDING / 2 * abs(limit)
                     for limit in limits])


def plan_of(profile: Profile, found: Found, constraints: Constraints, label: str) -> SplitPlan:
    """Prices what a search found, with its proof, and judges it."""
    if found.cut is None or found.w_index is None or found.a_index is None:
        raise InputError("Nothing was found to price; check Found.cut first.")
    plan = price(profile, cut=found.cut, w_bits=profile.bits[found.w_index],
                 a_bits=profile.bits[found.a_index], label=label)
    lower = plan.latency_s if found.proven else min(found.lower_bound_s, plan.latency_s)
    plan = judge(dataclasses.replace(plan, lower_bound_s=lower), constraints)
    if not plan.feasible:
        return plan
    gap = plan.latency_s / lower - 1
    proof = "proven optimal" if found.proven else f"within {gap:.2%} of optimal"
    return dataclasses.replace(plan, reason=f"{plan.reason}; {proof} for its budgets")


class _Search:
    """One search: what is still open, and the best so far.

    ``nodes`` are the (cut, level) with a pooled bound only; ``open`` is a heap of
    subproblems with a bound of their own.
    """

    def __init__(self, relaxation: Relaxation, budgets: np.ndarray, cuts: np.ndarray,
                 upper: float, max_labels: int):
        self.relaxation = relaxation
        self.budgets = budgets
        self.max_labels = max_labels
        self.upper = upper
        self.discarded = math.inf
        self.best: tuple[Subproblem, np.ndarray] | None = None
        self.open: list[tuple[float, int, Subproblem, Dual, knapsack.Reduced]] = []
        self.count = itertools.count()
        bounds = relaxation.bounds(budgets)
        self.nodes = np.flatnonzero(cuts[relaxation.cut] & ~(bounds >= threshold(upper)))
        self.bounds = bounds[self.nodes]

    def run(self) -> Found:
        while True:
            lowest = self.bounds.min(initial=math.inf)
            queued = self.open[0][0] if self.open else math.inf
            least = min(lowest, queued)
            if least == math.inf or least >= threshold(self.upper):
                return self._result()
            if lowest <= queued:
                self._open_node(lowest)
            else:
                _, _, sub, dual, reduced = heapq.heappop(self.open)
                self._descend(sub, dual, reduced)

    def _open_node(self, lowest: float) -> None:
        """Replaces a node's pooled bound by its own dual bound."""
        which = int(np.argmax(self.bounds <= lowest + TIE * abs(lowest)))
        node = self.nodes[which]
        self.bounds[which] = math.inf
        sub = Subproblem.root(self.relaxation.tables, int(self.relaxation.cut[node]),
                              int(self.relaxation.level[node]))
        multipliers = self._push(sub)
        if multipliers is not None:
            self._share(*multipliers)

    def _push(self, sub: Subproblem) -> tuple[float, np.ndarray] | None:
        """Bounds a subproblem and queues it if it may win.

        Returns (scale, multipliers f64[3]) of the bound, None where there are none.
        """
        cost, use, fixed_s, spent = sub.items
        left = self.budgets - spent
        if (left < 0).any() or knapsack.cannot_fit(cost, use, left):
            return None
        reduced = knapsack.reduce_options(cost, use, left)
        dual = maximise_dual(reduced.cost, reduced.resources, reduced.budgets,
                             stop_above=self.upper - fixed_s)
        bound = dual.bound + fixed_s
        if bound < threshold(self.upper):
            heapq.heappush(self.open, (bound, next(self.count), sub, dual, reduced))
        multipliers = np.zeros(len(RESOURCES))
        multipliers[reduced.binding] = dual.multipliers
        return float(math.isfinite(dual.bound)), multipliers

    def _share(self, scale: float, multipliers: np.ndarray) -> None:
        since = len(self.relaxation.scale)
        self.relaxation.add(np.array([scale]), multipliers[None])
        pooled = self.relaxation.bounds(self.budgets, since)[self.nodes]
        self.bounds = np.maximum(self.bounds, pooled)
        alive = ~(self.bounds >= threshold(self.upper)) & np.isfinite(self.bounds)
        self.nodes, self.bounds = self.nodes[alive], self.bounds[alive]

    def _descend(self, sub: Subproblem, dual: Dual, reduced: knapsack.Reduced) -> None:
        children = sub.branch()
        for child in children:
            self._push(child)
        if not children:
            self._solve(sub, dual, reduced)

    def _solve(self, sub: Subproblem, dual: Dual, reduced: knapsack.Reduced) -> None:
        cost, use, fixed_s, spent = sub.items
        choice = knapsack.solve_reduced(reduced, dual, self.upper - fixed_s, self.max_labels)
        if choice.options is None:
            if choice.lower_bound < self.upper - fixed_s:
                self.discarded = min(self.discarded, choice.lower_bound + fixed_s)
            return
        if choice.lower_bound < choice.cost:
            self.discarded = min(self.discarded, choice.lower_bound + fixed_s)
        options = knapsack.improve(cost, use, self.budgets - spent, choice.options)
        self.upper = choice.cost + fixed_s
        self.best = (sub, options)

    def _result(self) -> Found:
        lower = min(self.upper, self.discarded)
        if self.best is None:
            return Found(cut=None, w_index=None, a_index=None, latency_s=math.inf,
                         lower_bound_s=lower)
        sub, options = self.best
        w_index, a_index = sub.assignment(options)
        return Found(cut=sub.cut, w_index=w_index, a_index=a_index, latency_s=self.upper,
                     lower_bound_s=lower)
