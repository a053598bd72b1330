"""Multipliers: where the bound on a region of closed sets is highest.

The bound q is the least of linear functions of the multipliers, one for each closed set
and its bits, so that every minimum cut gives one that lies above it (Kelley 1960): the
next multipliers are where the least of those that are known is highest.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from autosplit.solvers.closed_set_bounds import Bound, ClosedSetBounds
from autosplit.solvers.regions import Region

TOLERANCE = 1e-7
"""Relative to the bound: where no more can be won, climbing ends."""

REACH = 3.0
"""The multipliers move by at most this factor at a time."""

NEGLIGIBLE = 1e-12
"""Of the typical price: less may fall to 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Climbed:
    """Where climbing ended.

    Attributes:
      bound: the highest; multipliers: f64[R] that give it.
      rival: bool[L], of the other closed sets that were met the one that does best at
        these multipliers; None where there was no other.
      met: the closed sets bool[L] that were met, with repetitions.
      min_cuts: how many it took.
    """

    bound: Bound
    multipliers: np.ndarray
    rival: np.ndarray | None
    met: tuple[np.ndarray, ...]
    min_cuts: int


def climb(bounds: ClosedSetBounds, region: Region, start: np.ndarray, enough: float,
          steps: int) -> Climbed:
    """Climbs towards the highest bound of a region.

    Args:
      start: f64[R], multipliers to begin with.
      enough: stop as soon as the bound reaches it.
      steps: further minimum cuts, at most.
    """
    unit = _unit(bounds)
    points, met = [start], [bounds.at(region, start)]
    best = 0
    steps = steps if len(start) else 0
    while len(met) <= steps and met[-1].on_edge is not None and met[best].value < enough:
        ceiling, point = _highest(points, met, unit, points[best])
        if ceiling - met[best].value <= TOLERANCE * abs(met[best].value):
            break
        points.append(point)
        met.append(bounds.at(region, point))
        if met[-1].value > met[best].value:
            best = len(met) - 1
    return Climbed(bound=met[best], multipliers=points[best], min_cuts=len(met),
                   rival=_rival(points, met, best),
                   met=tuple(bound.on_edge for bound in met if bound.on_edge is not None))


def _rival(points: list[np.ndarray], met: list[Bound], best: int) -> np.ndarray | None:
    chosen = met[best].on_edge
    if chosen is None:
        return None
    others = [(bound.value + bound.excess @ (points[best] - point), index)
              for index, (point, bound) in enumerate(zip(points, met, strict=True))
              if bound.on_edge is not None and (bound.on_edge != chosen).any()]
    return met[min(others)[1]].on_edge if others else None


def _unit(bounds: ClosedSetBounds) -> np.ndarray:
    """Returns f64[R], the typical price of each resource: all costs over all that is used."""
    most = bounds.layer[1:].max(axis=(2, 3)).sum(axis=1) + bounds.sent[1:].max(axis=2).sum(axis=1)
    scale = np.where(bounds.budgets > 0, np.minimum(bounds.budgets, most), most)
    return bounds.ceiling / np.where(scale > 0, scale, 1.0)


def _highest(points: list[np.ndarray], met: list[Bound], unit: np.ndarray,
             centre: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the highest point of the least of the planes, within reach of the best one."""
    from scipy.optimize import linprog  # slow to import, seldom needed

    slopes = np.stack([bound.excess for bound in met])
    offsets = np.array([bound.value for bound in met]) - (slopes * points).sum(axis=1)
    scale = float(np.abs(offsets).max()) or 1.0
    near = centre / unit
    low = np.where(near < NEGLIGIBLE, 0.0, near / REACH)
    box = np.stack([low, np.maximum(near * REACH, 1e-3)], axis=1)
    matrix = np.concatenate([np.ones((len(met), 1)), -slopes * unit / scale], axis=1)
    answer = linprog(np.append(-1.0, np.zeros(len(unit))), A_ub=matrix, b_ub=offsets / scale,
                     bounds=[(None, None), *box.tolist()], method="highs")
    if answer.x is None:
        return -math.inf, centre
    return float(answer.x[0]) * scale, answer.x[1:] * unit
