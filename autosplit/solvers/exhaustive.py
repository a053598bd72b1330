"""Exhaustive search: the oracle of the solvers, for small profiles only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import (
    Charges,
    charge,
    chooses_bits,
    edge_tensors,
    price,
    runs_some,
)
from autosplit.solvers.constraints import Constraints, limits_broken
from autosplit.solvers.objective import Objective

MAX_ASSIGNMENTS = 2_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignments:
    """All assignments of one cut at one activation level, and what they cost.

    N assignments: w_index i64[N, L], a_index i64[N, T], charges with shape [N].
    """

    cut: int
    level_bytes: int
    top: int
    w_index: np.ndarray
    a_index: np.ndarray
    charges: Charges


def enumerate_assignments(profile: Profile) -> Iterator[Assignments]:
    """Yields every assignment of the problem of `planner`, cut by cut, level by level.

    Raises:
      InputError: a cut may have more than `MAX_ASSIGNMENTS` at one level.
    """
    _check_size(profile)
    free = chooses_bits(profile)
    for cut in np.flatnonzero(runs_some(profile)):
        on_edge = np.flatnonzero(edge_tensors(profile)[cut])
        seen = set()
        # Where no tensor has a choice, the widest top stands for all.
        tops = range(0 if free[on_edge].any() else len(profile.bits) - 1, len(profile.bits))
        for level in np.unique(np.append(profile.tensor_bytes[on_edge[free[on_edge]]], 0)):
            for top in tops:
                caps = [max((k for k in range(top + 1) if profile.tensor_bytes[t, k] <= level),
                            default=-1) if free[t] else len(profile.bits) - 1 for t in on_edge]
                if min(caps) >= 0 and tuple(caps) not in seen:
                    seen.add(tuple(caps))
                    yield _enumerate(profile, int(cut), int(level), top,
                                     dict(zip(on_edge, caps, strict=True)))


def _check_size(profile: Profile) -> None:
    sent = (profile.crosses & chooses_bits(profile)).sum(axis=1)
    chosen = sent + (profile.on_edge & profile.has_weight).sum(axis=1)
    count = float(len(profile.bits)) ** int(chosen.max())
    if count > MAX_ASSIGNMENTS:
        raise InputError(f"A cut may have {count:.3g} assignments; exhaustive search takes at "
                         f"most {MAX_ASSIGNMENTS}. Use solve.")


def _enumerate(profile: Profile, cut: int, level: int, top: int,
               caps: dict[int, int]) -> Assignments:
    last = len(profile.bits) - 1
    free = chooses_bits(profile)
    sent = [t for t in caps if profile.crosses[cut, t] and free[t]]
    weighted = np.flatnonzero(profile.on_edge[cut] & profile.has_weight)
    groups = sorted({int(profile.weight_group[layer]) for layer in weighted})
    ranges = [range(last + 1)] * len(groups) + [range(caps[t] + 1) for t in sent]
    rows = np.array(list(itertools.product(*ranges)), dtype=np.int64)
    count = len(rows)
    w_index = np.full((count, len(profile.macs)), last)
    for layer in weighted:
        w_index[:, layer] = rows[:, groups.index(int(profile.weight_group[layer]))]
    a_index = np.full((count, len(profile.producer)), last)
    for tensor, cap in caps.items():
        a_index[:, tensor] = cap if free[tensor] else last
    for column, tensor in enumerate(sent):
        a_index[:, tensor] = rows[:, len(groups) + column]
    return Assignments(cut=cut, level_bytes=level, top=top, w_index=w_index, a_index=a_index,
                       charges=charge(profile, cut, w_index, a_index))


def fastest_by_enumeration(profile: Profile, constraints: Constraints,
                           objective: Objective | None = None) -> SplitPlan | None:
    """Returns the cheapest plan with a layer on the edge within the constraints, if any.

    Args:
      objective: what a cost is; the latency by default.
    """
    objective = Objective() if objective is None else objective
    best, least = None, np.inf
    for block in enumerate_assignments(profile):
        keeps = limits_broken(block.charges.costs(), constraints) == 0
        cost = np.where(keeps, objective.cost(block.charges), np.inf)
        index = int(cost.argmin())
        if cost[index] < least:
            best, least = (block.cut, block.w_index[index], block.a_index[index]), cost[index]
    if best is None:
        return None
    cut, w_index, a_index = best
    return price(profile, cut=cut, w_bits=profile.bits[w_index], a_bits=profile.bits[a_index],
                 label="exhaustive")
