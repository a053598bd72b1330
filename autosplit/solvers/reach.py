"""Reach: which layers can run on the edge at all, and the profile of these alone.

A closed set that holds a layer holds all that it needs. Where already the least use of
these exceeds a budget, the layer is in the cloud in every plan. With tight budgets these are
most layers of a deep graph: one layer that is never on the edge then stands for all of them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from autosplit.profiling.table import Profile
from autosplit.solvers.closed_set_bounds import ClosedSetBounds
from autosplit.solvers.lagrangian import threshold
from autosplit.solvers.min_cut import Topology
from autosplit.solvers.regions import Region
from autosplit.solvers.search import Found
from autosplit.solvers.tables import MEMORY

SLACK = 1e-9
"""Relative to a budget: rounding of the sums that are compared with it."""

LAYERS = ("macs", "has_weight", "weight_error", "weight_gain", "weight_ratio", "weight_bytes",
          "weight_group", "edge_latency_s", "edge_energy_j", "cloud_latency_s")
TENSORS = ("activation_error", "activation_gain", "activation_low", "activation_high",
           "tensor_bytes", "float_bytes", "pack_s", "unpack_s", "pack_j", "is_output")
"""Arrays of a profile whose first axis is along the layers or the tensors."""


class Reach:
    """What the layers that others need use at least.

    Attributes:
      least: f64[P, L], the cost and then the use of the limited resources, of the layer and the
        tensors that it makes.
      limits: f64[P], theirs; the first is the cost of a known plan.
      peak, free_peak: f64[L], least bytes of the largest of the tensors, or of the free ones,
        that are on the edge with a layer.
    """

    def __init__(self, bounds: ClosedSetBounds, upper: float):
        tables, profile, topology = bounds.tables, bounds.tables.profile, bounds.topology
        self._needs = topology.ancestors.astype(np.float64)
        least = bounds.layer.min(axis=(2, 3)).T.copy()
        made = np.flatnonzero(topology.producer >= 0)
        held = np.minimum(bounds.sent, bounds.kept).min(axis=2)[:, made]
        np.add.at(least, topology.producer[made], held.T)
        self.least = least.T
        self.limits = np.append(threshold(upper), bounds.budgets)
        self._memory = np.append(False, bounds.rows == MEMORY)
        narrowest = np.append(profile.tensor_bytes.min(axis=1), 0)
        free = np.append(tables.free, False)
        widest = np.append(profile.tensor_bytes[:, -1], 0)
        self.peak = self._largest(np.where(free, narrowest, widest)[tables.touched])
        self.free_peak = self._largest(np.where(free, narrowest, 0)[tables.touched])

    def _largest(self, sizes: np.ndarray) -> np.ndarray:
        return np.where(self._needs > 0, sizes.max(axis=1), 0.0).max(axis=1)

    @property
    def beyond(self) -> np.ndarray:
        """bool[L]: no plan within the limits has the layer on the edge."""
        nowhere = np.zeros(len(self._needs), dtype=bool)
        return np.any(self.spare(nowhere, 0) < 0, axis=0)

    def spare(self, on_edge: np.ndarray, level: int) -> np.ndarray:
        """Returns f64[P, L]: what the limits leave if a layer is on the edge, with all it needs.

        Below 0, no plan within the limits has it there.

        Args:
          on_edge: bool[L], layers that are there anyway.
          level: bytes, the least that the largest tensor takes.
        """
        forced = self._needs[on_edge].any(axis=0)
        use = self.least[:, forced].sum(axis=1) + self._needs @ (self.least * ~forced).T
        use += self._memory * np.maximum(self.peak, level)[:, None]
        return (self.limits + SLACK * np.abs(self.limits) - use).T

    def narrow(self, region: Region, levels: np.ndarray) -> Region | None:
        """Narrows a region to the levels and the layers within the limits; None if none are.

        Args:
          levels: i64[A], bytes, ascending.
        """
        forced = self._needs[region.on_edge].any(axis=0)
        low = self.free_peak[region.on_edge].max(initial=region.smallest)
        high = (self.limits + SLACK * np.abs(self.limits) - self.least[:, forced].sum(axis=1))
        high = high[self._memory].min(initial=region.largest)
        inside = levels[(levels >= low) & (levels <= high)]
        if not len(inside):
            return None
        spare = self.spare(region.on_edge, int(inside[0]))
        beyond = (spare < 0).any(axis=0)
        if (beyond & region.on_edge).any():
            return None
        return dataclasses.replace(region, smallest=int(inside[0]), largest=int(inside[-1]),
                                   in_cloud=region.in_cloud | beyond, spare=spare)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reduced:
    """The profile of the layers within reach, listing the empty set only.

    Attributes:
      whole: the profile that it is of.
      profile: its last layer stands for all that are out of reach, if there are any.
      layers, tensors: indices i64 of those that are kept, along the whole profile.
      apart: bool, of its layers: the one that stands for others.
    """

    whole: Profile
    profile: Profile
    layers: np.ndarray
    tensors: np.ndarray
    apart: np.ndarray

    @classmethod
    def of(cls, profile: Profile, beyond: np.ndarray) -> Reduced:
        layers, dropped = np.flatnonzero(~beyond), np.flatnonzero(beyond)
        tensors = np.flatnonzero((profile.producer < 0) | ~beyond[profile.producer])
        taken = np.append(layers, dropped[:1])
        place = np.append(np.searchsorted(layers, np.arange(len(beyond))), -1)
        part = {name: getattr(profile, name)[taken].copy() for name in LAYERS}
        part |= {name: getattr(profile, name)[tensors] for name in TENSORS}
        reads = profile.reads[np.ix_(taken, tensors)]
        producer = np.where(profile.producer < 0, -1, place[profile.producer])[tensors]
        if len(dropped):
            reads[-1] = profile.reads[np.ix_(dropped, tensors)].any(axis=0)
            part["cloud_latency_s"][-1] = profile.cloud_latency_s[dropped].sum()
            part["weight_group"][-1] = profile.weight_group.max() + 1
        empty = np.zeros((1, len(taken)), dtype=bool)
        topology = Topology(producer=producer, reads=reads, is_output=part["is_output"])
        names = np.array(profile.layer_names, dtype=object)
        reduced = dataclasses.replace(
            profile, **part, reads=reads, producer=producer, on_edge=empty,
            crosses=topology.crosses(empty), cut_names=("cloud-only",),
            layer_names=tuple(names[taken]),
            tensor_names=tuple(np.array(profile.tensor_names, dtype=object)[tensors]))
        return cls(whole=profile, profile=reduced, layers=layers, tensors=tensors,
                   apart=np.arange(len(taken)) >= len(layers))

    def widen(self, on_edge: np.ndarray, found: Found) -> tuple[np.ndarray, Found]:
        """Returns a closed set bool[L] and an assignment along the whole profile."""
        last = len(self.whole.bits) - 1
        flags = np.zeros(len(self.whole.macs), dtype=bool)
        flags[self.layers] = on_edge[: len(self.layers)]
        w_index, a_index = np.full(len(flags), last), np.full(len(self.whole.producer), last)
        assert found.w_index is not None
        w_index[self.layers] = found.w_index[: len(self.layers)]
        a_index[self.tensors] = found.a_index
        return flags, dataclasses.replace(found, w_index=w_index, a_index=a_index)
