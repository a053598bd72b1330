"""Neurosurgeon: the best prefix of the layers, without quantization."""

from __future__ import annotations

import numpy as np

from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import runs_some
from autosplit.solvers.cloud_only import price_in_cloud
from autosplit.solvers.constraints import Constraints
from autosplit.solvers.fixed_bits import LATENCY, best_cut, better, unquantized_bits
from autosplit.solvers.objective import Objective

LABEL = "neurosurgeon"


def plan_neurosurgeon(profile: Profile, constraints: Constraints,
                      objective: Objective = LATENCY) -> SplitPlan:
    """Finds the best split of the layers seen as a chain, without quantization.

    Candidates are cloud-only with the raw input, and every listed cut whose edge
    layers are the first n in topological order, up to edge-only.

    Args:
      profile: of the graph.
      constraints: the best plan within them is taken; where there is none, the best
        that breaks the fewest, with its reason.
      objective: the original has two, the latency and the energy of the edge device.

    Raises:
      InputError: an energy is asked for and not known, or the profile has no such cut.

    Reference: Kang et al., ASPLOS 2017, algorithm 1. Deviations: the original predicts
    the time of a layer by regression, here the profile prices it; it charges the output
    of the last layer on the edge, here every tensor that crosses is charged (a branch
    that passes by the split is not free), and the response and overhead too; it knows
    no limits, here the constraints choose among its candidates.
    """
    chain = best_cut(profile, unquantized_bits(profile), prefixes(profile), constraints,
                     LABEL, objective)
    return better([chain, price_in_cloud(profile, "raw", LABEL)], constraints, objective)


def prefixes(profile: Profile) -> np.ndarray:
    """Returns the listed cuts whose edge layers are the first n > 0 in topological order."""
    count = profile.on_edge.sum(axis=1)
    chain = (profile.on_edge == (np.arange(profile.on_edge.shape[1]) < count[:, None])).all(axis=1)
    return np.flatnonzero(chain & runs_some(profile))
