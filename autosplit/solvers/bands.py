"""Bands: all cuts at ranges of levels, and sums over their layers and tensors.

Closed sets differ little from one another when they are sorted, so a sum over the layers
of every cut takes one addition for each layer by which it differs from the cut before it,
instead of one for each layer.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from autosplit.solvers.tables import Tables, padded

MAX_BANDS = 64
MAX_SUBPROBLEMS = 16_384
"""The levels are joined to bands where cuts times levels would exceed this."""


class Bands:
    """The subproblems (cut, band of levels) and the least sums over each.

    A band is a range of levels with one top. A tensor's index lies between its caps at both ends.

    Attributes:
      cut: i64[N], by band, then by cut.
      first, last: i64[N], the widest and the narrowest level of the band that are valid
        for the cut.
    """

    def __init__(self, tables: Tables):
        self.tables = tables
        count = max(1, min(MAX_BANDS, MAX_SUBPROBLEMS // max(len(tables.valid), 1)))
        edges = _edges(tables.tops, count)
        self._band, self.cut, self.first, self.last = _nodes(tables.valid, edges)
        self._low = tables.caps[:, edges[1:] - 1].clip(0)
        self._high = tables.caps[:, edges[:-1]].clip(0)
        bottom = np.full((1, len(edges) - 1), -1)
        low, high = (np.concatenate([caps, bottom]) for caps in (self._low, self._high))
        self._layer_low = low[tables.touched].max(axis=1)
        self._layer_high = high[tables.touched].max(axis=1)
        self._coupled = _coupled(tables, low, self._layer_high)
        self._whole, self._extra = _sums(tables, self._coupled)

    def least(self, layer: np.ndarray, kept: np.ndarray, sent: np.ndarray) -> np.ndarray:
        """Returns f64[N]: the least sum over each cut's items within its band.

        Args:
          layer: f64[L, K], by the index of the layer's widest tensor.
          kept: f64[T, K], of tensors that stay on the edge; sent: of those that cross.
        """
        ranges = _range_min(layer)
        layers = _pick(ranges, np.arange(len(layer)), self._layer_low, self._layer_high)
        kept = _pick(_range_min(kept), np.arange(len(kept)), self._low, self._high)
        free = self.tables.free[:, None]
        cheapest = np.take_along_axis(np.minimum.accumulate(sent, axis=1), self._high, axis=1)
        crossing = np.where(free, cheapest, sent[:, -1:])
        coupled = self._coupled
        less = (_pick(ranges, coupled.layer, coupled.low, self._layer_high[coupled.layer])
                - layers[coupled.layer])
        items = np.concatenate([layers, kept, crossing, less])
        totals = self._whole.of(items) + self._extra.of(items)
        return totals[self.cut, self._band]


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Sums of some rows for each cut: N terms ``sign * items[row]``, sorted by ``owner``.

    With an ``order`` i64[C], the sum of each cut adds to that of the one before it there.
    """

    count: int
    row: np.ndarray
    sign: np.ndarray
    starts: np.ndarray
    owners: np.ndarray
    order: np.ndarray | None = None

    @classmethod
    def of_terms(cls, count: int, owner: np.ndarray, row: np.ndarray, sign: np.ndarray,
                 order: np.ndarray | None = None) -> _Sums:
        owners, starts = np.unique(owner, return_index=True)
        return cls(count, row, sign, starts, owners, order)

    def of(self, items: np.ndarray) -> np.ndarray:
        """Returns f64[C, B] from f64[rows, B]."""
        totals = np.zeros((self.count, items.shape[1]))
        if len(self.row):
            terms = items[self.row] * self.sign[:, None]
            totals[self.owners] = np.add.reduceat(terms, self.starts, axis=0)
        if self.order is None:
            return totals
        ordered = np.empty_like(totals)
        ordered[self.order] = np.cumsum(totals, axis=0)
        return ordered


@dataclasses.dataclass(frozen=True)
class _Coupled:
    """Edge layers whose widest tensor may be a crossing one, P of them over all cuts.

    U kinds: a layer and which of its tensors cross. ``layer`` i64[U], ``low`` i64[U, B], the
    least index of the widest tensor if the crossing ones are at 0; ``cut``, ``kind`` i64[P],
    by cut.
    """

    layer: np.ndarray
    low: np.ndarray
    cut: np.ndarray
    kind: np.ndarray


def _edges(tops: np.ndarray, count: int) -> np.ndarray:
    """Returns where bands begin and end: about ``count``, each within one top."""
    parts = np.unique(np.linspace(0, len(tops), count + 1).astype(np.int64))
    return np.unique(np.concatenate([parts, 1 + np.flatnonzero(np.diff(tops))]))


def _nodes(valid: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns i64[N] four times: band, cut, and its first and last valid level there."""
    nodes = []
    for band, (start, end) in enumerate(itertools.pairwise(edges)):
        inside = valid[:, start:end]
        cuts = np.flatnonzero(inside.any(axis=1))
        first = start + inside[cuts].argmax(axis=1)
        last = end - 1 - inside[cuts, ::-1].argmax(axis=1)
        nodes.append(np.stack([np.full(len(cuts), band), cuts, first, last]))
    return tuple(np.concatenate(nodes, axis=1)) if nodes else (np.zeros(0, np.int64),) * 4


def _range_min(values: np.ndarray) -> np.ndarray:
    """Returns f64[R, K, K] from f64[R, K]: the least over low..high."""
    count = values.shape[1]
    ranges = np.full((len(values), count, count), np.inf)
    for low in range(count):
        ranges[:, low, low:] = np.minimum.accumulate(values[:, low:], axis=1)
    return ranges


def _pick(ranges: np.ndarray, row: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return ranges[row[:, None], low, high]


def _sums(tables: Tables, coupled: _Coupled) -> tuple[_Sums, _Sums]:
    """Returns the sums over edge layers and tensors, and what crossing ones change.

    Rows: layers, kept tensors, crossing tensors, kinds of coupled layers.
    """
    profile = tables.profile
    count, layers, tensors = len(profile.on_edge), len(profile.macs), len(profile.producer)
    flags = np.concatenate([profile.on_edge, tables.on_edge_tensor], axis=1)
    packed = np.packbits(profile.on_edge, axis=1)
    order = np.array(sorted(range(count), key=lambda cut: packed[cut].tobytes()))
    flags = flags[order]
    flags[1:] ^= flags[:-1].copy()
    place, row = np.nonzero(flags)
    on = np.concatenate([profile.on_edge, tables.on_edge_tensor], axis=1)[order[place], row]
    whole = _Sums.of_terms(count, place, row, np.where(on, 1.0, -1.0), order)
    cut, tensor = np.nonzero(profile.crosses)
    stays = tables.on_edge_tensor[cut, tensor]
    owner = np.concatenate([cut, cut[stays], coupled.cut])
    row = np.concatenate([layers + tensors + tensor, layers + tensor[stays],
                          layers + 2 * tensors + coupled.kind])
    sign = np.concatenate([np.ones(len(cut)), np.full(stays.sum(), -1.0),
                           np.ones(len(coupled.cut))])
    by_cut = np.argsort(owner, kind="stable")
    return whole, _Sums.of_terms(count, owner[by_cut], row[by_cut], sign[by_cut])


def _coupled(tables: Tables, low: np.ndarray, layer_high: np.ndarray) -> _Coupled:
    profile = tables.profile
    layers = len(profile.macs)
    sent = profile.crosses & tables.free
    touching = padded(profile.touches.T)
    cut, tensor = np.nonzero(sent)
    pairs = (cut[:, None] * (layers + 1) + touching[tensor]).ravel()
    cut, layer = np.divmod(np.unique(pairs), layers + 1)
    on_edge = np.append(profile.on_edge, np.zeros((len(sent), 1), bool), axis=1)[cut, layer]
    cut, layer = cut[on_edge], layer[on_edge]
    crosses = np.append(sent, np.zeros((len(sent), 1), bool), axis=1)
    lowered = crosses[cut[:, None], tables.touched[layer]]
    keys = np.concatenate([layer[:, None], np.packbits(lowered, axis=1)], axis=1)
    kinds, one, kind = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    of_layer, kind = kinds[:, 0], kind.reshape(-1)
    least = np.where(lowered[one][:, :, None], 0, low[tables.touched[of_layer]]).max(
        axis=1, initial=0)
    varies = tables.cost.varies | tables.latency.varies | tables.energy.varies
    matters = varies[of_layer[:, None], least, layer_high[of_layer]].any(axis=1)
    number = np.cumsum(matters) - 1
    used = matters[kind]
    return _Coupled(layer=of_layer[matters], low=least[matters], cut=cut[used],
                    kind=number[kind[used]])
