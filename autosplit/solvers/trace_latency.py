"""Latency over a bandwidth trace: its distribution, not only its mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.plan_table import PlanTable


class Trace(Protocol):
    """A link whose rate changes, as `autosplit.hardware.BandwidthTrace`."""

    @property
    def times_s(self) -> np.ndarray:
        """f64[N], when the rate changes."""

    @property
    def bits_per_s(self) -> np.ndarray:
        """f64[N], the rate from then on."""

    @property
    def period_s(self) -> float:
        """Seconds after which it starts over."""

    def transfer_s(self, num_bytes: ArrayLike, start_s: ArrayLike) -> np.ndarray:
        """Returns how long each transfer takes that starts at ``start_s``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TraceLatency:
    """What one plan, or a table of plans, takes when it starts at several times.

    Attributes:
      label: of the plan or table.
      start_s: f64[N], on the trace's clock.
      latency_s: f64[N].
    """

    label: str
    start_s: np.ndarray
    latency_s: np.ndarray

    @property
    def mean_s(self) -> float:
        """Mean over the starts."""
        return float(self.latency_s.mean())

    def percentile_s(self, percent: ArrayLike) -> np.ndarray:
        """Returns percentiles of the latency, f64 of the shape of ``percent`` (0 to 100).

        >>> three = np.array([1.0, 2.0, 9.0])
        >>> TraceLatency(label="x", start_s=three, latency_s=three).percentile_s([0, 50, 100])
        array([1., 2., 9.])
        """
        return np.percentile(self.latency_s, np.asarray(percent, dtype=np.float64))


def start_times(trace: Trace, count: int, seed: int | None = None) -> np.ndarray:
    """Returns times at which to start, f64[count], over one period of a trace.

    Args:
      trace: whose clock is used.
      count: 1 or more.
      seed: of uniform draws; None for a regular grid (the middles of equal parts).
    """
    if count < 1:
        raise InputError(f"count is {count}; expected one start or more.")
    draws = np.arange(count) + 0.5 if seed is None else (
        np.random.default_rng(seed).uniform(0, count, count))
    return trace.times_s[0] + trace.period_s * draws / count


def latency_on_trace(profile: Profile, plan: SplitPlan, trace: Trace,
                     start_s: np.ndarray) -> TraceLatency:
    """Runs a plan on a trace.

    The request leaves after the edge's layers and packing. The response leaves after
    the request has arrived, a round trip, unpacking and the cloud's layers; it takes the
    network's downlink rate, or goes over the same trace where the network states none
    (then downlink and uplink are equal).

    Args:
      profile: that the plan was priced with, at any bandwidth.
      plan: of the same graph.
      trace: of the uplink.
      start_s: f64[N], when inferences start, on the trace's clock.

    Returns:
      N latencies.
    """
    start_s = np.asarray(start_s, dtype=np.float64)
    if all(plan.on_edge):
        return TraceLatency(label=plan.label, start_s=start_s,
                            latency_s=np.full(len(start_s), plan.edge_s))
    network = profile.network
    overhead = network.message_overhead_bytes
    sent_s = start_s + plan.edge_s + plan.pack_s
    arrived_s = sent_s + trace.transfer_s(plan.uplink_bytes + overhead, sent_s)
    answered_s = arrived_s + network.round_trip_s + plan.unpack_s + plan.cloud_s
    if network.downlink_bits_per_s is None:
        back_s = trace.transfer_s(plan.downlink_bytes + overhead, answered_s)
    else:
        back_s = np.full(len(start_s), network.downlink_s(plan.downlink_bytes))
    return TraceLatency(label=plan.label, start_s=start_s,
                        latency_s=answered_s + back_s - start_s)


def switching_on_trace(profile: Profile, table: PlanTable, trace: Trace, start_s: np.ndarray,
                       label: str = "plan table") -> TraceLatency:
    """Runs, at every start, the table's plan for the rate that the trace has then.

    In an outage the plan for the slowest link is taken. What comes after the start is not
    known to the client, so the switched plan need not be the fastest there.

    Args:
      profile, trace, start_s: as for `latency_on_trace`.
      table: of the same graph.
      label: of the result.
    """
    start_s = np.asarray(start_s, dtype=np.float64)
    phase_s = np.mod(start_s - trace.times_s[0], trace.period_s) + trace.times_s[0]
    rates = trace.bits_per_s[np.searchsorted(trace.times_s, phase_s, side="right") - 1]
    chosen = np.searchsorted(table.breakpoints_bits_per_s, rates, side="right")
    latency_s = np.zeros(len(start_s))
    for index in np.unique(chosen):
        plan = table.plans[index]
        mine = chosen == index
        latency_s[mine] = latency_on_trace(profile, plan, trace, start_s[mine]).latency_s
    return TraceLatency(label=label, start_s=start_s, latency_s=latency_s)


def compare_on_trace(profile: Profile, plans: Sequence[SplitPlan], trace: Trace,
                     start_s: np.ndarray, rank: Callable[[TraceLatency], float] | None = None
                     ) -> tuple[TraceLatency, ...]:
    """Runs plans on a trace, from the same starts.

    Args:
      profile, trace, start_s: as for `latency_on_trace`.
      plans: of the same graph.
      rank: what to sort by, the mean by default; e.g. ``lambda run: run.percentile_s(95)``.

    Returns:
      One result for each plan, the best first.
    """
    runs = [latency_on_trace(profile, plan, trace, start_s) for plan in plans]
    return tuple(sorted(runs, key=rank or (lambda run: run.mean_s)))
