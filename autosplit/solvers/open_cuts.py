"""Open cuts: the cheapest proper split over all closed sets, listed in the profile or not.

A graph with branches may have more closed sets than can be listed. Lagrangian relaxation
of the budgets and branch and bound over `regions` (a range of levels and tops, layers forced
onto the edge or into the cloud), least bound first: `closed_set_bounds` bounds a region by minimum
cuts. Of the closed sets that these meet, S does best at the best multipliers and its rival
second best. A region is divided
  - by a layer in which S and its rival differ, or
  - by levels or tops, where these leave the caps of the tensors of S open;
of these, whichever raises the bounds more at the multipliers that it had. S itself is tried at
all its settings, with little effort. Where S has no rival and either that was exact or its caps
are known (then it is solved with these by `search`, first for plans little above its bound), the
other closed sets of the region are divided by the first layer in which they differ from it.
Done when no bound is below the best plan: a proof over all closed sets.

A good plan to beat comes first: the sets met by the first climb and at a grid of single levels
and tops are tried, then those that differ from the best by a layer. Layers that are out of
`reach` take no part.

Reference: Geoffrion 1974 (Lagrangian relaxation in branch and bound), Kelley 1960 (the
multipliers by cutting planes), Lawler 1972 (division by the first difference), Applegate
et al. 1995 (strong branching).
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Sequence

import numpy as np

from autosplit.profiling.table import Profile
from autosplit.solvers.closed_set_bounds import ClosedSetBounds
from autosplit.solvers.lagrangian import threshold
from autosplit.solvers.min_cut import Topology
from autosplit.solvers.multipliers import Climbed, climb
from autosplit.solvers.reach import Reach, Reduced
from autosplit.solvers.regions import Region, Regions
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import Found, find_fastest
from autosplit.solvers.tables import MEMORY, RESOURCES, Tables

MAX_MIN_CUTS = 3000
"""Of 2 to 20 ms each at 1,000 layers; what is open beyond them is reported in the bound."""

ROOT_STEPS = 60
STEPS = 6
"""Of the multipliers: at first, and in each region that its parent's do not rule out."""

FIRST_RISE, RISE = 1e-4, 8.0
"""A closed set is first searched for plans little above its bound, then for dearer ones."""

NARROW = 1e-3
"""Relative gap at the root below which no further plans are looked for beforehand."""

SURVEYED, SURVEY_STEPS = 8, 8
"""Levels at which closed sets are looked for beforehand, and further minimum cuts at each."""

FEW_LABELS = 200
"""Of the knapsacks where any good plan will do."""

TRIED_LAYERS = 40_000
"""Layers within reach times closed sets that are tried at all their settings, at most."""

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
    """One search: the regions that are open, and the best plan so far.

    All closed sets are along the layers within reach.
    """

    def __init__(self, tables: Tables, budgets: np.ndarray, found: Found, max_min_cuts: int):
        self.budgets, self.max_min_cuts, self.min_cuts = budgets, max_min_cuts, 0
        self.upper, self.found = found.cost, found
        self.profile = tables.profile
        every = Reach(ClosedSetBounds(tables, budgets), found.cost)
        self.reduced = Reduced.of(tables.profile, every.beyond)
        self.tables = Tables(self.reduced.profile, tables.objective)
        self.bounds = ClosedSetBounds(self.tables, budgets)
        self.regions = Regions(self.tables, self.bounds.topology)
        self.reach = Reach(self.bounds, found.cost)
        self.best: np.ndarray | None = None
        self.unproven = math.inf
        self.open: list[tuple[float, int, _Node | _Candidate]] = []
        self.count = itertools.count()
        self.done: dict[bytes, bool] = {}

    def run(self) -> Opened:
        start = np.zeros(len(self.bounds.rows))
        whole = dataclasses.replace(self.regions.whole, in_cloud=self.reduced.apart)
        top = climb(self.bounds, whole, start, math.inf, ROOT_STEPS)
        self.min_cuts += top.min_cuts
        self._try_all(top.met)
        if math.isinf(self.upper):
            self._start_anywhere()
        self._survey(whole, top)
        self._improve_by_layers()
        for part in self._bound(whole, top.multipliers, -math.inf, STEPS):
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

    def _survey(self, whole: Region, top: Climbed) -> None:
        """Looks for plans at some levels with every top: the closed sets that do best there."""
        if top.bound.value >= (1 - NARROW) * self.upper:
            return
        levels = self.regions.levels
        if (self.bounds.rows == MEMORY).any() and levels[-1] > 0:
            spread = np.geomspace(1e-3 * levels[-1], levels[-1], SURVEYED)
            spread = np.append(levels[0], spread[spread >= levels[0]])
            levels = levels[np.unique(np.searchsorted(levels, spread, side="right") - 1)]
        else:
            levels = levels[-1:]
        settings = itertools.product(levels.tolist(), range(self.regions.last + 1))
        met = [self._look_at(whole, setting, top.multipliers) for setting in settings]
        for climbed in sorted(met, key=lambda climbed: climbed.bound.value):
            if climbed.bound.value < threshold(self.upper):
                self._try_all(climbed.met)

    def _look_at(self, whole: Region, setting: tuple[int, int], start: np.ndarray) -> Climbed:
        level, top = setting
        region = dataclasses.replace(whole, smallest=level, largest=level, least_top=top,
                                     most_top=top)
        climbed = climb(self.bounds, region, start, threshold(self.upper), SURVEY_STEPS)
        self.min_cuts += climbed.min_cuts
        return climbed

    def _start_anywhere(self) -> None:
        """Tries what single layers need, until one of these closed sets has a plan."""
        needs = np.unique(self.bounds.topology.ancestors[~self.reduced.apart], axis=0)
        for on_edge in needs[np.argsort(needs.sum(axis=1), kind="stable")]:
            self._try(on_edge)
            if math.isfinite(self.upper):
                return

    def _improve_by_layers(self) -> None:
        """Adds or takes away single layers, as long as that makes the plan cheaper."""
        tried = None
        while self.best is not None and self.best is not tried:
            tried = self.best
            for neighbour in self.regions.neighbours(tried):
                self._try(neighbour & ~self.reduced.apart)

    def _try_all(self, met: tuple[np.ndarray, ...]) -> None:
        for on_edge in reversed(met):
            self._try(on_edge)

    def _try(self, on_edge: np.ndarray) -> bool:
        """Searches a closed set at all its settings, unless it was, with little effort.

        Returns whether it is done with: no plan with this set is cheaper than the best.
        """
        if not 0 < on_edge.sum() < len(on_edge):
            return True
        key = np.packbits(on_edge).tobytes()
        if key not in self.done and len(self.done) * len(on_edge) < TRIED_LAYERS:
            relaxation = Relaxation(self.tables.at(self._listing(on_edge)))
            found = find_fastest(relaxation, self.budgets, np.ones(1, dtype=bool), self.upper,
                                 max_labels=FEW_LABELS)
            if found.cut is not None:
                self._improve(on_edge, found)
            self.done[key] = found.lower_bound >= threshold(self.upper)
        return self.done.get(key, False)

    def _improve(self, on_edge: np.ndarray, found: Found) -> None:
        self.best, self.found, self.upper = on_edge, found, found.cost
        self.reach.limits[0] = threshold(found.cost)

    def _listing(self, on_edge: np.ndarray) -> Profile:
        crosses = self.bounds.topology.crosses(on_edge)
        return dataclasses.replace(self.reduced.profile, on_edge=on_edge[None],
                                   crosses=crosses[None], cut_names=("",))

    def _bound(self, region: Region, start: np.ndarray, least: float,
               steps: int, known: Sequence[np.ndarray | None] = ()) -> list[tuple[float, _Node]]:
        """Returns a region with its bound, or nothing where it cannot hold a cheaper plan.

        Args:
          known: closed sets bool[L], one of which is the rival where no other was met.
        """
        limited = self.reach.narrow(region, self.regions.levels)
        limited = None if limited is None else self.regions.narrow(limited)
        if limited is None:
            return []
        enough = threshold(min(self.upper, self.bounds.ceiling))
        top = climb(self.bounds, limited, start, enough, steps)
        self.min_cuts += top.min_cuts
        if top.bound.on_edge is None or top.bound.value >= enough:
            return []
        rivals = [top.rival, *(flags for flags in known if flags is not None
                               and limited.holds(flags) and (flags != top.bound.on_edge).any())]
        rival = next((flags for flags in rivals if flags is not None), None)
        node = _Node(region=limited, on_edge=top.bound.on_edge, rival=rival,
                     multipliers=top.multipliers)
        return [(max(top.bound.value, least), node)]

    def _expand(self, node: _Node, value: float) -> None:
        """Replaces a node by its parts, of several ways by those with the higher bounds."""
        done = self._try(node.on_edge)
        if value >= threshold(self.upper):
            return
        ways = self._ways(node, value, done)
        if len(ways) > 1:
            rough = [[part for region in way
                      for part in self._bound(region, node.multipliers, value, 0)]
                     for way in ways]
            best = max(rough, key=lambda way: min((low for low, _ in way), default=math.inf))
            ways = [[part.region for _, part in best]]
        known = (node.on_edge, node.rival, self.best)
        for region in ways[0]:
            for part in self._bound(region, node.multipliers, value, STEPS, known):
                self._queue(*part)

    def _queue(self, value: float, task: _Node | _Candidate) -> None:
        heapq.heappush(self.open, (value, next(self.count), task))

    def _ways(self, node: _Node, value: float, done: bool) -> list[list[Region]]:
        """Returns the ways to divide a node; queues its closed set where all that is left is it."""
        region, on_edge, regions = node.region, node.on_edge, self.regions
        ways = []
        if node.rival is not None:
            ways.append(regions.split_layers(region, np.flatnonzero(on_edge != node.rival)))
        if 0 < on_edge.sum() < len(on_edge):
            settings, setting = regions.settle(region, on_edge)
            ways += settings
            if setting and not ways and not done:
                self._queue(value, self._candidate(node, setting))
        return ways or [regions.all_but(region, on_edge)]

    def _candidate(self, node: _Node, setting: tuple[int, int]) -> _Candidate:
        relaxation = Relaxation(self.tables.at(self._listing(node.on_edge), setting))
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
            self._improve(candidate.on_edge, found)
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
            return Opened(profile=self.profile, found=found, min_cuts=self.min_cuts)
        on_edge, found = self.reduced.widen(self.best, found)
        profile = with_cuts(self.profile, on_edge[None])
        found = dataclasses.replace(found, cut=len(profile.on_edge) - 2)
        return Opened(profile=profile, found=found, min_cuts=self.min_cuts)
