"""Plans over a link whose rate changes, against the fixed link and a simulation by steps."""

import dataclasses

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.hardware.bandwidth_trace import BandwidthTrace
from autosplit.solvers import Constraints, solve
from autosplit.solvers.bandwidth import with_uplink
from autosplit.solvers.plan_table import tabulate_plans
from autosplit.solvers.trace_latency import (
    compare_on_trace,
    latency_on_trace,
    start_times,
    switching_on_trace,
)

STEPPED = BandwidthTrace(times_s=np.array([10.0, 11.0, 13.0]),
                         bits_per_s=np.array([2e6, 2e5, 8e6]))


def simulated(profile, plan, trace, start_s, step_s=5e-5):
    """Sends bit by bit in small steps of time."""

    def send(num_bytes, now_s):
        left = 8.0 * num_bytes
        while left > 0:
            phase = (now_s - trace.times_s[0]) % trace.period_s + trace.times_s[0]
            rate = trace.bits_per_s[np.searchsorted(trace.times_s, phase, side="right") - 1]
            left -= rate * step_s
            now_s += step_s
        return now_s

    network = profile.network
    overhead = network.message_overhead_bytes
    now_s = send(plan.uplink_bytes + overhead, start_s + plan.edge_s + plan.pack_s)
    now_s += network.round_trip_s + plan.unpack_s + plan.cloud_s
    if network.downlink_bits_per_s is None:
        now_s = send(plan.downlink_bytes + overhead, now_s)
    else:
        now_s += network.downlink_s(plan.downlink_bytes)
    return now_s - start_s


@pytest.mark.parametrize("downlink", [None, 5e6])
def test_a_constant_trace_gives_the_plans_own_latency(make_profile, downlink):
    for seed in range(8):
        profile = make_profile(seed)
        network = dataclasses.replace(profile.network, downlink_bits_per_s=downlink)
        profile = dataclasses.replace(profile, network=network)
        constant = BandwidthTrace(times_s=np.array([0.0]),
                                  bits_per_s=np.array([network.uplink_bits_per_s]))
        for plan in solve(profile):
            run = latency_on_trace(profile, plan, constant, start_times(constant, 5))
            assert run.label == plan.label
            assert run.latency_s == pytest.approx(np.full(5, plan.latency_s))


@pytest.mark.parametrize("downlink", [None, 5e6])
def test_a_changing_trace_equals_a_simulation(make_profile, downlink):
    profile = make_profile(2)
    network = dataclasses.replace(profile.network, downlink_bits_per_s=downlink)
    profile = dataclasses.replace(profile, network=network)
    plan = next(plan for plan in solve(profile) if plan.encoding == "raw")
    plan = dataclasses.replace(plan, uplink_bytes=60_000.0, edge_s=0.2)
    starts = start_times(STEPPED, 6, seed=1)
    run = latency_on_trace(profile, plan, STEPPED, starts)
    expected = [simulated(profile, plan, STEPPED, start) for start in starts]
    assert run.latency_s == pytest.approx(np.array(expected), abs=5e-4)
    assert run.latency_s.std() > 0.01


def test_edge_only_does_not_see_the_link(make_profile):
    profile = make_profile(1)
    plan = next(plan for plan in solve(profile) if all(plan.on_edge))
    run = latency_on_trace(profile, plan, STEPPED, start_times(STEPPED, 4))
    assert run.latency_s.tolist() == [plan.edge_s] * 4


def test_starts_cover_the_period_once():
    grid = start_times(STEPPED, 8)
    assert np.diff(grid) == pytest.approx(np.full(7, STEPPED.period_s / 8))
    drawn = start_times(STEPPED, 1000, seed=0)
    for starts in (grid, drawn):
        assert starts.min() >= STEPPED.times_s[0]
        assert starts.max() < STEPPED.times_s[0] + STEPPED.period_s
    assert np.array_equal(drawn, start_times(STEPPED, 1000, seed=0))
    assert not np.array_equal(drawn, start_times(STEPPED, 1000, seed=1))
    with pytest.raises(InputError, match="one start or more"):
        start_times(STEPPED, 0)


def test_plans_are_ranked_by_the_mean_or_as_asked(make_profile):
    profile = make_profile(6)
    plans = list(solve(profile))
    starts = start_times(STEPPED, 40)
    runs = compare_on_trace(profile, plans, STEPPED, starts)
    assert sorted(run.label for run in runs) == sorted(plan.label for plan in plans)
    assert [run.mean_s for run in runs] == sorted(run.mean_s for run in runs)
    by_worst = compare_on_trace(profile, plans, STEPPED, starts,
                                rank=lambda run: float(run.percentile_s(95)))
    tails = [float(run.percentile_s(95)) for run in by_worst]
    assert tails == sorted(tails)
    for run in runs:
        low, high = run.percentile_s([0, 100])
        assert low * (1 - 1e-12) <= run.mean_s <= high * (1 + 1e-12)


def test_switching_uses_the_plan_for_the_rate_at_the_start(make_profile):
    """On a trace far slower to change than a request, switching is as fast as the best plan."""
    for seed in range(6):
        profile = make_profile(seed)
        rates = np.array([3e4, 1e6, 1e9])
        slow = BandwidthTrace(times_s=np.array([0.0, 1e5, 2e5]), bits_per_s=rates)
        table = tabulate_plans(profile, Constraints(), lowest_bits_per_s=1e4,
                               highest_bits_per_s=1e10)
        starts = np.array([10.0, 1e5 + 10, 2e5 + 10])
        run = switching_on_trace(profile, table, slow, starts)
        best = [solve(with_uplink(profile, rate)).best.latency_s for rate in rates]
        assert run.latency_s == pytest.approx(np.array(best))
        for plan in table:
            alone = latency_on_trace(profile, plan, slow, starts)
            assert (run.latency_s <= alone.latency_s * (1 + 1e-9)).all()
