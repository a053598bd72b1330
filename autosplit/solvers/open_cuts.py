"""Open cuts: the cheapest proper split over all closed sets, listed in the profile or not.

A graph with branches may have more closed sets than can be listed. Lagrangian relaxation
of the budgets and branch and bound over `regions` (a range of levels and tops, layers forced
onto the edge or into the cloud), least bound first: `closed_set_bounds` bounds a region by minimum
cuts. Of the closed sets that these meet, S does best at the best multipliers and its rival
second best. A region is divided
  - by a layer in which S and its rival differ, or
  - by levels or tops, where these leave the caps of the tensors of S open;
of these, whichever raises the bounds more. Where S has no rival and its caps are known, it
is solved exactly with these by `search`, first for plans little above its bound, and the
other closed sets of the region are divided by the first layer in which they differ from it.
Done when no bound is below the best plan: a proof over all closed sets.

Reference: Geoffrion 1974 (Lagrangian relaxation in branch and bound), Kelley 1960 (the
multipliers by cutting planes), Lawler 1972 (division by the first difference), Applegate
et al. 1995 (strong branching).
"""

from __future__ import annotations

import copy
import dataclasses
import heapq
import itertools
import math

import numpy as np

from autosplit.profiling.table import Profile
from autosplit.solvers import charging
from autosplit.solvers.closed_set_bounds import ClosedSetBounds
from autosplit.solvers.lagrangian import threshold
from autosplit.solvers.min_cut import Topology
from autosplit.solvers.multipliers import climb
from autosplit.solvers.regions import Region, Regions, caps_at
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import Found, find_fastest
from autosplit.solvers.tables import RESOURCES, Tables

MAX_MIN_CUTS = 3000
"""Some 6 ms each at 1,000 layers; what is open beyond them is reported in the bound."""

ROOT_STEPS = 60
STEPS = 3
"""Of the multipliers: at first, and in each region that its parent's do not rule out."""

FIRST_RISE, RISE = 1e-4, 8.0
"""A closed set is first searched for plans little above its bound, then for dearer ones."""

NAMED_LAYERS = 4
"""The name of a cut lists at most so many layers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """The result of a search over all closed sets.

    Attributes:
      profile: the profile, with the cut that was found listed before edge-only.
      found: the cheapest proper split; ``cut`` is along ``profile``, and ``lower_bound``
        is proven for every closed set, listed or not.
      min_cuts: how many were needed.
    """

    profile: Profile
    found: Found
    min_cuts: int


def search_open_cuts(tables: Tables, budgets: np.ndarray, found: Found,
                     max_min_cuts: int = MAX_MIN_CUTS) -> Opened:
    """Searches the closed sets that a profile does not list.

    Args:
      tables: of a profile and an objective.
      budgets: f64[5] by `RESOURCES`, infinity for none.
      found: the cheapest of the listed proper splits within the budgets; its cost is the
        one to beat, infinity if there is none.
      max_min_cuts: where to stop; the bound is then what is proven so far.

    Returns:
      What is cheapest, and a bound on the cost of all proper splits within the budgets.
    """
    if not tables.profile.open_cuts:
        return Opened(profile=tables.profile, found=found, min_cuts=0)
    own = [name == tables.objective.minimises for name in RESOURCES]
    budgets = np.where(own, math.inf, budgets)  # the cheapest keeps it, or none
    return _OpenSearch(tables, budgets, found, max_min_cuts).run()


def with_cuts(profile: Profile, on_edge: np.ndarray) -> Profile:
    """Returns the profile with further closed sets bool[N, L] listed before its last cut."""
    topology = Topology.of(profile)

    def insert(listed: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([listed[:-1], rows, listed[-1:]])

    names = tuple(cut_name(profile, flags) for flags in on_edge)
    return dataclasses.replace(
        profile,
        on_edge=insert(profile.on_edge, on_edge),
        crosses=insert(profile.crosses, topology.crosses(on_edge)),
        cut_names=(*profile.cut_names[:-1], *names, profile.cut_names[-1]),
    )


def cut_name(profile: Profile, on_edge: np.ndarray) -> str:
    """Names a proper split by the edge layers whose results leave the edge."""
    makers = np.unique(profile.producer[Topology.of(profile).crosses(on_edge)])
    names = [profile.layer_names[layer] for layer in makers[makers >= 0]]
    if len(names) > NAMED_LAYERS:
        names[NAMED_LAYERS - 1 :] = [f"{len(names) - NAMED_LAYERS + 1} more"]
    return "after " + " + ".join(names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Node:
    """A region and its multipliers f64[R].

    ``on_edge`` bool[L] is the closed set that these make cheapest, ``rival`` bool[L] the next
    best of those that were met; None where there was no other.
    """

    region: Region
    on_edge: np.ndarray
    rival: np.ndarray | None
    multipliers: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A closed set at one level of which no plan is below some cost.

    Attributes:
      on_edge: bool[L].
      relaxation: of its tables, the level's alone.
      rise: relative, how far above that cost to look next.
    """

    on_edge: np.ndarray
    relaxation: Relaxation
    rise: float


class _OpenSearch:
    """One search: the regions that are open, and the best plan so far."""

    def __init__(self, tables: Tables, budgets: np.ndarray, found: Found, max_min_cuts: int):
        self.tables, self.budgets = tables, budgets
        self.bounds = ClosedSetBounds(tables, budgets)
        self.regions = Regions(tables, self.bounds.topology)
        self.max_min_cuts, self.min_cuts = max_min_cuts, 0
        self.upper, self.found = found.cost, found
        self.best: np.ndarray | None = None
        self.unproven = math.inf
        self.open: list[tuple[float, int, _Node | _Candidate]] = []
        self.count = itertools.count()

    def run(self) -> Opened:
        start = np.zeros(len(self.bounds.rows))
        for part in self._bound(self.regions.whole, start, -math.inf, ROOT_STEPS):
            self._queue(*part)
        while self.open and self.open[0][0] < threshold(self.upper):
            if self.min_cuts >= self.max_min_cuts:
                break
            value, _, task = heapq.heappop(self.open)
            if isinstance(task, _Candidate):
                self._solve(task, value)
            else:
                self._expand(task, value)
        return self._result()

    def _bound(self, region: Region, start: np.ndarray, least: float,
               steps: int) -> list[tuple[float, _Node]]:
        """Returns a region with its bound, or nothing where it cannot hold a cheaper plan."""
        limited = self.regions.narrow(region)
        if limited is None:
            return []
        enough = threshold(min(self.upper, self.bounds.ceiling))
        top = climb(self.bounds, limited, start, enough, steps)
        self.min_cuts += top.min_cuts
        if top.bound.on_edge is None or top.bound.value >= enough:
            return []
        node = _Node(region=limited, on_edge=top.bound.on_edge, rival=top.rival,
                     multipliers=top.multipliers)
        return [(max(top.bound.value, least), node)]

    def _expand(self, node: _Node, value: float) -> None:
        """Replaces a node by its parts, of several ways by those with the higher bounds."""
        ways = [[part for region in way
                 for part in self._bound(region, node.multipliers, value, STEPS)]
                for way in self._ways(node, value)]
        for part in max(ways, key=lambda way: min((low for low, _ in way), default=math.inf)):
            self._queue(*part)

    def _queue(self, value: float, task: _Node | _Candidate) -> None:
        heapq.heappush(self.open, (value, next(self.count), task))

    def _ways(self, node: _Node, value: float) -> list[list[Region]]:
        """Returns the ways to divide a node, or queues its closed set and goes on."""
        region, on_edge, regions = node.region, node.on_edge, self.regions
        ways = []
        if node.rival is not None:
            ways.append(regions.split_layers(region, np.flatnonzero(on_edge != node.rival)))
        if 0 < on_edge.sum() < len(on_edge):
            settings, setting = regions.settle(region, on_edge)
            ways += settings
            if setting and not ways:
                self._queue(value, self._candidate(node, *setting))
        return ways or [regions.all_but(region, on_edge)]

    def _candidate(self, node: _Node, level: int, top: int) -> _Candidate:
        relaxation = Relaxation(_tables_of(self.tables, self.bounds, node.on_edge, level, top))
        point = np.zeros((1, len(RESOURCES)))
        point[0, self.bounds.rows] = node.multipliers
        relaxation.add(np.ones(1), point)
        return _Candidate(on_edge=node.on_edge, relaxation=relaxation, rise=FIRST_RISE)

    def _solve(self, candidate: _Candidate, value: float) -> None:
        """Searches a closed set for plans up to some cost; if there is none, it waits again."""
        target = value + candidate.rise * max(value, FIRST_RISE * self.bounds.ceiling)
        target = min(self.upper, target if target < self.bounds.ceiling else math.inf)
        every = np.ones(1, dtype=bool)
        found = find_fastest(candidate.relaxation, self.budgets, every, target)
        if found.cut is not None:
            self.best, self.found, self.upper = candidate.on_edge, found, found.cost
        if not found.proven and found.lower_bound < threshold(target):
            self.unproven = min(self.unproven, found.lower_bound)
        elif found.cut is None and target < self.upper:
            self._queue(target, dataclasses.replace(candidate, rise=RISE * candidate.rise))

    def _result(self) -> Opened:
        queued = self.open[0][0] if self.open else math.inf
        lower = min(self.upper, self.unproven, queued)
        if lower >= threshold(self.upper):
            lower = self.upper
        found = dataclasses.replace(self.found, lower_bound=lower)
        if self.best is None:
            return Opened(profile=self.tables.profile, found=found, min_cuts=self.min_cuts)
        profile = with_cuts(self.tables.profile, self.best[None])
        found = dataclasses.replace(found, cut=len(profile.on_edge) - 2)
        return Opened(profile=profile, found=found, min_cuts=self.min_cuts)


def _tables_of(tables: Tables, bounds: ClosedSetBounds, on_edge: np.ndarray,
               level: int, top: int) -> Tables:
    """Returns the tables of one closed set at one level and top, the rest of them shared."""
    part = copy.copy(tables)
    part.profile = dataclasses.replace(
        tables.profile, on_edge=on_edge[None], crosses=bounds.topology.crosses(on_edge)[None],
        cut_names=("",))
    part.on_edge_tensor = charging.edge_tensors(part.profile)
    part.levels, part.tops = np.array([level]), np.array([top])
    part.fixed_bytes = np.where(part.on_edge_tensor & ~part.free,
                                tables.profile.tensor_bytes[:, -1], 0).max(axis=1)
    part.valid = np.ones((1, 1), dtype=bool)
    part.caps = caps_at(tables, level, top)[:, None].astype(tables.caps.dtype)
    for name in ("latency", "energy", "cost"):
        part.__dict__.pop(name, None)
    for name in ("latency", "energy", "cost"):
        shared = getattr(tables, name)
        getattr(part, name).__dict__.update(range_min=shared.range_min, varies=shared.varies)
    return part
