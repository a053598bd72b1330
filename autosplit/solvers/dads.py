"""DADS and QDMP: the best closed set of layers, by a minimum cut, without quantization."""

from __future__ import annotations

import numpy as np

from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import runs_some
from autosplit.solvers.cloud_only import price_in_cloud
from autosplit.solvers.constraints import Constraints, judge
from autosplit.solvers.fixed_bits import (
    LATENCY,
    best_cut,
    better,
    price_fixed,
    uniform_bits,
    unquantized_bits,
)
from autosplit.solvers.min_cut import Topology, minimum_closed_set
from autosplit.solvers.objective import Objective
from autosplit.solvers.open_cuts import with_cuts

LABEL = "DADS"


def plan_dads(profile: Profile, constraints: Constraints,
              objective: Objective = LATENCY) -> SplitPlan:
    """Finds the best split of the graph into two, without quantization.

    Candidates are cloud-only with the raw input, the listed cuts and, where the
    profile lists not all that there are (``open_cuts``), the minimum cut of the graph,
    which is the best of all closed sets of layers where no constraint binds.

    Args:
      profile: of the graph.
      constraints: the best candidate within them is taken; where there is none, the
        best that breaks the fewest, with its reason.
      objective: the latency by default.

    Raises:
      InputError: an energy is asked for and not known, or the profile has no such cut.

    Reference: Hu et al., INFOCOM 2019 (DADS, its case of a light load); Zhang et al.,
    ICDCS 2020 (QDMP) finds the same cut faster. Deviations: the response, packing and the
    overhead of messages are charged too; they know no limits, here the constraints
    choose among the candidates.
    """
    profile = with_minimum_cut(profile, objective)
    fixed = unquantized_bits(profile)
    cuts = np.flatnonzero(runs_some(profile))
    split = best_cut(profile, fixed, cuts, constraints, LABEL, objective)
    return better([split, price_in_cloud(profile, "raw", LABEL)], constraints, objective)


def plan_qdmp_uniform(profile: Profile, bits: int, constraints: Constraints) -> SplitPlan:
    """Quantizes the edge part that QDMP finds for the float network, uniformly.

    Args:
      profile: of the graph.
      bits: one of ``profile.bits``.
      constraints: to judge by; they do not move the cut.

    Returns:
      The plan; cloud-only where QDMP puts nothing on the edge.

    Raises:
      InputError: ``bits`` is no candidate, or the profile has no such cut.

    Reference: Auto-Split (arXiv 2108.13041), section 5, "QDMP_E + U4", "QDMP_E + U8".
    """
    profile = with_minimum_cut(profile, LATENCY)
    fixed = uniform_bits(profile, bits)
    label = f"QDMP, then {bits}-bit edge"
    found = plan_dads(profile, Constraints())
    if not any(found.on_edge):
        return judge(price_in_cloud(profile, "raw", label), constraints)
    cut = int(np.flatnonzero((profile.on_edge == found.on_edge).all(axis=1))[0])
    return judge(price_fixed(profile, fixed, cut, label), constraints)


def with_minimum_cut(profile: Profile, objective: Objective) -> Profile:
    """Adds the minimum cut of the unquantized graph where the listed cuts are not all.

    An edge layer costs its time (or energy, or what the objective makes of both), a
    cloud layer its own, a crossing tensor its packing, transmission and unpacking.
    """
    if not profile.open_cuts:
        return profile
    fixed, network = unquantized_bits(profile), profile.network
    send_s = fixed.pack_s + fixed.unpack_s + network.uplink_s(fixed.sent_bytes)
    send_j = fixed.pack_j + network.uplink_j(fixed.sent_bytes)
    topology = Topology.of(profile)
    costs = (objective.weigh(fixed.layer_s, fixed.layer_j),
             objective.weigh(profile.cloud_latency_s, np.zeros_like(profile.cloud_latency_s)),
             objective.weigh(send_s - network.uplink_s(0), send_j - network.uplink_j(0)))
    found = [minimum_closed_set(topology, *costs).on_edge]
    if found[0] is not None and not found[0].any():
        # The raw input may cost more than the empty set (an input that no layer reads), so
        # the best of the others is wanted too. It holds a layer that needs no other.
        firsts = np.flatnonzero(topology.ancestors.sum(axis=1) == 1)
        forced = np.eye(len(profile.macs), dtype=bool)[firsts]
        found = [minimum_closed_set(topology, *costs, on_edge=row).on_edge for row in forced]
    fresh = {tuple(row.tolist()) for row in found if row is not None}
    fresh -= {tuple(row.tolist()) for row in profile.on_edge}
    return with_cuts(profile, np.array(sorted(fresh), dtype=bool)) if fresh else profile
