"""Relaxation: Lagrangian bounds on all cuts and levels at once.

For scale mu and multipliers lambda, every subproblem n = (cut, level) has

    q_n(mu, lambda) = min over its choices of (mu latency + lambda . use),

which does not depend on the budgets. mu = 1 gives the bound
``q_n - lambda . budgets`` on the latency, for any budgets; mu = 0 with a positive
difference proves that n cannot keep them. So one pool of multipliers serves every
budget of a Pareto ladder, and every multiplier found for one subproblem bounds all.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from autosplit.solvers.subproblem import Tables

ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """The P edge layers of a cut whose widest tensor may be a crossing one.

    Attributes:
      cut, layer: i64[P], sorted by cut.
      low: i64[P, A], least index of the layer's widest tensor (crossing ones at 0).
      starts: first pair of each cut in ``cuts``.
    """

    cut: np.ndarray
    layer: np.ndarray
    low: np.ndarray
    starts: np.ndarray
    cuts: np.ndarray


class Relaxation:
    """The pool of multipliers and the values q of all valid (cut, level).

    Attributes:
      cut, level: i64[N], the subproblems; wide levels first.
      size: f64[N], the level in bytes.
    """

    def __init__(self, tables: Tables):
        self.tables = tables
        level, cut = np.nonzero(tables.valid.T)
        self.cut, self.level = cut, level
        self.size = tables.levels[level].astype(np.float64)
        caps = np.concatenate([tables.caps, np.full((1, tables.caps.shape[1]), -1)])
        self._high = np.maximum(caps[tables.touched].max(axis=1), 0)
        self._pairs = _coupled_pairs(tables, caps, self._high)
        self._bytes_owner = _owners(tables.profile.weight_group)
        self.scale = np.zeros(0)
        self.multipliers = np.zeros((0, 3))
        self.values = np.zeros((0, len(cut)))
        self.add(*_first_multipliers(tables))

    def add(self, scale: np.ndarray, multipliers: np.ndarray) -> None:
        """Adds P multipliers: scale f64[P] of 0 or 1, multipliers f64[P, 3]."""
        values = np.stack([self._evaluate(mu, point)
                           for mu, point in zip(scale, multipliers, strict=True)])
        self.scale = np.append(self.scale, scale)
        self.multipliers = np.concatenate([self.multipliers, multipliers])
        self.values = np.concatenate([self.values, values])

    def least_use(self) -> np.ndarray:
        """Returns f64[N, 3]: the least use of each resource (bytes with the level)."""
        return np.stack([self._evaluate(0.0, ray) for ray in np.eye(3)], axis=1) + np.stack(
            [0 * self.size, 0 * self.size, self.size], axis=1)

    def bounds(self, budgets: np.ndarray, since: int = 0) -> np.ndarray:
        """Bounds the latency of every subproblem within budgets.

        Args:
          budgets: f64[3] by `RESOURCES`, infinity for none.
          since: use the pool from this entry on.

        Returns:
          f64[N], infinity where the budgets cannot be kept.
        """
        finite = np.isfinite(budgets)
        rows = since + np.flatnonzero((self.multipliers[since:, ~finite] == 0).all(axis=1))
        weights = self.multipliers[rows]
        limits = np.where(finite, budgets, 0.0)
        spent = (weights @ limits)[:, None]
        rounding = ROUNDING * np.abs(spent)
        spent = spent - weights[:, 2:] * self.size
        bounds = self.values[rows] - spent - rounding
        proof = (self.scale[rows] == 0)[:, None]
        bounds = np.where(proof, np.where(bounds > 0, np.inf, 0.0), bounds)
        return bounds.max(axis=0, initial=0.0)

    def _evaluate(self, mu: float, point: np.ndarray) -> np.ndarray:
        """Returns f64[N]: q of every subproblem, without the level's own bytes."""
        tables, profile = self.tables, self.tables.profile
        use = tables.weight_use * np.stack([np.ones_like(self._bytes_owner)] * 2
                                           + [self._bytes_owner])[:, :, None]
        priced = np.tensordot(point, use, axes=1)
        best = (mu * profile.edge_latency_s + priced[:, :, None]).min(axis=1)
        layers = np.take_along_axis(best, self._high, axis=1)
        total = profile.on_edge.astype(np.float64) @ layers
        self._relax_pairs(total, best, layers)
        total += self._tensors(mu, point)
        total += mu * tables.fixed_s[:, None]
        return total[self.cut, self.level]

    def _relax_pairs(self, total: np.ndarray, best: np.ndarray, layers: np.ndarray) -> None:
        pairs = self._pairs
        if not len(pairs.cut):
            return
        count = best.shape[1]
        ranges = np.full((len(best), count, count), np.inf)
        for low in range(count):
            ranges[:, low, low:] = np.minimum.accumulate(best[:, low:], axis=1)
        layer = pairs.layer[:, None]
        least = ranges[layer, pairs.low, self._high[pairs.layer]]
        total[pairs.cuts] += np.add.reduceat(least - layers[pairs.layer], pairs.starts, axis=0)

    def _tensors(self, mu: float, point: np.ndarray) -> np.ndarray:
        """Returns f64[C, A]: crossing tensors at their best bits, the others at their caps."""
        tables, profile = self.tables, self.tables.profile
        caps = np.maximum(tables.caps, 0)
        errors = np.tensordot(point, tables.tensor_use, axes=1)
        sent = mu * tables.ship_s + errors
        free = tables.free[:, None]
        best = np.where(free, np.minimum.accumulate(sent, axis=1), sent[:, -1:])
        kept = np.take_along_axis(errors, caps, axis=1)
        crossing = np.where(free, np.take_along_axis(best, caps, axis=1), best[:, -1:])
        stays = tables.on_edge_tensor & ~profile.crosses
        return profile.crosses.astype(np.float64) @ crossing + stays.astype(np.float64) @ kept


def _first_multipliers(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale f64[P] and multipliers f64[P, 3] to start the pool with.

    One proof of infeasibility for each resource, the plain latency, and the typical
    price of error at each of the candidate bits, with and without one of memory.
    """
    latency_s = float(tables.profile.edge_latency_s[:, -1, -1].sum())
    use = tables.weight_use.sum(axis=1) + tables.tensor_use.sum(axis=1)
    price = latency_s / np.maximum(use, np.finfo(float).tiny ** 0.5)
    error = np.where(use[0] > 0, 0.1 * price[0], 0.0)
    rays = np.eye(3)
    alone = np.stack([error, 0 * error, 0 * error], axis=1)
    both = np.stack([error, 0 * error, np.where(use[2] > 0, price[2], 0.0)], axis=1)
    points = np.concatenate([np.zeros((1, 3)), alone, both])
    scale = np.concatenate([np.zeros(3), np.ones(len(points))])
    return scale, np.concatenate([rays, points])


def _owners(group: np.ndarray) -> np.ndarray:
    """Returns f64[L]: 1 for the first layer of each weight group, which pays the bytes."""
    owner = np.zeros(len(group))
    owner[np.unique(group, return_index=True)[1]] = 1.0
    return owner


def _coupled_pairs(tables: Tables, caps: np.ndarray, high: np.ndarray) -> Pairs:
    profile = tables.profile
    sent = profile.crosses & tables.free
    cut, layer = np.nonzero(profile.on_edge & (sent.astype(float) @ profile.touches.T > 0))
    padded = np.concatenate([sent, np.zeros((len(sent), 1), dtype=bool)], axis=1)
    touched = tables.touched[layer]
    lowered = padded[cut[:, None], touched][:, :, None]
    low = np.where(lowered, 0, caps[touched]).max(axis=1, initial=0)
    matters = tables.varies[layer[:, None], low, high[layer]].any(axis=1)
    cut, layer, low = cut[matters], layer[matters], low[matters]
    cuts, starts = np.unique(cut, return_index=True)
    return Pairs(cut=cut, layer=layer, low=low, starts=starts, cuts=cuts)
