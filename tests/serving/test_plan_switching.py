import dataclasses
import itertools
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware.network import Network
from autosplit.profiling.plan import SplitPlan, plan_to_json
from autosplit.serving.plan_switching import Choice, PlanLine, SwitchRule, next_choice, plan_line
from autosplit.solvers.bandwidth import Lines

RULE = SwitchRule(least_gain=0.1, hold_s=1.0)
LINES = [
    PlanLine(fixed_s=0.02, sent_bits=1e6),
    PlanLine(fixed_s=0.10, sent_bits=1e5),
    PlanLine(fixed_s=0.50, sent_bits=0.0),
]


def follow(rates, step_s=0.1, rule=RULE, lines=LINES, plan=0):
    """Returns the plan in use after each measured rate."""
    choice, used = Choice(plan=plan), []
    for number, rate in enumerate(rates):
        choice = next_choice(choice, lines, rate, rule=rule, now_s=number * step_s)
        used.append(choice.plan)
    return used


def switches(used):
    return sum(one != other for one, other in itertools.pairwise(used))


@given(rate=st.floats(1e3, 1e9), plan=st.integers(0, 2))
def test_a_steady_rate_leads_to_a_plan_near_the_best_and_stays_there(rate, plan):
    used = follow([rate] * 30, plan=plan)
    least_s = min(line.latency_s(rate) for line in LINES)
    assert LINES[used[-1]].latency_s(rate) <= least_s / (1 - RULE.least_gain)
    assert switches([plan, *used]) <= 1


@given(swing=st.lists(st.floats(-0.04, 0.04), min_size=40, max_size=40))
def test_a_rate_that_swings_around_a_breakpoint_switches_nothing(swing):
    breakpoint_bits_per_s = (1e6 - 1e5) / (0.10 - 0.02)
    rates = [breakpoint_bits_per_s * (1 + part) for part in swing]
    assert switches(follow(rates, plan=0)) == 0
    assert switches(follow(rates, plan=1)) == 0


@given(rates=st.lists(st.sampled_from([1e4, 1e6, 1e8]), min_size=1, max_size=200))
def test_no_two_switches_come_within_the_hold_time(rates):
    used = [0, *follow(rates)]
    changes = [at for at, (one, other) in enumerate(itertools.pairwise(used)) if one != other]
    gaps = [later - earlier for earlier, later in itertools.pairwise(changes)]
    assert all(gap * 0.1 > RULE.hold_s - 0.1 for gap in gaps)


def test_a_dip_shorter_than_the_hold_time_switches_nothing():
    assert set(follow([1e8] * 5 + [1e4] * 9 + [1e8] * 20)) == {0}
    assert follow([1e8] * 5 + [1e4] * 12)[-1] == 2


def test_without_hysteresis_the_best_plan_is_used_at_once():
    rates = [1e8, 5e6, 1e4, 1e8]
    assert follow(rates, rule=SwitchRule(least_gain=0.0, hold_s=0.0)) == [0, 1, 2, 0]


@pytest.mark.parametrize("wrong", [{"least_gain": 1.0}, {"least_gain": -0.1}, {"hold_s": -1.0}])
def test_wrong_rules_are_refused(wrong):
    with pytest.raises(InputError, match="expected a gain"):
        SwitchRule(**wrong)


# ---- Lines of saved plans


def make_plan(random, network, *, crosses):
    """A plan of two layers with times drawn at random."""
    edge_s, pack_s, unpack_s, cloud_s = random.uniform(1e-3, 1e-1, 4)
    uplink_bytes, downlink_bytes = random.integers(100, 100_000, 2) * crosses
    return SplitPlan(
        label="auto-split" if crosses else "edge-only", fingerprint="f", cut_name="c",
        on_edge=(True, not crosses), crosses=(crosses,), encoding="packed", w_bits=(8, 32),
        a_bits=(8,), weight_ratio=(1.0, 1.0), activation_low=(0.0,), activation_high=(1.0,),
        edge_s=edge_s, pack_s=pack_s * crosses, unpack_s=unpack_s * crosses,
        cloud_s=cloud_s * crosses, round_trip_s=network.round_trip_s * crosses,
        uplink_s=network.uplink_s(float(uplink_bytes)) * crosses,
        downlink_s=network.downlink_s(float(downlink_bytes)) * crosses,
        uplink_bytes=float(uplink_bytes), downlink_bytes=float(downlink_bytes),
        edge_weight_bytes=1, edge_activation_bytes=1, quant_mse=0.0, predicted_output_error=0.0,
    )  # fmt: skip


def manifest_of(plan, network):
    return types.SimpleNamespace(
        split_id="ab" * 32, label=plan.label, plan=plan_to_json(plan),
        network=dataclasses.asdict(network), crossing=("a tensor",) * any(plan.crosses),
    )  # fmt: skip


@pytest.mark.parametrize("downlink_bits_per_s", [None, 7e5])
def test_a_saved_plan_has_the_line_of_the_solver(downlink_bits_per_s):
    network = Network(
        uplink_bits_per_s=3e6, downlink_bits_per_s=downlink_bits_per_s, round_trip_s=0.01,
        message_overhead_bytes=120,
    )  # fmt: skip
    random = np.random.default_rng(0)
    plans = [make_plan(random, network, crosses=at > 0) for at in range(5)]
    found = [plan_line(manifest_of(plan, network)) for plan in plans]
    wanted = Lines.of(types.SimpleNamespace(network=network), plans)
    np.testing.assert_allclose([line.fixed_s for line in found], wanted.fixed_s, rtol=1e-12)
    np.testing.assert_allclose([line.sent_bits for line in found], wanted.sent_bits, rtol=1e-12)
    for plan, line in zip(plans, found, strict=True):
        assert line.latency_s(3e6) == pytest.approx(plan.latency_s, rel=1e-9)


def test_a_split_without_a_plan_has_no_line():
    network = Network(uplink_bits_per_s=3e6)
    manifest = manifest_of(make_plan(np.random.default_rng(0), network, crosses=True), network)
    manifest.plan = None
    with pytest.raises(InputError, match="holds no solved plan"):
        plan_line(manifest)
