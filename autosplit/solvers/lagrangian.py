"""Lagrangian dual of the multi-choice knapsack: the lower bounds.

For each of I items one option is chosen. With multipliers lambda >= 0,

    q(lambda) = sum_i min_o (cost[i, o] + lambda . resources[:, i, o]) - lambda . budgets

is at most the cost of every choice within the budgets. q is concave and
piecewise linear; along one multiplier it is climbed exactly by intersecting the
supporting lines of a bracket, and several multipliers are nested.

Reference: Shoham and Gersho 1988 for one multiplier (its optimum is the convex
hull of the options); the nesting is this package's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MAX_LINES = 24
TRIED = 6
TOLERANCE = 1e-7
LARGEST_MULTIPLIER = 1e14
"""Where climbing ends in any case, in units of (typical cost / budget)."""
ROUNDING = 1e-14
"""Relative rounding of a sum, taken off every bound so that it stays one."""
EQUAL = 1e-12
"""Costs that differ relatively by less count as equal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dual:
    """The best bound found and what was met on the way.

    Attributes:
      bound: lower bound on the cost; infinity where no choice keeps the budgets.
      multipliers: f64[R], at the bound; where it is infinite, the direction in which
        the dual grows without limit.
      tried: f64[P, R], good multipliers, the best first.
      choice: i64[I], the cheapest choice met that keeps the budgets; None if none.
      cost: of that choice, else infinity.
    """

    bound: float
    multipliers: np.ndarray
    tried: np.ndarray
    choice: np.ndarray | None
    cost: float


class _Line(NamedTuple):
    """A supporting line of the dual along one multiplier.

    ``slope`` f64[R] is a supergradient with respect to all multipliers.
    """

    where: float
    value: float
    slope: np.ndarray


@dataclasses.dataclass
class _Climb:
    """One maximisation: its inputs and what it has met.

    ``hint`` f64[R] are multipliers to search around, 0 where there is none; ``start``
    f64[R] says how large a multiplier typically is.
    """

    cost: np.ndarray
    resources: np.ndarray
    budgets: np.ndarray
    start: np.ndarray
    hint: np.ndarray
    stop_above: float
    met: list[tuple[float, tuple[float, ...]]] = dataclasses.field(default_factory=list)
    choice: np.ndarray | None = None
    choice_cost: float = math.inf


def maximise_dual(cost: np.ndarray, resources: np.ndarray, budgets: np.ndarray,
                  stop_above: float = math.inf, hint: np.ndarray | None = None) -> Dual:
    """Climbs the dual to its maximum.

    Args:
      cost: f64[I, K], infinity where an item has fewer options.
      resources: f64[R, I, K], 0 or more and finite.
      budgets: f64[R], finite.
      stop_above: stop as soon as the bound reaches it.
      hint: f64[R], multipliers of a similar problem.

    Returns:
      The bound, its multipliers and the cheapest feasible choice met.

    >>> cost, weight = np.array([[4.0, 1.0], [3.0, 1.0]]), np.array([[[0.0, 2.0], [0.0, 2.0]]])
    >>> round(maximise_dual(cost, weight, np.array([2.0])).bound, 9)
    4.0
    """
    finite = np.isfinite(cost)
    span = np.where(finite, cost, 0.0).max(axis=1) - cost.min(axis=1)
    spread = resources.max(axis=2).sum(axis=1)
    scale = np.where(budgets > 0, budgets, np.where(spread > 0, spread, 1.0))
    unit = (float(span.sum()) or float(np.abs(cost[finite]).sum()) or 1.0) / scale
    dearest = np.where(finite, cost, -np.inf).max(axis=1)
    ceiling = float(dearest.sum() + TOLERANCE * np.abs(dearest).sum())
    enough = min(stop_above, math.nextafter(ceiling, math.inf))
    hint = np.zeros(len(budgets)) if hint is None else hint
    climb = _Climb(cost, resources, budgets, unit, hint, enough)
    if not hint.any() or _evaluate(climb, hint)[0] < enough:
        _climb(climb, len(budgets), np.zeros(len(budgets)))
    climb.met.sort(key=lambda pair: -pair[0])
    tried = np.array([multipliers for _, multipliers in climb.met[:TRIED]])
    # Every choice costs less than the ceiling, so a bound above it leaves none.
    bound = climb.met[0][0] if climb.met[0][0] <= ceiling else math.inf
    return Dual(bound=bound, multipliers=tried[0], tried=tried, choice=climb.choice,
                cost=climb.choice_cost)


def threshold(upper: float) -> float:
    """Returns the least bound that proves that nothing is cheaper than ``upper``."""
    return upper - EQUAL * abs(upper) if math.isfinite(upper) else math.inf


def proves_infeasible(cost: np.ndarray, resources: np.ndarray, budgets: np.ndarray,
                      ray: np.ndarray) -> bool:
    """Returns whether every choice breaks the budgets weighted by ``ray`` (Farkas)."""
    weighted = np.where(np.isfinite(cost), np.tensordot(ray, resources, axes=1), np.inf)
    least, limit = weighted.min(axis=1).sum(), float(ray @ budgets)
    return bool(least > limit + 100 * ROUNDING * abs(limit))


def _evaluate(climb: _Climb, multipliers: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns q and the excess (resources used less budgets) of one minimiser."""
    resources = climb.resources.reshape(len(multipliers), climb.cost.size)
    priced = climb.cost + (multipliers @ resources).reshape(climb.cost.shape)
    choice = priced.argmin(axis=1)
    items = np.arange(len(choice))
    excess = climb.resources[:, items, choice].sum(axis=1) - climb.budgets
    cost = float(climb.cost[items, choice].sum())
    value = cost + float(multipliers @ excess) - ROUNDING * float(multipliers @ climb.budgets)
    climb.met.append((value, tuple(multipliers)))
    if (excess <= 0).all() and cost < climb.choice_cost:
        climb.choice, climb.choice_cost = choice, cost
    return value, excess


def _climb(climb: _Climb, dims: int, multipliers: np.ndarray) -> tuple[float, np.ndarray]:
    """Maximises over the first ``dims`` multipliers, the others fixed.

    Returns the maximum (up to `TOLERANCE`) and a supergradient with respect to all
    multipliers: at a kink, the convex combination of both lines, flat along the kink.
    """
    if dims == 0:
        return _evaluate(climb, multipliers)
    axis = dims - 1

    def at(multiplier: float) -> _Line:
        point = multipliers.copy()
        point[axis] = multiplier
        return _Line(multiplier, *_climb(climb, axis, point))

    left, right = _bracket(climb, axis, at)
    if left.slope[axis] <= 0 or _stop(climb, left.value):
        return left.value, left.slope
    if right.slope[axis] > 0:
        return right.value, right.slope
    return _intersect(climb, axis, left, right, at)


def _bracket(climb: _Climb, axis: int, at: Callable[[float], _Line]) -> tuple[_Line, _Line]:
    """Returns lines left and right of the maximum; the same twice where one settles it."""
    hint, step = float(climb.hint[axis]), 2.0
    left = right = at(hint)
    while hint > 0 and right.slope[axis] <= 0 and left.slope[axis] <= 0:
        if _stop(climb, left.value) or left.where == 0:
            return left, left
        right = left
        left = at(right.where / step if right.where * 8 > hint else 0.0)
    if left.slope[axis] <= 0 or _stop(climb, left.value):
        return left, left
    if right.slope[axis] <= 0:
        return left, right
    if hint == 0:
        right, step = at(float(climb.start[axis])), 8.0
    while right.slope[axis] > 0 and not _stop(climb, right.value):
        left = right
        if left.where > LARGEST_MULTIPLIER * climb.start[axis]:
            break
        right = at(left.where * step)
        step = 8.0
    return left, right


def _stop(climb: _Climb, value: float) -> bool:
    return value >= climb.stop_above


def _intersect(climb: _Climb, axis: int, left: _Line, right: _Line,
               at: Callable[[float], _Line]) -> tuple[float, np.ndarray]:
    """Narrows a bracket (rising at left, falling at right) to the kink."""
    highest = max(left.value, right.value)
    for _ in range(MAX_LINES):
        rise, fall = left.slope[axis], right.slope[axis]
        if fall == 0 or _stop(climb, right.value):
            return right.value, right.slope
        descent = right.value - fall * right.where - left.value + rise * left.where
        where = descent / (rise - fall)
        ceiling = left.value + rise * (where - left.where)
        if not left.where < where < right.where:
            break
        middle = at(where)
        highest = max(highest, middle.value)
        if middle.value >= ceiling - TOLERANCE * abs(ceiling):
            break
        if middle.slope[axis] > 0:
            left = middle
        else:
            right = middle
    share = left.slope[axis] / (left.slope[axis] - right.slope[axis])
    return highest, (1 - share) * left.slope + share * right.slope
