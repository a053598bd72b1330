"""Relaxation: Lagrangian bounds on all cuts and levels at once.

For scale mu and multipliers lambda, every subproblem n = (cut, range of levels) has

    q_n(mu, lambda) = min over its choices of (mu cost + lambda . use),

which does not depend on the budgets. mu = 1 gives the bound
``q_n - lambda . budgets`` on the cost, for any budgets; mu = 0 with a positive
difference proves that n cannot keep them. So one pool of multipliers serves every
budget of a Pareto front, and every multiplier found for one subproblem bounds all.
"""

from __future__ import annotations

import numpy as np

from autosplit.solvers.bands import Bands
from autosplit.solvers.tables import MEMORY, RESOURCES, TABLED, Tables

ROUNDING = 1e-11
"""Relative rounding of sums over layers, taken off every bound."""

ROWS_AT_ONCE = 16


class Relaxation:
    """The pool of multipliers and the values q of all subproblems.

    Attributes:
      cut: i64[N], the subproblems; wide levels first.
      first, last: i64[N], the widest and the narrowest level in their range.
      size: f64[N], the narrowest level in bytes.
    """

    def __init__(self, tables: Tables):
        self.tables = tables
        self.bands = Bands(tables)
        self.cut, self.first, self.last = self.bands.cut, self.bands.first, self.bands.last
        self.size = tables.activation_bytes(self.cut, self.last).astype(np.float64)
        self._bytes_owner = _owners(tables.profile.weight_group)
        self.scale = np.zeros(0)
        self.multipliers = np.zeros((0, len(RESOURCES)))
        self._values = np.zeros((0, len(self.cut)))
        self.add(*_first_multipliers(tables))

    def add(self, scale: np.ndarray, multipliers: np.ndarray) -> None:
        """Adds P multipliers: scale f64[P] of 0 or 1, multipliers f64[P, 5]."""
        start, end = len(self.scale), len(self.scale) + len(scale)
        if end > len(self._values):
            more = np.empty((max(start, end - len(self._values)), len(self.cut)))
            self._values = np.concatenate([self._values, more])
        for row, (mu, point) in enumerate(zip(scale, multipliers, strict=True), start):
            values = self._evaluate(mu, point)
            values -= ROUNDING * np.abs(values)
            self._values[row] = values + point[MEMORY] * self.size
        self.scale = np.append(self.scale, scale)
        self.multipliers = np.concatenate([self.multipliers, multipliers])

    def least_use(self, resource: int) -> np.ndarray:
        """Returns f64[N]: the least use of a resource (of memory with the level's bytes)."""
        least = self._evaluate(0.0, np.eye(len(RESOURCES))[resource])
        return least + self.size if resource == MEMORY else least

    def start(self, resource: int) -> None:
        """Adds first multipliers of seconds or joules, unless the pool has some."""
        if not self.multipliers[:, resource].any():
            self.add(np.zeros(1), np.eye(len(RESOURCES))[resource][None])
            point = np.zeros((1, len(RESOURCES)))
            terms, cost = self.tables.spent_over(resource), self.tables.cost
            spent = float(terms.layer[:, -1, -1].sum())
            point[0, resource] = cost.layer[:, -1, -1].sum() / spent if spent > 0 else 0.0
            self.add(np.ones(1), point)

    def bounds(self, budgets: np.ndarray) -> np.ndarray:
        """Bounds the cost of every subproblem within budgets.

        Args:
          budgets: f64[5] by `RESOURCES`, infinity for none.

        Returns:
          f64[N], infinity where the budgets cannot be kept.
        """
        spent, best = self.spent(budgets), np.zeros(len(self.cut))
        for start in range(0, len(spent), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            best = np.maximum(best, self.bounds_by(rows, spent[rows]).max(axis=0))
        return best

    def spent(self, budgets: np.ndarray, since: int = 0) -> np.ndarray:
        """Returns f64[P]: lambda . budgets of the pool from an entry on, rounded up.

        Infinity where an entry prices what has no budget: it bounds nothing.
        """
        finite = np.isfinite(budgets)
        weights = self.multipliers[since:]
        spent = weights @ np.where(finite, budgets, 0.0)
        return np.where((weights[:, ~finite] != 0).any(axis=1), np.inf,
                        spent + ROUNDING * np.abs(spent))

    def bounds_by(self, rows: slice, spent: np.ndarray,
                  nodes: np.ndarray | None = None) -> np.ndarray:
        """Returns f64[rows, nodes]: each entry's bound on each subproblem, of all or some.

        Args:
          rows: of the pool; spent: f64[rows], theirs.
          nodes: indices along N.
        """
        values = self._values[: len(self.scale)][rows]
        bounds = (values if nodes is None else values[:, nodes]) - spent[:, None]
        proof = self.scale[rows] == 0
        bounds[proof] = np.where(bounds[proof] > 0, np.inf, 0.0)
        return bounds

    def _evaluate(self, mu: float, point: np.ndarray) -> np.ndarray:
        """Returns f64[N]: q of every subproblem, without the level's own bytes."""
        tables = self.tables
        weight = np.tensordot(point[:MEMORY], tables.weight_use[:MEMORY], axes=1)
        weight += point[MEMORY] * self._bytes_owner[:, None] * tables.weight_use[MEMORY]
        timed = [(mu, tables.cost)] + [(point[row], tables.spent_over(row))
                                       for row in range(TABLED, len(RESOURCES)) if point[row] > 0]
        layer = sum(price * terms.layer for price, terms in timed)
        best = (layer + weight[:, :, None]).min(axis=1)
        kept = np.tensordot(point[:TABLED], tables.tensor_use, axes=1)
        sent = kept + sum(price * terms.ship for price, terms in timed)
        fixed = sum(price * terms.fixed for price, terms in timed)
        return self.bands.least(best, kept, sent) + fixed[self.cut]


def _first_multipliers(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale f64[P] and multipliers f64[P, 5] to start the pool with.

    One proof of infeasibility for each tabled resource, the plain cost, and the typical
    price of error at each of the candidate bits, with and without one of memory.
    """
    cost = float(tables.cost.layer[:, -1, -1].sum())
    use = tables.weight_use.sum(axis=1) + tables.tensor_use.sum(axis=1)
    price = cost / np.maximum(use, np.finfo(float).tiny ** 0.5)
    points = np.zeros((TABLED + 1 + 2 * use.shape[1], len(RESOURCES)))
    points[:TABLED, :TABLED] = np.eye(TABLED)
    points[TABLED + 1 :, 0] = np.tile(np.where(use[0] > 0, 0.1 * price[0], 0.0), 2)
    points[TABLED + 1 + use.shape[1] :, MEMORY] = np.where(use[MEMORY] > 0, price[MEMORY], 0.0)
    return (np.arange(len(points)) >= TABLED).astype(np.float64), points


def _owners(group: np.ndarray) -> np.ndarray:
    """Returns f64[L]: 1 for the first layer of each weight group, which pays the bytes."""
    owner = np.zeros(len(group))
    owner[np.unique(group, return_index=True)[1]] = 1.0
    return owner
