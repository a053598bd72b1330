"""Exact multi-choice knapsack with several budgets, by label setting.

One option per item, least total cost, every resource within its budget. Options
that another option beats are removed; what the Lagrangian bound proves to be too
expensive is removed; the items that are left undecided are expanded one after
the other into labels (partial sums), pruned by bounds and by dominance. NP-hard in general;
small here, since few items stay undecided.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from autosplit.solvers.labels import Labels
from autosplit.solvers.lagrangian import Dual, maximise_dual, proves_infeasible, threshold

MAX_LABELS = 20_000
"""Labels kept per item; what is discarded beyond it is reported in the bound."""

FIRST_LABELS = 64
"""A narrow first pass finds a good choice; each later pass is 8 times as wide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The result of a knapsack.

    Attributes:
      options: i64[I], one per item; None where nothing cheaper than ``upper`` fits.
      cost: of the options, else infinity.
      lower_bound: on the cost of any choice that is cheaper than ``upper`` (then it
        equals ``cost`` when proven), else at least ``upper``.
    """

    options: np.ndarray | None
    cost: float
    lower_bound: float


def solve_knapsack(cost: np.ndarray, resources: np.ndarray, budgets: np.ndarray,
                   upper: float = math.inf, max_labels: int = MAX_LABELS) -> Choice:
    """Finds the cheapest choice below ``upper``.

    Args:
      cost: f64[I, K], infinity where an item has fewer options.
      resources: f64[R, I, K], 0 or more and finite.
      budgets: f64[R], infinity for none.
      upper: only choices cheaper than this are of interest.
      max_labels: see `MAX_LABELS`.

    Returns:
      The choice and a proven lower bound.

    >>> cost, weight = np.array([[4.0, 1.0], [3.0, 1.0]]), np.array([[[0.0, 2.0], [0.0, 2.0]]])
    >>> solve_knapsack(cost, weight, np.array([2.0])).options.tolist()
    [1, 0]
    """
    reduced = reduce_options(cost, resources, budgets)
    if cannot_fit(cost, resources, budgets):
        return Choice(options=None, cost=math.inf, lower_bound=math.inf)
    dual = maximise_dual(reduced.cost, reduced.resources, reduced.budgets, stop_above=upper)
    return solve_reduced(reduced, dual, upper, max_labels)


def solve_reduced(reduced: Reduced, dual: Dual, upper: float,
                  max_labels: int = MAX_LABELS) -> Choice:
    """As `solve_knapsack`, for the outcome of `reduce_options` and its dual."""
    cost, resources, budgets = reduced.cost, reduced.resources, reduced.budgets
    best, best_cost = None, upper
    ray, fitting = _find_fitting(reduced, dual)
    if ray is not None and proves_infeasible(cost, resources, budgets, ray):
        return Choice(options=None, cost=math.inf, lower_bound=math.inf)
    if fitting is not None:
        options = improve(cost, resources, budgets, fitting)
        value = _total(cost, options)
        if value < threshold(upper):
            best, best_cost = options, value
    weights = _weights(dual, ray)
    if dual.bound < threshold(best_cost):
        weights = np.concatenate([weights, _probe(reduced, best_cost)])
    lower_bound, width = dual.bound, FIRST_LABELS
    while lower_bound < threshold(best_cost):
        labels = Labels(cost, resources, budgets, weights, best_cost, min(width, max_labels))
        found, best_cost, discarded = labels.run()
        best = best if found is None else found
        lower_bound = min(best_cost, max(discarded, lower_bound))
        if width >= max_labels:
            break
        width *= 8
    if best is None:
        return Choice(options=None, cost=math.inf, lower_bound=lower_bound)
    value = _total(cost, best)
    exact = lower_bound >= threshold(value)
    return Choice(options=best, cost=value, lower_bound=value if exact else lower_bound)


def _find_fitting(reduced: Reduced,
                  dual: Dual) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns the direction along which fitting is hardest, and a choice that fits, if met.

    Of several budgets: the least use of the first one that keeps the others.
    """
    resources, budgets = reduced.resources, reduced.budgets
    if len(budgets) < 2:
        return None, dual.choice
    first = np.where(np.isfinite(reduced.cost), resources[0], np.inf)
    least = maximise_dual(first, resources[1:], budgets[1:])
    ray = np.append(0.0 if math.isinf(least.bound) else 1.0, least.multipliers)
    if dual.choice is None and least.cost <= budgets[0]:
        return ray, least.choice
    return ray, dual.choice


def _weights(dual: Dual, ray: np.ndarray | None) -> np.ndarray:
    """Returns f64[P, 1+R]: weights of cost and resources, for bounds and completions."""
    weights = np.insert(dual.tried, 0, 1.0, axis=1)
    return weights if ray is None else np.concatenate([weights, np.append(0.0, ray)[None]])


def _probe(reduced: Reduced, upper: float) -> np.ndarray:
    """Returns f64[P, 1+R]: weights that are best once the coarsest item is decided.

    The item whose cost varies most makes the steps that the dual cuts across. Where it
    is the only one whose cost varies at all, what is left is a question of fitting.
    """
    cost = reduced.cost
    finite = np.isfinite(cost)
    coarsest = (np.where(finite, cost, -np.inf).max(axis=1) - cost.min(axis=1)).argmax()
    rows = []
    for option in np.flatnonzero(finite[coarsest]):
        decided = cost.copy()
        decided[coarsest] = np.inf
        decided[coarsest, option] = cost[coarsest, option]
        dual = maximise_dual(decided, reduced.resources, reduced.budgets, stop_above=upper)
        rows.append(np.append(float(math.isfinite(dual.bound)), dual.multipliers))
    return np.array(rows)


def _total(cost: np.ndarray, options: np.ndarray) -> float:
    return float(cost[np.arange(len(options)), options].sum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reduced:
    """A knapsack without what cannot matter.

    Attributes:
      cost: f64[I, K], infinity where an option was dropped.
      resources: f64[Q, I, K]; budgets: f64[Q], those that can be exceeded.
      binding: bool[R], which of the original resources those are.
    """

    cost: np.ndarray
    resources: np.ndarray
    budgets: np.ndarray
    binding: np.ndarray


def reduce_options(cost: np.ndarray, resources: np.ndarray, budgets: np.ndarray) -> Reduced:
    """Drops resources that cannot exceed their budgets, and options that another beats."""
    used = np.where(np.isfinite(cost), resources, 0.0)
    binding = used.max(axis=2).sum(axis=1) > budgets
    resources, budgets = used[binding], budgets[binding]
    worse = cost[:, :, None] >= cost[:, None, :]
    equal = cost[:, :, None] == cost[:, None, :]
    for used in resources:
        worse &= used[:, :, None] >= used[:, None, :]
        equal &= used[:, :, None] == used[:, None, :]
    later = np.tri(cost.shape[1], k=-1, dtype=bool)
    beaten = (worse & (~equal | later)).any(axis=2)
    return Reduced(cost=np.where(beaten, np.inf, cost), resources=resources, budgets=budgets,
                   binding=binding)


def cannot_fit(cost: np.ndarray, resources: np.ndarray, budgets: np.ndarray) -> bool:
    """Returns whether the least use of some resource exceeds its budget."""
    least = np.where(np.isfinite(cost), resources, np.inf).min(axis=2)
    return bool((least.sum(axis=1) > budgets).any())


def improve(cost: np.ndarray, resources: np.ndarray, budgets: np.ndarray,
            options: np.ndarray) -> np.ndarray:
    """Changes one option at a time while the cost falls and the budgets hold.

    At equal cost the first resource must fall, so that a tie spends what is left
    of the other budgets on a lower error.
    """
    options = options.copy()
    items = np.arange(len(options))
    used = resources[:, items, options].sum(axis=1)
    first = resources[0] if len(resources) else np.zeros_like(cost)
    for _ in range(4 * len(options)):
        gain = cost[items, options][:, None] - cost
        relief = first[items, options][:, None] - first
        step = resources - resources[:, items, options][:, :, None]
        fits = (used[:, None, None] + step <= budgets[:, None, None]).all(axis=0)
        better = fits & ((gain > 0) | ((gain == 0) & (relief > 0)))
        if not better.any():
            return options
        score = np.where(better, gain, -1.0)
        if score.max() <= 0:
            score = np.where(better, relief, -1.0)
        item, option = np.unravel_index(score.argmax(), score.shape)
        used = used + step[:, item, option]
        options[item] = option
    return options
