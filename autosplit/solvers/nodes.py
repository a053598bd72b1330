"""Nodes: the subproblems that a search has not opened, each with a bound from the pool.

The pool holds hundreds of multipliers and there may be thousands of subproblems, of which
a search looks at a few. So a bound starts from the pool's first entries. Whenever the
least bound is not the best that the pool knows, it is replaced by that, for some nodes at
once, and the entry that bounds the lowest of them best is applied to all nodes.
"""

from __future__ import annotations

import math

import numpy as np

from autosplit.solvers.lagrangian import threshold
from autosplit.solvers.relaxation import Relaxation

TIE = 1e-9
"""Relative difference of bounds that counts as a tie; the wider level then goes first."""

FIRST_ENTRIES = 24
"""Entries of the pool that are applied to all nodes."""

SHARPENED = 32
"""Nodes that the whole pool is applied to at once."""

MAX_VALUES = 8_000_000
"""Entries of the pool times subproblems; beyond it, nothing more is shared."""


class Nodes:
    """The open subproblems of a relaxation within budgets.

    Attributes:
      index: i64[M] along the relaxation's subproblems.
      bound: f64[M]; sharp: bool[M], it is the best that the pool knows.
    """

    def __init__(self, relaxation: Relaxation, budgets: np.ndarray, cuts: np.ndarray,
                 upper: float):
        self.relaxation, self.budgets = relaxation, budgets
        self.index = np.flatnonzero(cuts[relaxation.cut])
        self.bound = np.zeros(len(self.index))
        self.sharp = np.zeros(len(self.index), dtype=bool)
        self._spent = relaxation.spent(budgets)
        self._apply(slice(0, FIRST_ENTRIES))
        self.drop(upper)

    def lowest(self) -> float:
        """Returns the least bound, as sharp as the pool makes it; infinity without a node."""
        while len(self.bound):
            which = self.bound.argmin()
            if self.sharp[which] or not math.isfinite(self.bound[which]):
                return float(self.bound[which])
            self._sharpen()
        return math.inf

    def pop(self, lowest: float) -> int:
        """Removes a node of the least bound and returns its index."""
        which = int(np.argmax(self.bound <= lowest + TIE * abs(lowest)))
        self.bound[which] = math.inf
        return int(self.index[which])

    def share(self, scale: float, multipliers: np.ndarray) -> None:
        """Adds multipliers f64[5] to the pool, if it has room, and applies them."""
        since = len(self.relaxation.scale)
        if (since + 1) * len(self.relaxation.cut) > MAX_VALUES:
            return
        self.relaxation.add(np.array([scale]), multipliers[None])
        self._spent = np.append(self._spent, self.relaxation.spent(self.budgets, since))
        self._apply(slice(since, since + 1))

    def drop(self, upper: float) -> None:
        """Forgets what costs at least ``upper`` or does not fit."""
        alive = ~(self.bound >= threshold(upper)) & np.isfinite(self.bound)
        self.index, self.bound = self.index[alive], self.bound[alive]
        self.sharp = self.sharp[alive]

    def _apply(self, rows: slice) -> None:
        bounds = self.relaxation.bounds_by(rows, self._spent[rows], self.index)
        self.bound = np.maximum(self.bound, bounds.max(axis=0, initial=0.0))

    def _sharpen(self) -> None:
        """Applies the whole pool to the lowest nodes that are not sharp."""
        some = np.flatnonzero(~self.sharp)
        if len(some) > SHARPENED:
            some = some[np.argpartition(self.bound[some], SHARPENED)[:SHARPENED]]
        bounds = self.relaxation.bounds_by(slice(None), self._spent, self.index[some])
        best = bounds.max(axis=0)
        self.bound[some] = np.maximum(self.bound[some], best)
        self.sharp[some] = True
        row = int(bounds[:, best.argmin()].argmax())
        self._apply(slice(row, row + 1))
