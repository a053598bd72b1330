"""Baselines: what a plan is compared with, by name, all priced by the same rules."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import runs_all
from autosplit.solvers.cloud_only import price_in_cloud
from autosplit.solvers.constraints import Constraints, judge
from autosplit.solvers.dads import plan_dads, plan_qdmp_uniform
from autosplit.solvers.fixed_bits import best_cut, uniform_bits, unquantized_bits
from autosplit.solvers.lagrange_heuristic import plan_lagrange_heuristic
from autosplit.solvers.neurosurgeon import plan_neurosurgeon
from autosplit.solvers.uniform import best_uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """A way to find a plan, and what a profile must have for it.

    Attributes:
      plan: called with the profile and ``constraints=``.
      bits: a candidate that it needs, None for any.
      encoding: an input encoding that it needs, None for ``"raw"``.
    """

    plan: Callable[..., SplitPlan]
    bits: int | None = None
    encoding: str | None = None


def edge_only(profile: Profile, constraints: Constraints, bits: int | None = None) -> SplitPlan:
    """Prices all layers on the edge: unquantized, or uniform where bits are given.

    Raises:
      InputError: ``bits`` is no candidate, or the profile lists no edge-only cut.
    """
    fixed = unquantized_bits(profile) if bits is None else uniform_bits(profile, bits)
    label = "edge-only (unquantized)" if bits is None else f"edge-only ({bits}-bit)"
    return best_cut(profile, fixed, np.flatnonzero(runs_all(profile)), constraints, label)


def cloud_only(profile: Profile, constraints: Constraints, encoding: str) -> SplitPlan:
    """Prices and judges all layers in the cloud."""
    return judge(price_in_cloud(profile, encoding), constraints)


BASELINES: Mapping[str, Baseline] = {
    "neurosurgeon": Baseline(plan=plan_neurosurgeon),
    "DADS": Baseline(plan=plan_dads),
    "QDMP, then 4-bit edge": Baseline(plan=functools.partial(plan_qdmp_uniform, bits=4), bits=4),
    "QDMP, then 8-bit edge": Baseline(plan=functools.partial(plan_qdmp_uniform, bits=8), bits=8),
    "uniform 2-bit": Baseline(plan=functools.partial(best_uniform, bits=2), bits=2),
    "uniform 4-bit": Baseline(plan=functools.partial(best_uniform, bits=4), bits=4),
    "uniform 6-bit": Baseline(plan=functools.partial(best_uniform, bits=6), bits=6),
    "uniform 8-bit": Baseline(plan=functools.partial(best_uniform, bits=8), bits=8),
    "cloud-only (raw)": Baseline(plan=functools.partial(cloud_only, encoding="raw")),
    "cloud-only (png)": Baseline(plan=functools.partial(cloud_only, encoding="png"),
                                 encoding="png"),
    "cloud-only (jpeg-q80)": Baseline(plan=functools.partial(cloud_only, encoding="jpeg-q80"),
                                      encoding="jpeg-q80"),
    "cloud-only (jpeg-q60)": Baseline(plan=functools.partial(cloud_only, encoding="jpeg-q60"),
                                      encoding="jpeg-q60"),
    "edge-only (unquantized)": Baseline(plan=edge_only),
    "edge-only (8-bit)": Baseline(plan=functools.partial(edge_only, bits=8), bits=8),
    "lagrange heuristic": Baseline(plan=plan_lagrange_heuristic),
}
"""By the label of the plan. "cloud-only (raw)" with a 16-bit cloud is CLOUD16."""


def compare_baselines(profile: Profile, constraints: Constraints,
                      names: Sequence[str] | None = None) -> tuple[SplitPlan, ...]:
    """Plans with several baselines.

    Args:
      profile: of the graph.
      constraints: to judge by; a baseline that cannot keep them says why.
      names: out of `BASELINES`; by default all that the profile has bits and encodings
        for (`applicable`).

    Returns:
      One plan for each name, labelled with it, in that order.

    Raises:
      InputError: a name is unknown, or the profile lacks what it needs.

    >>> plans = compare_baselines(profile, Constraints(), ["DADS"])  # doctest: +SKIP
    >>> plans[0].label                                               # doctest: +SKIP
    'DADS'
    """
    names = applicable(profile) if names is None else names
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise InputError(f"The baselines {unknown} are unknown; expected some of "
                         f"{list(BASELINES)}.")
    return tuple(BASELINES[name].plan(profile, constraints=constraints) for name in names)


def applicable(profile: Profile) -> tuple[str, ...]:
    """Returns the names of the baselines whose bits and encodings the profile has."""
    encodings = {encoding.name for encoding in profile.input_encodings}
    return tuple(
        name for name, baseline in BASELINES.items()
        if (baseline.bits is None or baseline.bits in profile.bits)
        and (baseline.encoding is None or baseline.encoding in encodings)
    )
