"""Subproblems: one cut at a range of activation levels, as a multi-choice knapsack.

At level A (bytes) a tensor's cap is its largest bits with ``tensor_bytes <= A``. A
tensor on the edge takes its cap; a crossing tensor takes any bits of a box
``low..high``, from the least to its cap. What couples the crossing bits with the
weight bits is that a layer's time and energy depend on its widest tensor. Where the
box leaves that open, the layer is priced at the least of its costs over the box (and
its seconds and joules, where they are limited, at their least): a lower bound. Over a
range of levels, so is every tensor's error, and the smallest level is paid for. Branched
down to one level and one index for each crossing tensor, it is exact.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from autosplit.profiling.table import Profile
from autosplit.solvers.tables import MEMORY, TABLED, Tables, Terms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """One cut's layers, weight groups and tensors, as index arrays.

    Attributes:
      layers: i64[E]; weighted: positions in it of layers with weight, by group.
      starts: first of each group in ``weighted``; groups: G of them.
      group_use: f64[3, G, K], errors added, bytes paid once.
      sent: i64[S], crossing tensors with free bits; kept: edge tensors without a choice.
      bound: crossing tensors without a choice.
      constant_bytes: of the layers without a weight to quantize.
    """

    layers: np.ndarray
    weighted: np.ndarray
    starts: np.ndarray
    group_use: np.ndarray
    sent: np.ndarray
    kept: np.ndarray
    bound: np.ndarray
    constant_bytes: float

    @classmethod
    def of(cls, tables: Tables, cut: int) -> Parts:
        profile = tables.profile
        layers = np.flatnonzero(profile.on_edge[cut])
        weighted, starts = _by_group(profile, layers, profile.has_weight[layers])
        plain, plain_starts = _by_group(profile, layers, ~profile.has_weight[layers])
        constants = _stored(tables.weight_use[MEMORY, layers[plain]], plain_starts)
        use = tables.weight_use[:, layers[weighted]]
        if len(starts):
            errors = np.add.reduceat(use[:MEMORY], starts, axis=1)
            use = np.concatenate([errors, _stored(use[MEMORY], starts)[None]])
        crosses = profile.crosses[cut]
        return cls(
            layers=layers,
            weighted=weighted,
            starts=starts,
            group_use=use,
            sent=np.flatnonzero(crosses & tables.free),
            constant_bytes=float(constants[:, -1].sum()),
            kept=np.flatnonzero(tables.on_edge_tensor[cut] & ~(crosses & tables.free)),
            bound=np.flatnonzero(crosses & ~tables.free),
        )


def _by_group(profile: Profile, layers: np.ndarray,
              chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of the chosen layers, by weight group, and each group's first."""
    where = np.flatnonzero(chosen)
    group = profile.weight_group[layers[where]]
    order = np.argsort(group, kind="stable")
    return where[order], np.unique(group[order], return_index=True)[1]


def _stored(stored: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns f64[G, K]: bytes of each group, paid once (the largest copy)."""
    return np.maximum.reduceat(stored, starts, axis=0) if len(starts) else stored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subproblem:
    """A cut, a range of levels and a box of indices for the free crossing tensors.

    ``first`` is the widest level (index along levels), ``last`` the narrowest.
    """

    tables: Tables
    parts: Parts
    cut: int
    first: int
    last: int
    low: tuple[int, ...]
    high: tuple[int, ...]

    @classmethod
    def root(cls, tables: Tables, cut: int, first: int, last: int) -> Subproblem:
        """Returns the whole box: every crossing tensor from its least bits to its cap."""
        parts = Parts.of(tables, cut)
        caps = tables.caps[parts.sent, first]
        return cls(tables=tables, parts=parts, cut=cut, first=first, last=last,
                   low=(0,) * len(caps),
                   high=tuple(caps.tolist()))

    @functools.cached_property
    def _layer_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest index of each edge layer's widest tensor over the box."""
        touched = self.tables.touched[self.parts.layers]
        ends = []
        for level, sent in ((self.last, self.low), (self.first, self.high)):
            caps = np.append(self.tables.caps[:, level], -1)
            caps[self.parts.sent] = sent
            ends.append(caps[touched].max(axis=1))
        return ends[0], ends[1]

    def items(self, rows: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        """Returns cost f64[I, K], resources f64[len(rows), I, K] and their constant parts.

        Items are the weight groups, then the free crossing tensors. Rows are along
        `RESOURCES`.
        """
        tables, parts = self.tables, self.parts
        cost, fixed_cost = self._spend(tables.cost)
        index = np.arange(cost.shape[1])
        inside = (index >= np.array(self.low)[:, None]) & (index <= np.array(self.high)[:, None])
        cost[len(parts.starts):][~inside] = np.inf
        uses, fixed = [], []
        for row in rows:
            use, constant = self._tabled(row) if row < TABLED else self._spend(
                tables.spent_over(row))
            uses.append(use)
            fixed.append(constant)
        return cost, np.stack(uses), fixed_cost, np.array(fixed)

    def _spend(self, terms: Terms) -> tuple[np.ndarray, float]:
        """Returns the terms of every item, f64[I, K], and what depends on none."""
        parts = self.parts
        least = terms.range_min[parts.layers, *self._layer_range]
        groups = least[parts.weighted]
        if len(parts.starts):
            groups = np.add.reduceat(groups, parts.starts, axis=0)
        plain = np.delete(least[:, -1], parts.weighted).sum()
        fixed = terms.fixed[self.cut] + terms.ship[parts.bound, -1].sum() + plain
        return np.concatenate([groups, terms.ship[parts.sent]]), float(fixed)

    def _tabled(self, row: int) -> tuple[np.ndarray, float]:
        """Returns the use of every item, f64[I, K], and that of the tensors at their caps."""
        tables, parts = self.tables, self.parts
        use = np.concatenate([parts.group_use[row], tables.tensor_use[row, parts.sent]])
        if row == MEMORY:
            return use, float(
                tables.activation_bytes(self.cut, self.last) + parts.constant_bytes)
        ends = tables.caps[parts.kept][:, [self.last, self.first]]
        index = np.arange(use.shape[1])
        inside = (index >= ends[:, :1]) & (index <= ends[:, 1:])
        kept = np.where(inside, tables.tensor_use[row, parts.kept], np.inf)
        return use, float(kept.min(axis=1).sum())

    @functools.cached_property
    def coarsest(self) -> int | None:
        """The crossing tensor whose cost varies most over the box; None if all are fixed.

        Beside what is coupled, branching on it takes the coarse steps (one more bit of a
        crossing tensor may cost more than all edge layers) out of the knapsack, whose
        relaxation is tight on the fine steps of the weights only.
        """
        wide = np.array(self.low) < np.array(self.high)
        if not wide.any():
            return None
        ship_cost = self.tables.cost.ship[self.parts.sent]
        spread = ship_cost[np.arange(len(wide)), self.high] - ship_cost[:, 0]
        return int(np.where(wide, np.abs(spread), -1.0).argmax())

    def halves(self) -> list[Subproblem]:
        """Returns subproblems that cover this one, each with half of its levels."""
        levels = self.first + np.flatnonzero(
            self.tables.valid[self.cut, self.first : self.last + 1])
        halves = []
        for part in np.array_split(levels, 2):
            caps = self.tables.caps[self.parts.sent, part[0]]
            halves.append(dataclasses.replace(
                self, first=int(part[0]), last=int(part[-1]),
                high=tuple(np.minimum(self.high, caps).tolist())))
        return halves

    def fix(self, which: int, index: int) -> Subproblem:
        """Returns the part where a crossing tensor has the bits of this index."""
        def put(box: tuple[int, ...]) -> tuple[int, ...]:
            return (*box[:which], index, *box[which + 1 :])

        return dataclasses.replace(self, low=put(self.low), high=put(self.high))

    def assignment(self, options: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns i64[L] weight and i64[T] activation indices of the items' options."""
        parts, last = self.parts, len(self.tables.profile.bits) - 1
        w_index = np.full(len(self.tables.profile.macs), last)
        group = np.zeros(len(parts.weighted), dtype=np.int64)
        group[parts.starts[1:]] = 1
        w_index[parts.layers[parts.weighted]] = options[: len(parts.starts)][np.cumsum(group)]
        a_index = np.maximum(self.tables.caps[:, self.last], 0).astype(np.int64)
        a_index[~self.tables.free] = last
        a_index[parts.sent] = options[len(parts.starts) :]
        return w_index, a_index
