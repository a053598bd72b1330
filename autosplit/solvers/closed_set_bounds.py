"""Bounds over all closed sets at once, by minimum cuts with multipliers.

For multipliers lambda of the R limited resources and a range of activation levels and
tops (see `planner`), every proper split costs at least

    q(lambda) = min over closed sets of [ sum of layers' and crossing tensors' least
                (cost + lambda . use) ] - lambda . budgets,

since each layer may take its best weight bits and each tensor its best bits on its own.
The sum is that of `min_cut`: one minimum cut gives q, for all closed sets, listed or not.
Where it is exceeded by the cost of a known plan, none of them is better.

What is relaxed, beside the budgets:
  - in a range of levels and tops a tensor takes any cap between those of the ends, and the
    memory is charged the lowest level;
  - a layer is cheaper where its widest tensor crosses with fewer bits. Every layer has one
    tensor (its gate, the widest) without whose crossing it cannot be cheaper; the gate's
    price is less by what its layers may save;
  - layers that share a weight choose on their own, and its bytes are paid by the member
    that all others need, or else in equal parts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from autosplit.solvers.min_cut import Topology, minimum_closed_set
from autosplit.solvers.regions import Region, end_caps
from autosplit.solvers.tables import MEMORY, TABLED, Tables

ROUNDING = 1e-12
"""Relative rounding of sums over layers, taken off every bound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """What one minimum cut says about a region.

    Attributes:
      value: lower bound on the cost of all its assignments.
      on_edge: bool[L], the closed set that attains it; None where there is none.
      excess: f64[R], use less budgets there: which way the multipliers should go.
    """

    value: float
    on_edge: np.ndarray | None
    excess: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Priced:
    """Quantities at some multipliers.

    ``layer`` f64[L, K, K] by weight and activation, ``ranges`` f64[L, K, K] its least over
    the weights and a range of activations; ``sent``, ``kept`` f64[T, K]; ``cloud`` f64[L].
    """

    layer: np.ndarray
    ranges: np.ndarray
    sent: np.ndarray
    kept: np.ndarray
    cloud: np.ndarray
    fixed: float


@dataclasses.dataclass(frozen=True)
class _Boxes:
    """Activation indices in a region: caps of tensors and what follows for layers.

    ``least``, ``most`` i64[T] are the caps at both ends (-1: none fits); ``low``,
    ``high`` i64[L] of each layer's widest tensor; ``floor`` i64[L] how far it may fall where
    tensors cross; ``gate`` i64[L], the tensor that has to cross for it (T: none). ``sent``,
    ``kept`` bool[T, K]: bits that a tensor that crosses, or stays, may have.
    """

    least: np.ndarray
    most: np.ndarray
    low: np.ndarray
    high: np.ndarray
    floor: np.ndarray
    gate: np.ndarray
    sent: np.ndarray
    kept: np.ndarray


class ClosedSetBounds:
    """Lower bounds for the proper splits of a profile within budgets.

    P = 1 + R quantities: the cost, then the use of the resources with a finite budget.

    Attributes:
      rows: i64[R] along `RESOURCES`; budgets: f64[R].
      layer: f64[P, L, K, K], sent: f64[P, T, K], kept: f64[P, T, K] for tensors that stay,
        cloud: f64[P, L], fixed: f64[P].
      ceiling: no assignment costs more.
    """

    def __init__(self, tables: Tables, budgets: np.ndarray):
        profile = tables.profile
        self.tables = tables
        self.topology = Topology.of(profile)
        self.rows = np.flatnonzero(np.isfinite(budgets))
        self.budgets = budgets[self.rows]
        self._last: tuple[tuple[float, ...], _Priced] | None = None
        shares = _shares(profile.weight_group, self.topology.ancestors)
        parts = [self._cost(), *(self._use(int(row), shares) for row in self.rows)]
        self.layer, self.sent, self.kept, self.cloud, fixed = (
            np.stack(part) for part in zip(*parts, strict=True))
        self.fixed = fixed
        dearest = np.maximum(self.layer[0].max(axis=(1, 2)), self.cloud[0])
        dearest_sent = self.sent[0].max(axis=1)
        self.ceiling = 1.001 * float(dearest.sum() + dearest_sent.sum() + self.fixed[0])

    def _cost(self) -> tuple[Any, ...]:
        tables, profile = self.tables, self.tables.profile
        cloud = tables.objective.weigh(profile.cloud_latency_s, 0 * profile.cloud_latency_s)
        terms = tables.cost
        return (terms.layer, terms.ship, 0 * terms.ship, cloud, terms.fixed[0] - cloud.sum())

    def _use(self, row: int, shares: np.ndarray) -> tuple[Any, ...]:
        tables, profile = self.tables, self.tables.profile
        nothing = np.zeros(len(profile.macs))
        if row >= TABLED:
            terms = tables.spent_over(row)
            cloud = profile.cloud_latency_s if terms is tables.latency else nothing
            return (terms.layer, terms.ship, 0 * terms.ship, cloud, terms.fixed[0] - cloud.sum())
        weights = tables.weight_use[row] * (shares[:, None] if row == MEMORY else 1.0)
        layer = np.broadcast_to(weights[:, :, None], tables.cost.layer.shape)
        return (layer, tables.tensor_use[row], tables.tensor_use[row], nothing, np.float64(0))

    def at(self, region: Region, multipliers: np.ndarray) -> Bound:
        """Bounds a region by one minimum cut.

        Args:
          multipliers: f64[R], 0 or more.
        """
        priced = self._prices_at(tuple(multipliers.tolist()))
        boxes = self._boxes(region)
        edge, tensor, bits = self._arc_prices(priced, boxes)
        found = minimum_closed_set(self.topology, edge, priced.cloud, tensor,
                                   region.on_edge, region.in_cloud)
        if found.on_edge is None:
            return Bound(value=math.inf, on_edge=None, excess=np.zeros(len(self.rows)))
        spent = float(multipliers @ self.budgets)
        level = float((multipliers * (self.rows == MEMORY)).sum()) * region.smallest
        value = found.lower_bound + priced.fixed + level - spent
        value -= ROUNDING * (abs(found.lower_bound) + abs(spent) + level)
        excess = self._use_of(found.on_edge, priced, boxes, bits) - self.budgets
        excess[self.rows == MEMORY] += region.smallest
        return Bound(value=value, on_edge=found.on_edge, excess=excess)

    def _prices_at(self, multipliers: tuple[float, ...]) -> _Priced:
        """Keeps the last ones: the parts of a region start where it ended."""
        if self._last is None or self._last[0] != multipliers:
            self._last = multipliers, self._price(np.array([1.0, *multipliers]))
        return self._last[1]

    def _price(self, weights: np.ndarray) -> _Priced:
        layer = np.tensordot(weights, self.layer, axes=1)
        best = layer.min(axis=1)
        count = best.shape[1]
        ranges = np.full((len(best), count, count), np.inf)
        for low in range(count):
            ranges[:, low, low:] = np.minimum.accumulate(best[:, low:], axis=1)
        return _Priced(layer, ranges, np.tensordot(weights, self.sent, axes=1),
                       np.tensordot(weights, self.kept, axes=1), weights @ self.cloud,
                       float(weights @ self.fixed))

    def _boxes(self, region: Region) -> _Boxes:
        """Finds each layer's range of activation indices, and its gate."""
        least, most = end_caps(self.tables, region)
        lowest = np.append(np.maximum(least, 0), -1)
        touched = self.tables.touched
        stays = ~self._may_cross(region)
        floor = np.where(stays, lowest[touched], 0).max(axis=1)
        # Among equally wide tensors the one that seldom crosses: an input before the output.
        order = 2 * lowest[touched] + (touched != self._made)
        column = order.argmax(axis=1)
        low = lowest[touched].max(axis=1)
        gate = touched[np.arange(len(touched)), column]
        gate = np.where(floor < low, gate, len(least))
        high = np.append(most, -1)[touched].max(axis=1)
        index = np.arange(self.sent.shape[2])
        inside = index <= most[:, None]
        spare = self._tensors_spare(region)
        sent = (inside | ~self.tables.free[:, None]) & self._affords(self.sent, spare)
        inside &= index >= np.maximum(least, 0)[:, None]
        kept = inside & self._affords(self.kept, spare)
        kept |= inside & ~kept.any(axis=1, keepdims=True)  # has to cross: any price will do
        return _Boxes(least, most, low, high, floor, gate, sent, kept)

    def _tensors_spare(self, region: Region) -> np.ndarray:
        """Returns f64[P, T]: how much more than least a tensor may use where it is made."""
        if region.spare is None:
            return np.full(self.sent.shape[:2], np.inf)
        made = self.topology.producer >= 0
        return np.where(made, region.spare[:, self.topology.producer], np.inf)

    def _affords(self, use: np.ndarray, spare: np.ndarray) -> np.ndarray:
        return (use - self._held <= spare[:, :, None]).all(axis=0)

    @functools.cached_property
    def _held(self) -> np.ndarray:
        """f64[P, T, 1]: the least that a tensor uses, sent or kept."""
        return np.minimum(self.sent, self.kept).min(axis=2, keepdims=True)

    @functools.cached_property
    def _made(self) -> np.ndarray:
        """bool[L, D] as numbers: the touched tensor where the layer makes it, else -1."""
        touched, producer = self.tables.touched, np.append(self.topology.producer, -1)
        return np.where(producer[touched] == np.arange(len(touched))[:, None], touched, -1)

    def _may_cross(self, region: Region) -> np.ndarray:
        """Returns bool[L, D]: a touched tensor may cross, with free bits, if the layer is on
        the edge: it is an output, or another layer reads it that may be in the cloud.
        """
        touched, topology = self.tables.touched, self.topology
        open_readers = np.append(topology.reads[~region.on_edge].sum(axis=0), 0)[touched]
        reads_it = (self._made != touched) & ~region.on_edge[:, None]
        free = np.append(self.tables.free, False)[touched]
        return free & ((open_readers > reads_it) | np.append(topology.is_output, False)[touched])

    def _arc_prices(self, priced: _Priced, boxes: _Boxes) -> tuple[np.ndarray, np.ndarray,
                                                                       np.ndarray]:
        """Returns edge_cost f64[L] and tensor_cost f64[T] for the minimum cut, and the best
        indices i64[T] of the tensors that cross.
        """
        every = np.arange(len(boxes.low))
        fits = np.append(boxes.most, 0)[self.tables.touched].min(axis=1) >= 0
        high, low = np.maximum(boxes.high, 0), np.maximum(boxes.low, 0)
        base = np.where(fits, priced.ranges[every, low, high], np.inf)
        index = np.arange(priced.sent.shape[1])
        sent = np.where(self.tables.free[:, None], priced.sent, priced.sent[:, -1:])
        sent = np.where(boxes.sent, sent, np.inf)
        gated = np.flatnonzero((boxes.gate < len(sent)) & fits)
        fallen = np.maximum(index, boxes.floor[gated, None])
        saved = base[gated, None] - priced.ranges[gated[:, None], fallen, high[gated, None]]
        np.subtract.at(sent, boxes.gate[gated], np.maximum(saved, 0.0))
        kept = np.where(boxes.kept, priced.kept, np.inf).min(axis=1)
        kept = np.where(np.isfinite(kept), kept, 0.0)
        net = sent.min(axis=1) - kept
        net = np.where(np.isfinite(net) | (boxes.most >= 0), net, 0.0)
        made = self.topology.producer >= 0
        np.add.at(base, self.topology.producer[made], (kept + np.minimum(net, 0.0))[made])
        bits = np.where(self.tables.free, sent.argmin(axis=1), sent.shape[1] - 1)
        return base, np.maximum(net, 0.0), bits

    def _use_of(self, on_edge: np.ndarray, priced: _Priced, boxes: _Boxes,
                bits: np.ndarray) -> np.ndarray:
        """Returns f64[R]: what a minimiser uses, its crossing tensors at ``bits``."""
        crosses = self.topology.crosses(on_edge)
        layers, sent = np.flatnonzero(on_edge), np.flatnonzero(crosses)
        made = (self.topology.producer >= 0) & on_edge[self.topology.producer]
        stays = np.flatnonzero(made & ~crosses)
        gate = boxes.gate[layers]
        fallen = np.maximum(np.append(bits, 0)[gate], boxes.floor[layers])
        low = np.where(np.append(crosses, False)[gate], fallen, boxes.low[layers])
        index = np.arange(priced.ranges.shape[1])
        inside = (index >= low[:, None]) & (index <= boxes.high[layers, None])
        best = priced.layer[layers].min(axis=1)
        a = np.where(inside, best, np.inf).argmin(axis=1)
        w = priced.layer[layers, :, a].argmin(axis=1)
        return (self.layer[1:, layers, w, a].sum(axis=1)
                + self.sent[1:, sent, bits[sent]].sum(axis=1)
                + self.kept[1:, stays, boxes.most[stays]].sum(axis=1)
                + self.cloud[1:, ~on_edge].sum(axis=1) + self.fixed[1:])


def _shares(group: np.ndarray, ancestors: np.ndarray) -> np.ndarray:
    """Returns f64[L]: the part of its weight's bytes that each layer certainly pays."""
    shares = np.ones(len(group))
    for number in np.unique(group[np.flatnonzero(np.bincount(group)[group] > 1)]):
        members = np.flatnonzero(group == number)
        first = members[ancestors[np.ix_(members, members)].all(axis=0)]
        shares[members] = 0.0 if first.size else 1.0 / len(members)
        shares[first] = 1.0
    return shares
