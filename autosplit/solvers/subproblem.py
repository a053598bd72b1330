"""Subproblems: one cut at one activation level, as a multi-choice knapsack.

At level A (bytes) a tensor's cap is its largest bits with ``tensor_bytes <= A``. A
tensor on the edge takes its cap; a crossing tensor takes any bits of a box
``low..high``, from the least to its cap. What couples the crossing bits with the
weight bits is that a layer's time depends on its widest tensor. Where the box
leaves that open, the layer is priced at the least of its times over the box: a
lower bound. Branched down to one index for each crossing tensor, it is exact.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from autosplit.profiling.table import Profile
from autosplit.solvers import charging

RESOURCES = ("output_error", "quant_mse", "memory_bytes")
"""Order of the resource axis, named as the constraints."""


class Tables:
    """What all subproblems of a profile share; computed once.

    Attributes:
      levels: i64[A], the largest sizes that the tensors on an edge can have, descending.
      caps: i64[T, A], index of the largest bits within the level; -1 for none.
      valid: bool[C, A], every edge tensor has a cap and one of them fills the level.
      free: bool[T], crossing bits can be chosen.
      touched: i64[L, D], tensors of each layer, padded with T.
      range_min: f64[L, K, K, K], least edge_latency_s over activation indices
        low..high, for [layer, low, high, weight index].
      varies: bool[L, K, K], the time is not equal over low..high.
      weight_use: f64[3, L, K]; tensor_use: f64[3, T, K], by `RESOURCES`.
      ship_s: f64[T, K], pack, unpack and uplink seconds without the overhead.
      on_edge_tensor: bool[C, T].
      fixed_s: f64[C], cloud, response, round trip and request overhead.
    """

    def __init__(self, profile: Profile):
        self.profile = profile
        self.free = charging.chooses_bits(profile)
        self.on_edge_tensor = charging.edge_tensors(profile)
        used = self.on_edge_tensor.any(axis=0)
        levels = np.unique(profile.tensor_bytes[used])[::-1]
        caps = _caps(profile.tensor_bytes, levels)
        valid = _valid(profile.tensor_bytes, levels, caps, self.on_edge_tensor)
        some = valid.any(axis=0)
        self.levels, self.caps, self.valid = levels[some], caps[:, some], valid[:, some]
        self.touched = _padded(profile.touches)
        self.range_min, self.varies = _ranges(profile.edge_latency_s)
        gains = np.stack([profile.weight_gain, np.ones_like(profile.weight_gain)])
        errors = gains[:, :, None] * profile.weight_error
        self.weight_use = np.concatenate([errors, profile.weight_bytes[None]])
        made = profile.producer >= 0
        gains = np.stack([profile.activation_gain * made, 1.0 * made, 0.0 * made])
        self.tensor_use = gains[:, :, None] * profile.activation_error
        self.ship_s, self.fixed_s = _network_terms(profile)
        self._parts: dict[int, Parts] = {}

    def parts(self, cut: int) -> Parts:
        """Returns what the subproblems of a cut share."""
        if cut not in self._parts:
            self._parts[cut] = Parts.of(self, cut)
        return self._parts[cut]


def _caps(tensor_bytes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    fits = tensor_bytes[:, :, None] <= levels
    largest = tensor_bytes.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)
    return np.where(fits.any(axis=1), largest, -1)


def _valid(tensor_bytes: np.ndarray, levels: np.ndarray, caps: np.ndarray,
           on_edge_tensor: np.ndarray) -> np.ndarray:
    edge = on_edge_tensor.astype(np.float64)
    fills = np.take_along_axis(tensor_bytes, np.maximum(caps, 0), axis=1) == levels
    fills &= caps >= 0
    return (edge @ (caps < 0) == 0) & (edge @ fills > 0)


def _padded(touches: np.ndarray) -> np.ndarray:
    count = touches.sum(axis=1)
    padded = np.full((len(touches), max(int(count.max(initial=0)), 1)), touches.shape[1])
    layer, tensor = np.nonzero(touches)
    first = np.cumsum(count) - count
    padded[layer, np.arange(len(layer)) - np.repeat(first, count)] = tensor
    return padded


def _ranges(latency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least over each range of the last axis, and whether it varies there."""
    bits = latency.shape[2]
    by_activation = latency.transpose(0, 2, 1)
    least = np.full((len(latency), bits, bits, bits), np.inf)
    varies = np.zeros((len(latency), bits, bits), dtype=bool)
    for low in range(bits):
        rows = by_activation[:, low:]
        least[:, low, low:] = np.minimum.accumulate(rows, axis=1)
        spread = np.maximum.accumulate(rows, axis=1) > least[:, low, low:]
        varies[:, low, low:] = spread.any(axis=2)
    return least, varies


def _network_terms(profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    network = profile.network
    overhead_s = network.uplink_s(0)
    ship_s = profile.pack_s + profile.unpack_s
    ship_s = ship_s + network.uplink_s(profile.tensor_bytes) - overhead_s
    remote = ~profile.on_edge.all(axis=1)
    exchange_s = overhead_s + network.downlink_s(profile.response_bytes) + network.round_trip_s
    return ship_s, (~profile.on_edge) @ profile.cloud_latency_s + remote * exchange_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """One cut's layers, weight groups and tensors, as index arrays.

    Attributes:
      layers: i64[E]; weighted: positions in it of layers with weight, by group.
      starts: first of each group in ``weighted``; groups: G of them.
      group_use: f64[3, G, K], errors added, bytes paid once.
      sent: i64[S], crossing tensors with free bits; kept: edge tensors without a choice.
      constant_bytes: of the layers without a weight to quantize.
      fixed_s: cloud, network and crossing tensors without a choice.
    """

    layers: np.ndarray
    weighted: np.ndarray
    starts: np.ndarray
    group_use: np.ndarray
    sent: np.ndarray
    kept: np.ndarray
    constant_bytes: float
    fixed_s: float

    @classmethod
    def of(cls, tables: Tables, cut: int) -> Parts:
        profile = tables.profile
        layers = np.flatnonzero(profile.on_edge[cut])
        weighted, starts = _by_group(profile, layers, profile.has_weight[layers])
        plain, plain_starts = _by_group(profile, layers, ~profile.has_weight[layers])
        constants = _stored(tables.weight_use[2, layers[plain]], plain_starts)
        use = tables.weight_use[:, layers[weighted]]
        if len(starts):
            errors = np.add.reduceat(use[:2], starts, axis=1)
            use = np.concatenate([errors, _stored(use[2], starts)[None]])
        crosses = profile.crosses[cut]
        bound = np.flatnonzero(crosses & ~tables.free)
        return cls(
            layers=layers,
            weighted=weighted,
            starts=starts,
            group_use=use,
            sent=np.flatnonzero(crosses & tables.free),
            constant_bytes=float(constants[:, -1].sum()),
            kept=np.flatnonzero(tables.on_edge_tensor[cut] & ~(crosses & tables.free)),
            fixed_s=float(tables.fixed_s[cut] + tables.ship_s[bound, -1].sum()),
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
    """A cut, a level (index) and a box of indices for the free crossing tensors."""

    tables: Tables
    cut: int
    level: int
    low: tuple[int, ...]
    high: tuple[int, ...]

    @classmethod
    def root(cls, tables: Tables, cut: int, level: int) -> Subproblem:
        """Returns the whole box: every crossing tensor from its least bits to its cap."""
        caps = tables.caps[tables.parts(cut).sent, level]
        return cls(tables=tables, cut=cut, level=level, low=(0,) * len(caps),
                   high=tuple(caps.tolist()))

    @functools.cached_property
    def parts(self) -> Parts:
        return self.tables.parts(self.cut)

    @functools.cached_property
    def _layer_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest index of each edge layer's widest tensor over the box."""
        caps = np.append(self.tables.caps[:, self.level], -1)
        touched = self.tables.touched[self.parts.layers]
        caps[self.parts.sent] = self.low
        low = caps[touched].max(axis=1)
        caps[self.parts.sent] = self.high
        return low, caps[touched].max(axis=1)

    @functools.cached_property
    def items(self) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        """Returns cost f64[I, K], resources f64[3, I, K] and their constant parts.

        Items are the weight groups, then the free crossing tensors.
        """
        tables, parts = self.tables, self.parts
        least_s = tables.range_min[parts.layers, *self._layer_range]
        plain = np.delete(least_s[:, -1], parts.weighted)
        groups_s = least_s[parts.weighted]
        if len(parts.starts):
            groups_s = np.add.reduceat(groups_s, parts.starts, axis=0)
        index = np.arange(least_s.shape[1])
        inside = (index >= np.array(self.low)[:, None]) & (index <= np.array(self.high)[:, None])
        sent_s = np.where(inside, tables.ship_s[parts.sent], np.inf)
        use = np.concatenate([parts.group_use, tables.tensor_use[:, parts.sent]], axis=1)
        kept = tables.tensor_use[:, parts.kept, tables.caps[parts.kept, self.level]].sum(axis=1)
        kept[2] += tables.levels[self.level] + parts.constant_bytes
        return np.concatenate([groups_s, sent_s]), use, parts.fixed_s + float(plain.sum()), kept

    def branch(self) -> list[Subproblem]:
        """Fixes the crossing tensor whose transfer time varies most; [] if all are fixed.

        Beside what is coupled, this takes the coarse steps (one more bit of a crossing
        tensor may cost more than all edge layers) out of the knapsack, whose relaxation
        is tight on the fine steps of the weights only.
        """
        wide = np.array(self.low) < np.array(self.high)
        if not wide.any():
            return []
        ship_s = self.tables.ship_s[self.parts.sent]
        spread_s = ship_s[np.arange(len(wide)), self.high] - ship_s[:, 0]
        which = int(np.where(wide, np.abs(spread_s), -1.0).argmax())
        return [self._fix(which, index)
                for index in range(self.low[which], self.high[which] + 1)]

    def _fix(self, which: int, index: int) -> Subproblem:
        def put(box: tuple[int, ...]) -> tuple[int, ...]:
            return (*box[:which], index, *box[which + 1 :])

        return dataclasses.replace(self, low=put(self.low), high=put(self.high))

    def assignment(self, options: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns i64[L] weight and i64[T] activation indices of the items' options."""
        parts, last = self.parts, self.tables.range_min.shape[1] - 1
        w_index = np.full(len(self.tables.profile.macs), last)
        group = np.zeros(len(parts.weighted), dtype=np.int64)
        group[parts.starts[1:]] = 1
        w_index[parts.layers[parts.weighted]] = options[: len(parts.starts)][np.cumsum(group)]
        a_index = np.maximum(self.tables.caps[:, self.level], 0)
        a_index[~self.tables.free] = last
        a_index[parts.sent] = options[len(parts.starts) :]
        return w_index, a_index
