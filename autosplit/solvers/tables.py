"""Tables: what all subproblems of a profile share."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from autosplit.profiling.table import Profile
from autosplit.solvers import charging
from autosplit.solvers.objective import Objective

RESOURCES = ("output_error", "quant_mse", "memory_bytes", "latency_s", "energy_j")
"""Order of the resource axis (R = 5), named as the constraints."""

MEMORY = RESOURCES.index("memory_bytes")

TABLED = 3
"""The first resources cost the same whatever the activations; the others are `Terms`."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """A quantity that the stages of a plan add up: seconds, joules or what they cost.

    Attributes:
      layer: f64[L, K, K], by weight bits and the widest tensor's.
      ship: f64[T, K], a crossing tensor without the message's overhead.
      fixed: f64[C], cloud, response, round trip and request overhead.
    """

    layer: np.ndarray
    ship: np.ndarray
    fixed: np.ndarray

    @functools.cached_property
    def range_min(self) -> np.ndarray:
        """f64[L, K, K, K]: the least over activation indices low..high.

        For [layer, low, high, weight index]; infinity where low exceeds high.
        """
        count = self.layer.shape[2]
        by_activation = self.layer.transpose(0, 2, 1)
        least = np.full((len(self.layer), count, count, count), np.inf)
        for low in range(count):
            least[:, low, low:] = np.minimum.accumulate(by_activation[:, low:], axis=1)
        return least

    @functools.cached_property
    def varies(self) -> np.ndarray:
        """bool[L, K, K]: the layer's quantity is not equal over low..high."""
        count = self.layer.shape[2]
        by_activation = self.layer.transpose(0, 2, 1)
        varies = np.zeros((len(self.layer), count, count), dtype=bool)
        for low in range(count):
            most = np.maximum.accumulate(by_activation[:, low:], axis=1)
            varies[:, low, low:] = (most > self.range_min[:, low, low:]).any(axis=2)
        return varies


class Tables:
    """What all subproblems of a profile share; computed once.

    Attributes:
      objective: what a cost is.
      levels: i64[A], the largest sizes that the free tensors on an edge can have, by falling
        top, then descending; 0 for cuts that have none.
      tops: i64[A], index of the bits that no free tensor exceeds.
      caps: i8[T, A], index of the largest bits within the level and the top; -1 for none.
      fixed_bytes: i64[C], the largest of the edge tensors whose bits are not free.
      valid: bool[C, A], every edge tensor has a cap, a free one fills the level and one
        reaches the top.
      free: bool[T], crossing bits can be chosen.
      touched: i64[L, D], tensors of each layer, padded with T.
      cost: the objective's `Terms`.
      weight_use: f64[3, L, K]; tensor_use: f64[3, T, K], by the first `RESOURCES`.
      on_edge_tensor: bool[C, T].
    """

    def __init__(self, profile: Profile, objective: Objective | None = None):
        self.profile = profile
        self.objective = Objective() if objective is None else objective
        self.free = charging.chooses_bits(profile)
        self.on_edge_tensor = charging.edge_tensors(profile)
        levels, tops, valid = _settings(profile.tensor_bytes, self.free, self.on_edge_tensor)
        some = valid.any(axis=0)
        self.levels, self.tops, self.valid = levels[some], tops[some], valid[:, some]
        self.caps = _caps(profile.tensor_bytes, self.free, self.levels, self.tops)
        fixed = np.where(self.free, 0, profile.tensor_bytes[:, -1])
        self.fixed_bytes = np.where(self.on_edge_tensor, fixed, 0).max(axis=1)
        self.touched = padded(profile.touches)
        gains = np.stack([profile.weight_gain, np.ones_like(profile.weight_gain)])
        errors = gains * profile.weight_error
        self.weight_use = np.concatenate([errors, profile.weight_bytes[None]])
        made = np.broadcast_to((profile.producer >= 0)[:, None], profile.activation_gain.shape)
        gains = np.stack([profile.activation_gain * made, 1.0 * made, 0.0 * made])
        self.tensor_use = gains * profile.activation_error

    def at(self, profile: Profile, setting: tuple[int, int] | None = None) -> Tables:
        """Returns the tables of the same layers and tensors with other cuts, or at one setting.

        Args:
          profile: equal to this one's but for ``on_edge``, ``crosses`` and ``cut_names``.
          setting: level (bytes) and top (index) of all cuts; every one that they have if None.
        """
        part = Tables(profile, self.objective)
        if setting is not None:
            part.levels, part.tops = np.array(setting[:1]), np.array(setting[1:])
            part.caps = _caps(profile.tensor_bytes, part.free, part.levels, part.tops)
            part.valid = np.ones((len(profile.on_edge), 1), dtype=bool)
        for name in ("latency", "energy", "cost"):
            terms: Terms = getattr(self, name)
            vars(getattr(part, name)).update(range_min=terms.range_min, varies=terms.varies)
        return part

    def activation_bytes(self, cut: np.ndarray | int, setting: np.ndarray | int) -> np.ndarray:
        """Returns the largest edge tensor of cuts at settings (indices along C and A)."""
        return np.maximum(self.levels[setting], self.fixed_bytes[cut])

    @functools.cached_property
    def latency(self) -> Terms:
        """Seconds."""
        profile, network = self.profile, self.profile.network
        overhead_s = network.uplink_s(0)
        ship_s = profile.pack_s + profile.unpack_s
        ship_s = ship_s + network.uplink_s(profile.tensor_bytes) - overhead_s
        exchange_s = overhead_s + network.downlink_s(profile.response_bytes)
        remote = ~profile.on_edge.all(axis=1)
        cloud_s = (~profile.on_edge) @ profile.cloud_latency_s
        return Terms(profile.edge_latency_s, ship_s,
                     cloud_s + remote * (exchange_s + network.round_trip_s))

    @functools.cached_property
    def energy(self) -> Terms:
        """Joules of the edge device; NaN where the profile states none."""
        profile, network = self.profile, self.profile.network
        overhead_j = network.uplink_j(0)
        ship_j = profile.pack_j + network.uplink_j(profile.tensor_bytes) - overhead_j
        exchange_j = overhead_j + network.downlink_j(profile.response_bytes)
        remote = ~profile.on_edge.all(axis=1)
        return Terms(profile.edge_energy_j, ship_j, np.where(remote, exchange_j, 0.0))

    @functools.cached_property
    def cost(self) -> Terms:
        """What the objective makes of both."""
        seconds, joules, weigh = self.latency, self.energy, self.objective.weigh
        return Terms(weigh(seconds.layer, joules.layer), weigh(seconds.ship, joules.ship),
                     weigh(seconds.fixed, joules.fixed))

    def spent_over(self, resource: int) -> Terms:
        """Returns the terms of one of the last `RESOURCES`."""
        return self.latency if RESOURCES[resource] == "latency_s" else self.energy


def _settings(tensor_bytes: np.ndarray, free: np.ndarray,
              on_edge_tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns levels i64[A] and tops i64[A], and bool[C, A]: the cut can be set so.

    Of settings that give a cut the same bits only one is valid: its level is filled and
    its top is reached.
    """
    free_edge = on_edge_tensor & free
    sizes = tensor_bytes[free_edge.any(axis=0)].ravel()
    levels = np.unique(np.append(sizes, 0))[::-1]
    count = tensor_bytes.shape[1]
    blocks = [_valid(tensor_bytes, free_edge, levels, top) for top in reversed(range(count))]
    tops = np.repeat(np.arange(count)[::-1], len(levels))
    return np.tile(levels, count), tops, np.concatenate(blocks, axis=1)


def _valid(tensor_bytes: np.ndarray, free_edge: np.ndarray, levels: np.ndarray,
           top: int) -> np.ndarray:
    edge = np.ascontiguousarray(free_edge.T)
    filled = np.zeros((len(levels), edge.shape[1]), dtype=bool)
    index = len(levels) - 1 - np.searchsorted(levels[::-1], tensor_bytes)
    for tensor in np.flatnonzero(edge.any(axis=1)):
        filled[index[tensor, : top + 1]] |= edge[tensor]
    needed = np.where(free_edge, tensor_bytes.min(axis=1), 0).max(axis=1)
    reaching = np.where(free_edge, tensor_bytes[:, top], np.inf).min(axis=1)
    valid = filled.T & (levels >= np.maximum(needed, reaching)[:, None])
    # Where no tensor has a choice there is one setting.
    valid[~free_edge.any(axis=1), -1] = top == tensor_bytes.shape[1] - 1
    return valid


def _caps(tensor_bytes: np.ndarray, free: np.ndarray, levels: np.ndarray,
          tops: np.ndarray) -> np.ndarray:
    caps = np.full((len(tensor_bytes), len(levels)), -1, dtype=np.int8)
    for index, size in enumerate(tensor_bytes.T):
        caps[size[:, None] <= levels] = index
    caps[free] = np.minimum(caps[free], tops)
    caps[~free] = tensor_bytes.shape[1] - 1
    return caps


def padded(touches: np.ndarray) -> np.ndarray:
    """Returns i64[R, D] from bool[R, N]: what each row touches, padded with N."""
    count = touches.sum(axis=1)
    padded = np.full((len(touches), max(int(count.max(initial=0)), 1)), touches.shape[1])
    layer, tensor = np.nonzero(touches)
    first = np.cumsum(count) - count
    padded[layer, np.arange(len(layer)) - np.repeat(first, count)] = tensor
    return padded
