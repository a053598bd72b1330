"""Uniform baseline: the same bits for every layer and tensor on the edge."""

from __future__ import annotations

import numpy as np

from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import PACKED, runs_some
from autosplit.solvers.constraints import Constraints
from autosplit.solvers.fixed_bits import LATENCY, best_cut, uniform_bits
from autosplit.solvers.objective import Objective


def best_uniform(profile: Profile, bits: int, constraints: Constraints,
                 objective: Objective = LATENCY, encoding: str = PACKED) -> SplitPlan:
    """Finds the best cut with ``bits`` everywhere on the edge.

    All cuts with a layer on the edge are tried, edge-only included, and charged like
    every other plan. Where none keeps the constraints, the best that breaks the
    fewest is returned, with its reason.

    Args:
      profile: whose listed cuts are tried.
      bits: one of ``profile.bits``.
      constraints: to judge by.
      objective: the latency by default.
      encoding: ``"packed"``, or ``"plain"`` to send what the edge computes as numbers
        of 16 bits: what the packed transmission brings is the difference.

    Raises:
      InputError: ``bits`` is no candidate, or an energy is asked for and not known.
    """
    return best_cut(profile, uniform_bits(profile, bits, encoding),
                    np.flatnonzero(runs_some(profile)), constraints, f"uniform {bits}-bit",
                    objective)
