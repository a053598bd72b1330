"""Uniform baseline: the same bits for every layer and tensor on the edge."""

from __future__ import annotations

import numpy as np

from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import price, runs_some
from autosplit.solvers.constraints import Constraints, judge


def best_uniform(profile: Profile, bits: int, constraints: Constraints) -> SplitPlan:
    """Finds the fastest cut with ``bits`` everywhere on the edge.

    All cuts with a layer on the edge are tried, edge-only included, and charged like
    every other plan. Where none keeps the constraints, the fastest that breaks the
    fewest is returned, with its reason.

    Args:
      bits: one of ``profile.bits``.
      constraints: to judge by.

    Raises:
      InputError: ``bits`` is no candidate.
    """
    w_bits = np.full(len(profile.macs), bits)
    a_bits = np.full(len(profile.producer), bits)
    plans = [price(profile, cut=int(cut), w_bits=w_bits, a_bits=a_bits,
                   label=f"uniform {bits}-bit")
             for cut in np.flatnonzero(runs_some(profile))]
    judged = [judge(plan, constraints) for plan in plans]
    return min(judged, key=lambda plan: (_broken(plan), plan.latency_s))


def _broken(plan: SplitPlan) -> int:
    return 0 if plan.feasible else 1 + plan.reason.count(";")
