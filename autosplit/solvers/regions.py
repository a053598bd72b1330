"""Regions: sets of closed sets and levels, and how they are divided without losing one."""

from __future__ import annotations

import dataclasses

import numpy as np

from autosplit.solvers.min_cut import Topology
from autosplit.solvers.tables import Tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
    """Some closed sets at some levels.

    Attributes:
      smallest, largest: bytes, the ends of the range of levels; 0 for sets without a free
        tensor on the edge.
      least_top, most_top: of the range of tops, the bits (index) that no free tensor on the
        edge exceeds.
      on_edge, in_cloud: bool[L], layers that are forced there.
      spare: f64[P, L], see `reach`: what is left, with a layer on the edge, of the cost of a
        known plan and of the budgets; None where nobody looked.
    """

    smallest: int
    largest: int
    least_top: int
    most_top: int
    on_edge: np.ndarray
    in_cloud: np.ndarray
    spare: np.ndarray | None = None

    def holds(self, on_edge: np.ndarray) -> bool:
        """Returns whether a closed set bool[L] keeps to where layers are forced."""
        return not ((self.on_edge & ~on_edge) | (self.in_cloud & on_edge)).any()


def caps_at(tables: Tables, level: int, top: int) -> np.ndarray:
    """Returns i64[T]: index of the largest bits within a level and a top; -1 for none."""
    fits = tables.profile.tensor_bytes <= level
    largest = fits.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)
    caps = np.where(fits.any(axis=1), largest, -1)
    return np.where(tables.free, np.minimum(caps, top), fits.shape[1] - 1)


def end_caps(tables: Tables, region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Returns i64[T] twice: the least and the most that caps are in a region."""
    return (caps_at(tables, region.smallest, region.least_top),
            caps_at(tables, region.largest, region.most_top))


class Regions:
    """The division of all closed sets, levels and tops of a profile.

    Attributes:
      levels: i64[A], bytes, ascending: 0 and every size that a free tensor on the edge can have.
      whole: the region of them all.
    """

    def __init__(self, tables: Tables, topology: Topology):
        profile = tables.profile
        self.tables, self.profile, self.topology = tables, profile, topology
        self.last = len(profile.bits) - 1
        held = profile.touches.any(axis=0) & tables.free
        self.levels = np.unique(np.append(profile.tensor_bytes[held], 0))
        none = np.zeros(len(profile.macs), dtype=bool)
        self.whole = Region(smallest=int(self.levels[0]), largest=int(self.levels[-1]),
                            least_top=0, most_top=self.last, on_edge=none, in_cloud=none)
        self._needs = np.zeros((len(none), len(none)), dtype=bool)
        layer, tensor = np.nonzero(topology.reads & (topology.producer >= 0))
        self._needs[layer, topology.producer[tensor]] = True

    def narrow(self, region: Region) -> Region | None:
        """Forces the only layer that can make use of the levels or tops; None if none can.

        A level is the size of a free tensor that a layer on the edge makes, and a top is
        reached by one (where there is none, level 0 and the widest stand for all).
        """
        sizes, producer, free = (self.profile.tensor_bytes, self.topology.producer,
                                 self.tables.free)
        allowed = free[:, None] & (np.arange(self.last + 1) <= region.most_top)
        inside = (sizes >= region.smallest) & (sizes <= region.largest)
        users = []
        if region.smallest > 0:
            users.append(np.unique(producer[(inside & allowed).any(axis=1)]))
        if region.most_top < self.last:
            users.append(np.unique(producer[free & (sizes[:, region.least_top]
                                                    <= region.largest)]))
        for layers in users:
            possible = layers[~region.in_cloud[layers]]
            if not possible.size:
                return None
            if possible.size == 1:
                region = dataclasses.replace(region, on_edge=_put(region.on_edge, possible))
        return region

    def settle(self, region: Region,
               on_edge: np.ndarray) -> tuple[list[list[Region]], tuple[int, int] | None]:
        """Finds which of a region's levels and tops concern one closed set.

        Returns:
          Ways to divide the region by these, where the caps of the set's tensors differ in
          it; else none, and the level and top that the set has (None: not in the region).
        """
        touched = self.profile.touches[on_edge].any(axis=0)
        least, most = (caps[touched] for caps in end_caps(self.tables, region))
        free = self.tables.free[touched]
        sizes = self.profile.tensor_bytes[touched]
        if (least == most).all():
            level = int(sizes[np.arange(len(most)), most][free].max(initial=0))
            top = int(most[free].max()) if free.any() else self.last
            if (region.smallest <= level <= region.largest
                    and region.least_top <= top <= region.most_top):
                return [], (level, top)
            sizes = self.levels
        else:
            sizes = sizes[free]
        inside = np.unique(sizes[(sizes > region.smallest) & (sizes <= region.largest)])
        ways = [self.split_levels(region, inside)] if len(inside) else []
        if region.least_top < region.most_top:
            ways.append(self.split_tops(region))
        return ways, None

    def split_tops(self, region: Region) -> list[Region]:
        """Returns two regions, divided at the middle top."""
        middle = (region.least_top + region.most_top + 1) // 2
        return [dataclasses.replace(region, least_top=middle),
                dataclasses.replace(region, most_top=middle - 1)]

    def split_levels(self, region: Region, sizes: np.ndarray) -> list[Region]:
        """Returns two regions, divided at the middle of some sizes within the region."""
        middle = int(sizes[len(sizes) // 2])
        below = int(self.levels[np.searchsorted(self.levels, middle) - 1])
        return [dataclasses.replace(region, smallest=middle),
                dataclasses.replace(region, largest=below)]

    def split_layers(self, region: Region, layers: np.ndarray) -> list[Region]:
        """Returns two regions, divided by the side on which the middle one of layers is."""
        middle = layers[len(layers) // 2 :][:1]
        return [dataclasses.replace(region, in_cloud=_put(region.in_cloud, middle)),
                dataclasses.replace(region, on_edge=_put(region.on_edge, middle))]

    def all_but(self, region: Region, on_edge: np.ndarray) -> list[Region]:
        """Returns regions that together hold every closed set but one.

        Another set lacks one of its last layers, or else it has one of the next ones.
        """
        last, after = self._ends(on_edge)
        last, after = last[~region.on_edge[last]], after[~region.in_cloud[after]]
        kept = region.on_edge | on_edge
        shorter = [dataclasses.replace(region, on_edge=_put(region.on_edge, last[:index]),
                                       in_cloud=_put(region.in_cloud, last[index : index + 1]))
                   for index in range(len(last))]
        longer = [dataclasses.replace(region, on_edge=_put(kept, after[index : index + 1]),
                                      in_cloud=_put(region.in_cloud, after[:index]))
                  for index in range(len(after))]
        return shorter + longer


    def neighbours(self, on_edge: np.ndarray) -> list[np.ndarray]:
        """Returns the closed sets that have one layer more or less."""
        change = np.concatenate(self._ends(on_edge))
        return list(on_edge ^ (np.arange(len(on_edge)) == change[:, None]))

    def _ends(self, on_edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns i64: the layers that nothing in a set needs, and those that may follow it."""
        followed = self._needs[on_edge].any(axis=0)
        ready = ~(self._needs & ~on_edge).any(axis=1)
        return np.flatnonzero(on_edge & ~followed), np.flatnonzero(ready & ~on_edge)


def _put(flags: np.ndarray, layers: np.ndarray) -> np.ndarray:
    flags = flags.copy()
    flags[layers] = True
    return flags
