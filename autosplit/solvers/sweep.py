"""Sweep: the plane of budgets (error and memory), explored box by box.

The least cost f(E, M) of a plan with error <= E and memory <= M is a step function:
where the optimum at the upper corner of a box spends (e, m), f is constant on
[e, E] x [m, M]. So that plan covers this part, and two disjoint boxes remain: error below
e, and memory below m with an error from e on. They are explored likewise until none is
left. f never falls as budgets shrink: the bound of a box holds for what remains of it,
so that a known plan within it that costs no more needs no solve.

With a factor 1 + r a plan covers down to e / (1 + r), and so do the boxes shrink. Without
one the boxes end where no plan is left, and the covers are the whole front: of plans that
cost the same too, since one that spends less lies in a box that remains.

Reference: Haimes, Lasdon and Wismer 1971 (the epsilon-constraint method); Laumanns, Thiele
and Zitzler 2006 (its cells for three objectives). Deviations: disjoint boxes, bounds
handed down to them and to smaller corners, and the factors.
"""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np

from autosplit.solvers.charging import charge, runs_some
from autosplit.solvers.constraints import ROUNDING
from autosplit.solvers.knapsack import MAX_LABELS
from autosplit.solvers.lagrangian import EQUAL, threshold
from autosplit.solvers.pareto import non_dominated
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import Found, find_fastest
from autosplit.solvers.tables import MEMORY, RESOURCES

SWEPT = [RESOURCES.index("output_error"), MEMORY]
"""The two resources whose budgets are explored."""

FEWER_LABELS = 2048
"""Of one knapsack where factors allow for some slack anyway; `MAX_LABELS` elsewhere."""

NOTHING = -1.0
"""Below every budget: a plan that spends nothing covers down to here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """Budgets above a floor, up to a corner: f64[2], error and memory.

    ``bound`` is proven for the cost of every plan within the corner.
    """

    floor: np.ndarray
    corner: np.ndarray
    bound: float


class Sweep:
    """One exploration, coarse or refined by further runs.

    Attributes:
      found: N plans, not all of them needed.
      points: f64[N, 3], their cost, error and memory.
      reach: f64[N, 2], the largest error and memory that each does not cover.
      covers: indices of those that cover a part of the plane, in the last run.
      proven: f64[S, 3], the corner of every solve and the bound that it proved there.
      cost_factor: 1.0, or how far covers may cost more than what was not found.
      solves: searches so far.
    """

    def __init__(self, relaxation: Relaxation, budgets: np.ndarray, upper: float):
        self.relaxation, self.budgets, self.upper = relaxation, budgets, upper
        self.cuts = runs_some(relaxation.tables.profile)
        self.found: list[Found] = []
        self.points, self.reach = np.zeros((0, 3)), np.zeros((0, 2))
        self.proven = np.zeros((0, 3))
        self.covers: set[int] = set()
        self.cost_factor, self.solves = 1.0, 0

    def run(self, error_factor: float, memory_factor: float) -> list[Found]:
        """Explores everything; returns the covers that none beats, by rising cost.

        What earlier runs found and proved is not solved again.
        """
        self.factors = np.array([error_factor, memory_factor])
        self.max_labels = FEWER_LABELS if (self.factors > 1).any() else MAX_LABELS
        self.reach = self._reach_of(self.points[:, 1:])
        self.covers, self.cost_factor = set(), 1.0
        floor, corner = np.full(2, NOTHING), self.budgets[SWEPT]
        boxes = collections.deque([Box(floor=floor, corner=corner, bound=0.0)])
        while boxes:
            box = self._inherit(boxes.popleft())
            if box.bound >= threshold(self.upper):
                continue
            cover = self._known_cover(box)
            if cover is None:
                box, cover = self._solve(box)
            if cover is not None:
                self.covers.add(cover)
                boxes.extend(_remainders(box, self.reach[cover]))
        return self._front()

    def _inherit(self, box: Box) -> Box:
        """Raises a box's bound to what was proven for larger corners."""
        larger = (self.proven[:, :2] >= box.corner).all(axis=1)
        bound = float(self.proven[larger, 2].max(initial=box.bound))
        return dataclasses.replace(box, bound=bound)

    def _known_cover(self, box: Box) -> int | None:
        """Returns the plan that covers most of a box; None if none covers its corner."""
        proven = self.points[:, 0] * (1 - EQUAL) <= box.bound
        proven &= (self.reach < box.corner).all(axis=1)
        if not proven.any():
            return None
        left = np.maximum(np.maximum(self.reach, box.floor), 0.0)
        with np.errstate(invalid="ignore"):
            share = 1 - np.where(left < box.corner, left / box.corner, 0.0)
        return int(np.where(proven, share.prod(axis=1), -1.0).argmax())

    def _solve(self, box: Box) -> tuple[Box, int | None]:
        """Solves the corner; returns the box with its bound and its cover, if any."""
        known = self._fits(box.corner)
        cheapest = float(self.points[known, 0].min(initial=self.upper))
        bound = max(box.bound, self._search(box.corner, cheapest))
        box = dataclasses.replace(box, bound=bound)
        if bound >= threshold(self.upper):
            return box, None
        cover = self._known_cover(box)
        return (box, self._concede(box)) if cover is None else (box, cover)

    def _search(self, corner: np.ndarray, upper: float) -> float:
        """Keeps the cheapest plan below ``upper``; returns the bound on any other."""
        budgets = self.budgets.copy()
        budgets[SWEPT] = corner
        self.solves += 1
        found = find_fastest(self.relaxation, budgets, self.cuts, upper=upper,
                             max_labels=self.max_labels)
        if found.cut is not None and found.w_index is not None and found.a_index is not None:
            charges = charge(self.relaxation.tables.profile, found.cut, found.w_index,
                             found.a_index)
            memory = charges.edge_weight_bytes + charges.edge_activation_bytes
            spent = np.array([float(charges.predicted_output_error), float(memory)])
            self.found.append(found)
            self.points = np.append(self.points, [[found.cost, *spent]], axis=0)
            self.reach = np.append(self.reach, self._reach_of(spent[None]), axis=0)
        self.proven = np.append(self.proven, [[*corner, found.lower_bound]], axis=0)
        return found.lower_bound

    def _reach_of(self, spent: np.ndarray) -> np.ndarray:
        """Returns f64[N, 2]: the largest error and memory that plans do not cover."""
        # Bytes are whole numbers; errors are sums, equal up to rounding.
        less = np.stack([spent[:, 0] * (1 - ROUNDING / 2), spent[:, 1] - 0.5], axis=1)
        return np.where(spent > 0, np.minimum(spent / self.factors, less), NOTHING)

    def _concede(self, box: Box) -> int | None:
        """Takes the cheapest that fits, where labels ran out before there was a proof."""
        fits = self._fits(box.corner)
        cost = float(self.points[fits, 0].min(initial=self.upper))
        self.cost_factor = max(self.cost_factor, cost / box.bound if box.bound > 0 else math.inf)
        if cost >= self.upper:
            return None
        return int(np.where(fits, self.points[:, 0], np.inf).argmin())

    def _fits(self, corner: np.ndarray) -> np.ndarray:
        """Returns bool[N]; the order of summation may put a plan a trifle over its corner."""
        return np.all(self.points[:, 1:] <= corner * (1 + EQUAL), axis=1)

    def _front(self) -> list[Found]:
        covers = np.array(sorted(self.covers), dtype=np.int64)
        cost, error, memory = self.points[covers].T
        ranked = np.stack([_ranks(cost, EQUAL), _ranks(error, ROUNDING), memory], axis=1)
        kept = covers[non_dominated(ranked)] if covers.size else covers
        return [self.found[index] for index in kept[np.argsort(self.points[kept, 0])]]


def _remainders(box: Box, reach: np.ndarray) -> list[Box]:
    """Returns what a cover leaves of a box: less error; less memory with more error."""
    less_error, less_memory = reach
    start = max(less_error, box.floor[0])
    parts = [
        (box.floor, np.array([less_error, box.corner[1]])),
        (np.array([start, box.floor[1]]), np.array([box.corner[0], less_memory])),
    ]
    return [Box(floor=floor, corner=corner, bound=box.bound) for floor, corner in parts
            if (corner > floor).all()]


def _ranks(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Returns f64[N], ranks; neighbours that differ by no more than rounding share one."""
    order = np.argsort(values)
    steps = np.diff(values[order], prepend=values[order][:1]) > tolerance * values[order]
    ranks = np.zeros(len(values))
    ranks[order] = np.cumsum(steps)
    return ranks
