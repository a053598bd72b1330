"""Labels: partial choices of a multi-choice knapsack, expanded item by item.

A label is the cost and the resources of the items chosen so far. It is dropped when
it cannot be completed within the budgets, when a Lagrangian bound on its completions
reaches the best known cost, or when another label beats it in everything.
"""

from __future__ import annotations

import math

import numpy as np

from autosplit.solvers.lagrangian import threshold
from autosplit.solvers.pareto import non_dominated

FEW_LABELS = 16
"""Dominance is not worth its time below this."""


class Labels:
    """Label setting over the items that the bounds leave undecided.

    P rows of weights over (cost, resources): with weight 1 on the cost a row bounds
    the cost, with 0 it proves that nothing fits. N labels have ``total`` f64[N, 1+R].
    ``rest`` f64[P, items+1, 1+R] sums, over the items to come, the points that
    minimise each row; ``rest_priced`` f64[P, items+1] their weighted sums.

    Args:
      cost: f64[I, K], infinity where there is no option.
      resources: f64[R, I, K]; budgets: f64[R].
      weights: f64[P, 1+R], the first row with weight 1 on the cost.
      upper: only choices cheaper than this are of interest.
      max_labels: kept per item, the most promising ones.
    """

    def __init__(self, cost: np.ndarray, resources: np.ndarray, budgets: np.ndarray,
                 weights: np.ndarray, upper: float, max_labels: int):
        self.limits = np.append(0.0, budgets)
        self.weights, self.upper, self.max_labels = weights, upper, max_labels
        self.proof = weights[:, 0] == 0
        self.rounding = 1e-12 * (weights[:, 1:] @ budgets)
        finite = np.isfinite(cost)
        self.points = np.stack([np.where(finite, cost, 0.0), *resources], axis=-1)
        priced = np.where(finite, np.moveaxis(self.points @ weights.T, -1, 0), np.inf)
        floor = priced.min(axis=2)
        value = floor.sum(axis=1) - weights @ self.limits
        reduced = value[:, None, None] + priced - floor[:, :, None]
        bound = self._bound(reduced.reshape(len(weights), -1).T).reshape(cost.shape)
        self.keep = finite & ~(bound >= threshold(upper))
        self.keep[np.arange(len(cost)), priced[0].argmin(axis=1)] = True
        undecided = self.keep.sum(axis=1) > 1
        self.decided = self.keep.argmax(axis=1)
        self.core = self._order(cost, np.flatnonzero(undecided))
        self.start = self.points[np.flatnonzero(~undecided), self.decided[~undecided]].sum(axis=0)
        self.best: tuple[int, int, int] | None = None
        self._sum_rest(priced)

    def _order(self, cost: np.ndarray, core: np.ndarray) -> np.ndarray:
        """Returns the undecided items, coarse steps first: fine ones then fill the budgets."""
        keep = self.keep[core]
        most = np.where(keep, cost[core], -np.inf).max(axis=1)
        least = np.where(keep, cost[core], np.inf).min(axis=1)
        return core[np.argsort(least - most, kind="stable")]

    def _sum_rest(self, priced: np.ndarray) -> None:
        core, keep = self.core, self.keep[self.core]
        of_core = np.where(keep, priced[:, core], np.inf)
        self.minimiser = of_core.argmin(axis=2)
        self.rest_priced = suffix_sums(of_core.min(axis=2)[..., None])[..., 0]
        self.rest = suffix_sums(self.points[core[None, :], self.minimiser])
        options = np.where(keep[..., None], self.points[core], np.inf)
        self.rest_least = suffix_sums(options.min(axis=1)[None])[0]

    def run(self) -> tuple[np.ndarray | None, float, float]:
        """Expands all items.

        Returns:
          Options i64[I] cheaper than ``upper`` (None if none), their cost (else
          ``upper``), and the least bound of a label discarded for want of room.
        """
        total = self.start[None]
        history: list[tuple[np.ndarray, np.ndarray]] = []
        discarded = math.inf
        for done in range(len(self.core) + 1):
            self._complete(total, done)
            if done == len(self.core) or not len(total):
                break
            total, parent, option = self._expand(total, done)
            kept, lost = self._prune(total, done + 1)
            total = total[kept]
            history.append((parent[kept], option[kept]))
            discarded = min(discarded, lost)
        return self._trace(history), self.upper, discarded

    def _complete(self, total: np.ndarray, done: int) -> None:
        """Completes every label by every row's minimiser; the cheapest that fits is kept."""
        if not len(total):
            return
        ends = total[:, None] + self.rest[None, :, done]
        fits = (ends[..., 1:] <= self.limits[1:]).all(axis=-1)
        value = np.where(fits, ends[..., 0], np.inf)
        label, row = np.unravel_index(value.argmin(), value.shape)
        if value[label, row] < threshold(self.upper):
            self.upper = float(value[label, row])
            self.best = (done, int(label), int(row))

    def _expand(self, total: np.ndarray,
                done: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the labels times the item's options, and each one's parent and option."""
        item = self.core[done]
        options = np.flatnonzero(self.keep[item])
        grown = (total[:, None] + self.points[item, options][None]).reshape(-1, total.shape[1])
        return grown, np.repeat(np.arange(len(total)), len(options)), np.tile(options, len(total))

    def _prune(self, total: np.ndarray, done: int) -> tuple[np.ndarray, float]:
        """Returns indices of the labels that may still win, and the least bound discarded."""
        least = total[:, 1:] + self.rest_least[done, 1:]
        kept = np.flatnonzero((least <= self.limits[1:]).all(axis=1))
        priced = (total[kept] - self.limits) @ self.weights.T + self.rest_priced[:, done]
        bound = self._bound(priced)
        alive = ~(bound >= threshold(self.upper))
        kept, bound, priced = kept[alive], bound[alive], priced[alive]
        if len(kept) > self.max_labels:
            front = _promising(bound, priced[:, -1])[: 4 * self.max_labels]
            lost = np.delete(bound, front).min(initial=math.inf)
            kept, bound, priced = kept[front], bound[front], priced[front]
        else:
            lost = math.inf
        if len(kept) > FEW_LABELS:
            front = non_dominated(total[kept])
            kept, bound, priced = kept[front], bound[front], priced[front]
        order = _promising(bound, priced[:, -1])
        lost = min(lost, bound[order[self.max_labels :]].min(initial=math.inf))
        return kept[order[: self.max_labels]], float(lost)

    def _bound(self, priced: np.ndarray) -> np.ndarray:
        """Returns f64[N] from f64[N, P]: infinity where a row proves that nothing fits."""
        impossible = np.where(priced > self.rounding, np.inf, -np.inf)
        return np.where(self.proof, impossible, priced).max(axis=1)

    def _trace(self, history: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray | None:
        if self.best is None:
            return None
        done, label, row = self.best
        options = self.decided.copy()
        options[self.core[done:]] = self.minimiser[row, done:]
        for step in reversed(range(done)):
            parent, option = history[step]
            options[self.core[step]] = option[label]
            label = parent[label]
        return options


def _promising(bound: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Ranks labels by bound; where bounds agree to 9 digits, by the last row (room left)."""
    scale = np.abs(bound).max(initial=0.0) or 1.0
    return np.lexsort((room, np.round(bound / scale, 9)))


def suffix_sums(values: np.ndarray) -> np.ndarray:
    """Sums over positions >= i along axis 1; a last row of zeros is appended.

    >>> suffix_sums(np.array([[[1.0], [2.0]]]))[0, :, 0].tolist()
    [3.0, 2.0, 0.0]
    """
    end = np.zeros((values.shape[0], 1, values.shape[2]))
    padded = np.concatenate([values, end], axis=1)
    return np.cumsum(padded[:, ::-1], axis=1)[:, ::-1]
