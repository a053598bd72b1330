"""What is on the list, why, and what is said when nothing fits."""

import dataclasses
import math
import re

import numpy as np
import pytest

from autosplit.errors import InfeasibleError, InputError
from autosplit.solvers import Constraints, judge, solve
from autosplit.solvers.constraints import costs, within
from autosplit.solvers.exhaustive import enumerate_assignments


def labelled(plans, label):
    return [plan for plan in plans if plan.label == label]


def test_the_fixed_entries_are_always_listed(make_profile):
    for seed in range(15):
        profile = make_profile(seed)
        plans = solve(profile)
        for encoding in ("raw", "png", "jpeg-q90"):
            assert len(labelled(plans, f"cloud-only ({encoding})")) == 1
        assert labelled(plans, "edge-only")
        assert len(labelled(plans, f"uniform {profile.bits[-1]}-bit")) == 1
        if len(profile.on_edge) > 2:
            assert labelled(plans, "auto-split")


def test_sorted_and_judged(make_resnet50):
    constraints = Constraints(memory_bytes=4 << 20, output_error=0.01)
    plans = solve(make_resnet50(), constraints)
    latencies = [plan.latency_s for plan in plans]
    assert latencies == sorted(latencies)
    assert len(plans) == len(list(plans))
    assert plans[0] is plans.plans[0]
    for plan in plans:
        keeps = (within(plan.edge_memory_bytes, 4 << 20) and plan.error_is_predicted
                 and within(plan.predicted_output_error, 0.01))
        assert plan.feasible == keeps
        assert plan.reason
        assert 0 < plan.lower_bound <= plan.latency_s
    assert plans.best is next(plan for plan in plans if plan.feasible)


def test_resnet50_is_exact(make_resnet50):
    profile = make_resnet50(edge_bytes_per_s=1e8)
    plans = solve(profile, Constraints(memory_bytes=4 << 20, output_error=0.01))
    assert plans.gap == 0
    assert len(plans.pareto) >= 5
    for plan in labelled(plans, "auto-split"):
        assert plan.lower_bound == plan.latency_s


def test_pareto_is_feasible_and_not_dominated(make_resnet50):
    plans = solve(make_resnet50(), Constraints(memory_bytes=4 << 20, output_error=0.01))
    points = [(p.latency_s, p.predicted_output_error, p.edge_memory_bytes) for p in plans.pareto]
    assert all(plan.feasible for plan in plans.pareto)
    for mine in points:
        assert not any(other != mine and all(np.array(other) <= np.array(mine))
                       for other in points)
    assert plans.best in plans.pareto


def test_tighter_budgets_are_never_faster(make_resnet50):
    profile = make_resnet50()
    for name, limits in (("memory_bytes", (1 << 19, 1 << 20, 4 << 20, 32 << 20)),
                         ("output_error", (1e-6, 1e-4, 1e-2, 1.0))):
        best = [min(p.latency_s for p in solve(profile, Constraints(**{name: limit}))
                    if p.label == "auto-split") for limit in limits]
        assert best == sorted(best, reverse=True)


def test_too_little_memory_leaves_cloud_only(make_resnet50):
    plans = solve(make_resnet50(), Constraints(memory_bytes=1000))
    assert all(plan.label.startswith("cloud-only") for plan in plans if plan.feasible)
    edge = labelled(plans, "edge-only")[0]
    assert not edge.feasible
    assert f"exceeds 1000 by {edge.edge_memory_bytes - 1000:.6g}" in edge.reason
    split, whole = plans.split_infeasible
    assert split.startswith("a proper split: memory_bytes: 1000 was asked for")
    assert whole.startswith("edge-only")
    needed = float(split.split("attainable is ")[1].split(",")[0])
    assert not labelled(solve(make_resnet50(), Constraints(memory_bytes=0.99 * needed)),
                        "auto-split")
    assert labelled(solve(make_resnet50(), Constraints(memory_bytes=1.01 * needed)), "auto-split")


def test_nothing_to_explain_where_both_fit(make_profile):
    assert solve(make_profile(5)).split_infeasible == ()


def test_a_slow_split_is_explained(make_resnet50):
    profile = make_resnet50(uplink_bits_per_s=1e9, edge_macs_per_s=1e9)
    cloud = solve(profile).best
    plans = solve(profile, Constraints(latency_s=cloud.latency_s))
    split = next(plan for plan in solve(profile) if plan.label == "auto-split")
    assert f"best attainable is {split.latency_s:.6g}" in plans.split_infeasible[0]


def test_impossible_latency_names_the_best(make_resnet50):
    profile = make_resnet50()
    best = solve(profile).best.latency_s
    with pytest.raises(InfeasibleError) as caught:
        solve(profile, Constraints(latency_s=best / 2, output_error=0.01))
    (reason,) = caught.value.reasons
    assert reason.startswith("latency_s")
    assert f"{best:.6g}" in reason
    assert f"short by {best - best / 2:.6g}" in reason


def test_negative_error_names_the_shortfall(make_resnet50):
    with pytest.raises(InfeasibleError, match="short by 1") as caught:
        solve(make_resnet50(), Constraints(output_error=-1.0))
    assert caught.value.reasons[0].startswith("output_error: -1 was asked for")


def least(profile, name, **limits):
    """Returns the least value of a resource over all plans, by enumeration of the splits."""
    fixed = [plan for plan in solve(profile) if plan.encoding != "packed"]
    values = [costs(plan)[name] for plan in fixed if judge(plan, Constraints(**limits)).feasible]
    for block in enumerate_assignments(profile):
        spent = block.charges.costs()
        keeps = np.ones(len(spent[name]), dtype=bool)
        for other, limit in limits.items():
            keeps &= spent[other] <= limit
        values.append(np.where(keeps, spent[name], np.inf).min())
    return min(value for value in values if value is not None)


def test_two_limits_that_contradict_are_named(make_profile):
    """Cloud-only takes too long, and what is faster is too wrong: which two, and the numbers."""
    tried = 0
    for seed in range(40):
        if tried == 8:
            break
        profile = make_profile(seed)
        fast = least(profile, "latency_s")
        right = least(profile, "output_error", latency_s=1.2 * fast)
        if not 0 < right < math.inf:
            continue
        tried += 1
        limits = {"output_error": 0.9 * right, "latency_s": 1.2 * fast}
        with pytest.raises(InfeasibleError, match="contradict each other: each can be") as caught:
            solve(profile, Constraints(memory_bytes=1e9, energy_j=1e6, **limits))
        error, latency, both = caught.value.reasons
        assert f"latency_s of {limits['latency_s']:.6g}" in both
        assert f"output_error of {limits['output_error']:.6g}" in both
        assert "memory_bytes" not in both
        assert attainable(error) == pytest.approx(right, rel=1e-2)
        slow = least(profile, "latency_s", output_error=limits["output_error"])
        assert attainable(latency) == pytest.approx(slow, rel=1e-5)
    assert tried == 8


def attainable(sentence):
    return float(re.search("the best attainable.* is ([-+.e0-9]+), short by", sentence)[1])


def test_three_limits_that_contradict_only_together_are_named(make_profile):
    """Any two can be kept: the third is what the best of both falls short of."""
    tried = 0
    for seed in range(60):
        if tried == 3:
            break
        profile = make_profile(seed)
        fast = 1.3 * least(profile, "latency_s")
        small = 1.02 * least(profile, "memory_bytes", latency_s=fast)
        right = least(profile, "output_error", latency_s=fast, memory_bytes=small)
        limits = {"memory_bytes": small, "latency_s": fast, "output_error": 0.99 * right}
        pairs = [("latency_s", "memory_bytes"), ("latency_s", "output_error"),
                 ("memory_bytes", "output_error")]
        alone = [least(profile, first, **{second: limits[second]}) <= limits[first]
                 for first, second in pairs]
        if not right > 0 or not all(alone):
            continue
        tried += 1
        with pytest.raises(InfeasibleError, match="any two of them can be kept") as caught:
            solve(profile, Constraints(**limits))
        assert len(caught.value.reasons) == 4
    assert tried == 3


def test_contradictions_of_a_large_network_are_named(make_resnet50):
    profile = make_resnet50()
    with pytest.raises(InfeasibleError, match="contradict"):
        solve(profile, Constraints(memory_bytes=200_000, output_error=1e-6, latency_s=0.1))


def test_lossy_encoding_waits_for_its_measurement(make_profile):
    profile = make_profile(2)
    free = labelled(solve(profile), "cloud-only (jpeg-q90)")[0]
    assert free.feasible
    assert "not predicted but measured" in free.reason
    constraints = Constraints(output_error=0.05)
    plan = labelled(solve(profile, constraints), "cloud-only (jpeg-q90)")[0]
    assert not plan.feasible
    assert "measure the plan" in plan.reason
    assert judge(dataclasses.replace(plan, output_error=0.04), constraints).feasible
    assert not judge(dataclasses.replace(plan, output_error=0.06), constraints).feasible


def test_measured_error_decides(make_resnet50):
    constraints = Constraints(output_error=0.01)
    plan = labelled(solve(make_resnet50(), constraints), "auto-split")[0]
    assert not judge(dataclasses.replace(plan, output_error=0.02), constraints).feasible


def test_profile_without_encodings_is_refused(make_profile):
    with pytest.raises(InputError, match="input encodings"):
        solve(dataclasses.replace(make_profile(0), input_encodings=()))


@pytest.mark.parametrize(("name", "value"), [
    ("memory_bytes", -1), ("latency_s", 0.0), ("output_error", float("nan")),
    ("quant_mse", "small"), ("memory_bytes", True),
])
def test_bad_constraints_are_refused(name, value):
    with pytest.raises(InputError, match=f"Constraints.{name}"):
        Constraints(**{name: value})
