"""Search: the cheapest assignment within budgets, best bound first.

Every cut at every band of levels starts with its bound from the relaxation. The least
bound is popped, sharpened by its own dual (whose multipliers join the pool and so
bound all the others), then branched on its levels and the bits of its crossing
tensors, and once these are fixed solved as an exact knapsack. A branch starts with its
parent's bound, raised by what its bits add at the parent's multipliers, and is bounded by
its own dual only when it is popped. Done when no bound is below the best.
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
from autosplit.solvers.lagrangian import ROUNDING as ROUNDED
from autosplit.solvers.lagrangian import Dual, maximise_dual, threshold
from autosplit.solvers.nodes import Nodes
from autosplit.solvers.objective import Objective, relative_gap
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.subproblem import Subproblem
from autosplit.solvers.tables import RESOURCES, TABLED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The result of a search.

    Attributes:
      cut: index along C; None where nothing cheaper than ``upper`` fits.
      w_index: i64[L]; a_index: i64[T], along the profile's bits.
      cost: of the assignment by the objective, else infinity.
      objective: what a cost is.
      lower_bound: proven for all assignments of the searched cuts that are cheaper
        than ``upper``; equal to cost when that is proven optimal.
    """

    cut: int | None
    w_index: np.ndarray | None
    a_index: np.ndarray | None
    cost: float
    objective: Objective
    lower_bound: float

    @property
    def proven(self) -> bool:
        """The assignment is there and optimal."""
        return self.cut is not None and self.lower_bound >= self.cost


def find_fastest(relaxation: Relaxation, budgets: np.ndarray, cuts: np.ndarray,
                 upper: float = math.inf, enough: float = -math.inf,
                 max_labels: int = knapsack.MAX_LABELS) -> Found:
    """Finds the assignment of some cuts that costs least within budgets.

    For the default objective it is the fastest. Where the objective is the latency or
    the energy alone, a budget of that is not looked at: the cheapest keeps it, or none.

    Args:
      relaxation: of the profile, for an objective; its pool grows.
      budgets: f64[5] by `RESOURCES`, infinity for none.
      cuts: bool[C], those to search.
      upper: only assignments that cost less are of interest.
      enough: any assignment that costs no more will do.
      max_labels: of one knapsack; what it discards widens the bound.
    """
    return _Search(relaxation, budgets, cuts, upper, max_labels).run(enough)


def budgets_of(constraints: Constraints) -> np.ndarray:
    """Returns f64[5] by `RESOURCES`, with half of the rounding that `within` allows.

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
    cost = found.objective.cost(plan)
    lower = cost if found.proven else min(found.lower_bound, cost)
    plan = judge(dataclasses.replace(plan, lower_bound=lower), constraints)
    if not plan.feasible:
        return plan
    gap = relative_gap(cost, lower)
    proof = "proven optimal" if found.proven else f"within {gap:.2%} of optimal"
    return dataclasses.replace(plan, reason=f"{plan.reason}; {proof} for its budgets")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bounded:
    """A subproblem's items and its dual.

    Attributes:
      cost: f64[I, K]; use: f64[rows, I, K]; left: f64[rows], budgets without constant parts.
      fixed_cost: of what depends on no item.
      reduced: what of them can matter; dual: its dual.
      multipliers: f64[5] of the dual; bound: on the cost, infinite if nothing fits.
    """

    cost: np.ndarray
    use: np.ndarray
    left: np.ndarray
    fixed_cost: float
    reduced: knapsack.Reduced
    dual: Dual
    multipliers: np.ndarray
    bound: float


class _Search:
    """One search: what is still open, and the best so far.

    ``nodes`` are the (cut, band) with a pooled bound only; ``open`` is a heap of
    subproblems with a bound of their own or, until they are popped, their parent's.
    """

    def __init__(self, relaxation: Relaxation, budgets: np.ndarray, cuts: np.ndarray,
                 upper: float, max_labels: int):
        self.relaxation = relaxation
        own = [name == relaxation.tables.objective.minimises for name in RESOURCES]
        self.budgets = np.where(own, math.inf, budgets)
        self.rows = (0, *(np.flatnonzero(np.isfinite(self.budgets[1:])) + 1).tolist())
        for row in self.rows:
            if row >= TABLED:
                relaxation.start(row)
        self.max_labels = max_labels
        self.upper = upper
        self.discarded = math.inf
        self.best: tuple[Subproblem, np.ndarray] | None = None
        self.hint = np.zeros(len(RESOURCES))
        self.open: list[tuple[float, int, Subproblem, np.ndarray, _Bounded | None]] = []
        self.count = itertools.count()
        self.nodes = Nodes(relaxation, self.budgets, cuts, upper)

    def run(self, enough: float) -> Found:
        while True:
            lowest = self.nodes.lowest()
            queued = self.open[0][0] if self.open else math.inf
            least = min(lowest, queued)
            if least == math.inf or least >= threshold(self.upper):
                return self._result(self.upper)
            if self.best is not None and self.upper <= enough:
                return self._result(least)
            if lowest <= queued:
                self._open_node(lowest)
            else:
                self._advance(*heapq.heappop(self.open))

    def _open_node(self, lowest: float) -> None:
        """Replaces a node's pooled bound by its own dual bound."""
        node, pool = self.nodes.pop(lowest), self.relaxation
        sub = Subproblem.root(pool.tables, int(pool.cut[node]), int(pool.first[node]),
                              int(pool.last[node]))
        bounded = self._bound(sub, self.hint, lowest)
        if bounded is None:
            return
        if math.isfinite(bounded.bound):
            self.hint = bounded.multipliers
        self._queue(sub, bounded.bound, bounded.multipliers, bounded)
        if bounded.bound > lowest:
            self.nodes.share(float(math.isfinite(bounded.bound)), bounded.multipliers)
            self.nodes.drop(self.upper)

    def _queue(self, sub: Subproblem, bound: float, hint: np.ndarray,
               bounded: _Bounded | None = None) -> None:
        if bound < threshold(self.upper):
            heapq.heappush(self.open, (bound, next(self.count), sub, hint, bounded))

    def _advance(self, bound: float, _: int, sub: Subproblem, hint: np.ndarray,
                 bounded: _Bounded | None) -> None:
        """Bounds a subproblem by its own dual; branches one that is bounded, or solves it."""
        if bounded is None:
            bounded = self._bound(sub, hint, bound)
            if bounded is not None:
                self._queue(sub, bounded.bound, bounded.multipliers, bounded)
        elif sub.first < sub.last:
            for half in sub.halves():
                self._queue(half, bound, hint)
        elif sub.coarsest is not None:
            self._fix(sub, sub.coarsest, bounded)
        else:
            self._solve(sub, bounded)

    def _bound(self, sub: Subproblem, hint: np.ndarray, least: float) -> _Bounded | None:
        """Returns the dual's bound, at least ``least``; None where a budget is too small alone."""
        cost, use, fixed_cost, spent = sub.items(self.rows)
        left = self.budgets[list(self.rows)] - spent
        if (left < 0).any() or knapsack.cannot_fit(cost, use, left):
            return None
        reduced = knapsack.reduce_options(cost, use, left)
        rows = np.array(self.rows)[reduced.binding]
        dual = maximise_dual(reduced.cost, reduced.resources, reduced.budgets,
                             stop_above=self.upper - fixed_cost, hint=hint[rows])
        multipliers = np.zeros(len(RESOURCES))
        multipliers[rows] = dual.multipliers
        return _Bounded(cost=cost, use=use, left=left, fixed_cost=fixed_cost, reduced=reduced,
                        dual=dual, multipliers=multipliers,
                        bound=max(dual.bound + fixed_cost, least))

    def _fix(self, sub: Subproblem, which: int, bounded: _Bounded) -> None:
        """Queues one part for each index of a crossing tensor, by what it adds to the dual."""
        item, weights = len(sub.parts.starts) + which, bounded.multipliers[list(self.rows)]
        inside = np.arange(sub.low[which], sub.high[which] + 1)
        priced = bounded.cost[item, inside] + weights @ bounded.use[:, item, inside]
        added = priced - priced.min() - ROUNDED * np.abs(priced)
        bounds = np.maximum(bounded.dual.bound + bounded.fixed_cost + added, bounded.bound)
        for index, bound in zip(inside.tolist(), bounds.tolist(), strict=True):
            self._queue(sub.fix(which, index), bound, bounded.multipliers)

    def _solve(self, sub: Subproblem, bounded: _Bounded) -> None:
        fixed_cost = bounded.fixed_cost
        choice = knapsack.solve_reduced(bounded.reduced, bounded.dual, self.upper - fixed_cost,
                                        self.max_labels)
        if choice.options is None:
            if choice.lower_bound < self.upper - fixed_cost:
                self.discarded = min(self.discarded, choice.lower_bound + fixed_cost)
            return
        if choice.lower_bound < choice.cost:
            self.discarded = min(self.discarded, choice.lower_bound + fixed_cost)
        options = knapsack.improve(bounded.cost, bounded.use, bounded.left, choice.options)
        self.upper = choice.cost + fixed_cost
        self.best = (sub, options)
        self.nodes.drop(self.upper)

    def _result(self, least: float) -> Found:
        lower = min(self.upper, self.discarded, least)
        objective = self.relaxation.tables.objective
        if self.best is None:
            return Found(cut=None, w_index=None, a_index=None, cost=math.inf,
                         objective=objective, lower_bound=lower)
        sub, options = self.best
        w_index, a_index = sub.assignment(options)
        return Found(cut=sub.cut, w_index=w_index, a_index=a_index, cost=self.upper,
                     objective=objective, lower_bound=lower)
