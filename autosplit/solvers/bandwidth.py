"""Bandwidth: how plans' latencies follow the uplink rate, and the fastest plan at every rate.

At the uplink rate r a plan takes ``fixed_s + sent_bits / r``: a straight line over
the seconds of a bit, 1 / r. The downlink follows where the network gives it no rate
of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.constraints import Constraints
from autosplit.solvers.planner import solve

SAME = 1e-9
"""Latencies that differ relatively by less count as equal."""


def with_uplink(profile: Profile, bits_per_s: float) -> Profile:
    """Returns the profile for another uplink rate; nothing else depends on it.

    Raises:
      InputError: the rate is not above 0.
    """
    network = dataclasses.replace(profile.network, uplink_bits_per_s=float(bits_per_s))
    return dataclasses.replace(profile, network=network)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines:
    """Latency of P plans over the bandwidth: ``fixed_s + sent_bits / rate``.

    Attributes:
      fixed_s: f64[P], what the rate does not change.
      sent_bits: f64[P], what the link carries at that rate, overhead included.
    """

    fixed_s: np.ndarray
    sent_bits: np.ndarray

    @classmethod
    def of(cls, profile: Profile, plans: Sequence[SplitPlan]) -> Lines:
        """Reads the lines off plans that were priced with the profile's network or another rate."""
        network = profile.network
        overhead = network.message_overhead_bytes
        fixed_s, sent_bits = [], []
        for plan in plans:
            still_s = plan.edge_s + plan.pack_s + plan.unpack_s + plan.cloud_s + plan.round_trip_s
            remote = not all(plan.on_edge)
            moved = plan.uplink_bytes + overhead
            if network.downlink_bits_per_s is None:
                moved += plan.downlink_bytes + overhead
            else:
                still_s += plan.downlink_s
            fixed_s.append(still_s)
            sent_bits.append(8.0 * moved * remote)
        return cls(fixed_s=np.array(fixed_s), sent_bits=np.array(sent_bits))

    def latency_s(self, bits_per_s: ArrayLike) -> np.ndarray:
        """Returns f64[P, R] for rates [R]."""
        rates = np.asarray(bits_per_s, dtype=np.float64)
        return self.fixed_s[:, None] + self.sent_bits[:, None] / rates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
    """What `solve` found at one rate, and the line of its fastest plan.

    Attributes:
      slowness: seconds of a bit, 1 / rate.
      plans: that keep the constraints, the fastest first.
      fixed_s, sent_bits: of the fastest, as in `Lines`.
      gap: how far from proven optimal it is, relatively.
    """

    slowness: float
    plans: tuple[SplitPlan, ...]
    fixed_s: float
    sent_bits: float
    gap: float

    def latency_s(self, slowness: float) -> float:
        """Returns what the fastest plan of this rate takes at another."""
        return self.fixed_s + self.sent_bits * slowness

    @property
    def least_s(self) -> float:
        """Proven lower bound on the latency of every plan at this rate."""
        return self.latency_s(self.slowness) / (1 + self.gap)


def solve_rates(profile: Profile, constraints: Constraints, lowest_bits_per_s: float,
                highest_bits_per_s: float) -> list[Solution]:
    """Finds the fastest plan at every uplink rate of an interval.

    Every plan's latency is a straight line over the seconds of a bit, so the least of
    all plans is concave there. Where the lines of two neighbouring solutions cross,
    either a faster plan is found, or none is and the crossing is a breakpoint.

    Args:
      profile: of the graph, for any bandwidth.
      constraints: that every plan keeps; no ``latency_s``, since it depends on the bandwidth.
      lowest_bits_per_s, highest_bits_per_s: the interval.

    Returns:
      All solutions, slow links first. At every rate of the interval the fastest plan of
      one of them is optimal (as far as the gaps tell); the breakpoints are among the rates.

    Raises:
      InfeasibleError: no plan keeps the constraints.
      InputError: the interval is empty or not above 0, or the latency is limited.

    Reference: Eisner and Severance 1976, "Mathematical techniques for efficient record
    segmentation in large shared databases", the breakpoints of a parametric minimum.
    """
    if constraints.latency_s is not None:
        raise InputError(f"Constraints.latency_s is {constraints.latency_s}, but a plan's latency "
                         "depends on the bandwidth. Leave it out and read the latencies of the "
                         "result.")
    check_rates(np.array([lowest_bits_per_s, highest_bits_per_s], dtype=np.float64))
    if lowest_bits_per_s > highest_bits_per_s:
        raise InputError(f"The rates go from {lowest_bits_per_s} to {highest_bits_per_s} bits/s; "
                         "expected the lower one first.")
    first = _solve(profile, constraints, 1 / lowest_bits_per_s)
    if lowest_bits_per_s == highest_bits_per_s:
        return [first]
    last = _solve(profile, constraints, 1 / highest_bits_per_s)
    return [first, *_between(profile, constraints, first, last)]


def crossing(slow: Solution, fast: Solution) -> float:
    """Returns the seconds of a bit at which both take equally long."""
    return (fast.fixed_s - slow.fixed_s) / (slow.sent_bits - fast.sent_bits)


def is_equal(other: Solution, solution: Solution) -> bool:
    """Returns whether ``other`` is as fast as ``solution`` where that was found."""
    own_s = solution.latency_s(solution.slowness)
    return other.latency_s(solution.slowness) <= own_s * (1 + SAME)


def _solve(profile: Profile, constraints: Constraints, slowness: float) -> Solution:
    priced = with_uplink(profile, 1 / slowness)
    plans = solve(priced, constraints)
    line = Lines.of(priced, [plans.best])
    return Solution(slowness=slowness, plans=tuple(plan for plan in plans if plan.feasible),
                    fixed_s=float(line.fixed_s[0]), sent_bits=float(line.sent_bits[0]),
                    gap=plans.gap)


def _between(profile: Profile, constraints: Constraints, slow: Solution,
             fast: Solution) -> list[Solution]:
    """Returns the solutions after ``slow``, ``fast`` included."""
    if is_equal(slow, fast) or is_equal(fast, slow):
        return [fast]
    middle = _solve(profile, constraints, crossing(slow, fast))
    if is_equal(slow, middle):
        return [middle, fast]
    return [*_between(profile, constraints, slow, middle),
            *_between(profile, constraints, middle, fast)]


def check_rates(rates: np.ndarray) -> None:
    """Raises `InputError` unless there is a rate and all are finite and above 0."""
    if not rates.size or not (np.isfinite(rates) & (rates > 0)).all():
        raise InputError(f"The uplink rates are {rates.tolist()}; expected one or more, finite and "
                         "above 0 bits/s.")
