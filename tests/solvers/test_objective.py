"""What a plan costs, and who may ask for energy."""

import dataclasses

import numpy as np
import pytest

from autosplit.errors import InfeasibleError, InputError
from autosplit.solvers import Constraints, Objective, Plans, fastest_by_enumeration, solve
from autosplit.solvers.objective import relative_gap

ENERGY = Objective(latency_weight=0.0, energy_weight=1.0)


def without_device(profile):
    nan = np.full_like(profile.edge_energy_j, np.nan)
    return dataclasses.replace(profile, edge_energy_j=nan)


def without_network(profile):
    network = dataclasses.replace(profile.network, uplink_j_per_bit=None, downlink_j_per_bit=None)
    return dataclasses.replace(profile, network=network)


@pytest.mark.parametrize(("weights", "message"), [
    ({"latency_weight": -1.0}, "latency_weight is -1.0"),
    ({"energy_weight": float("nan")}, "energy_weight is nan"),
    ({"energy_weight": float("inf")}, "energy_weight is inf"),
    ({"energy_weight": "much"}, "energy_weight is 'much'"),
    ({"latency_weight": True}, "latency_weight is True"),
    ({"latency_weight": 0.0}, "expected one above 0"),
])
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        Objective(**weights)


def test_the_sum_is_weighted(make_profile):
    plan = solve(make_profile(3)).best
    both = Objective(latency_weight=2.0, energy_weight=3.0)
    assert both.cost(plan) == 2 * plan.latency_s + 3 * plan.energy_j
    assert Objective().cost(plan) == plan.latency_s
    assert ENERGY.cost(plan) == plan.energy_j
    assert (Objective().minimises, ENERGY.minimises, both.minimises) == (
        "latency_s", "energy_j", None)


def test_weights_trade_latency_for_energy(make_resnet50):
    """The more a joule costs, the less energy and the more time the best plan takes."""
    profile = make_resnet50(uplink_bits_per_s=1e8, edge_macs_per_s=1e10)
    objectives = [Objective(energy_weight=weight) for weight in (0.0, 0.01, 0.1, 1.0, 10.0)]
    best = [solve(profile, Constraints(output_error=0.01), objective).best
            for objective in [*objectives, ENERGY]]
    energies, latencies = [p.energy_j for p in best], [p.latency_s for p in best]
    assert energies == sorted(energies, reverse=True)
    assert latencies == sorted(latencies)
    assert energies[0] > energies[-1]


def test_scaling_the_weights_changes_nothing_but_the_cost(make_resnet50):
    profile = make_resnet50()
    one = solve(profile, objective=Objective(energy_weight=0.5))
    ten = solve(profile, objective=Objective(latency_weight=10.0, energy_weight=5.0))
    assert ten.best.w_bits == one.best.w_bits
    assert ten.best.on_edge == one.best.on_edge
    assert ten.lower_bound == pytest.approx(10 * one.lower_bound)


def test_best_is_by_the_objective_and_fastest_by_latency(make_resnet50):
    plans = solve(make_resnet50(uplink_bits_per_s=2e7), objective=ENERGY)
    feasible = [plan for plan in plans if plan.feasible]
    assert plans.best.energy_j == min(plan.energy_j for plan in feasible)
    assert plans.fastest.latency_s == min(plan.latency_s for plan in feasible)
    assert plans.best_split.encoding == "packed"
    assert plans.gap == 0
    assert [plan.energy_j for plan in plans] == sorted(plan.energy_j for plan in plans)
    default = solve(make_resnet50(uplink_bits_per_s=2e7))
    assert default.best is default.fastest


def test_an_energy_limit_is_kept(make_resnet50):
    profile = make_resnet50(uplink_bits_per_s=1e8, edge_macs_per_s=1e10)
    error = Constraints(output_error=0.01)
    free, least = solve(profile, error).best, solve(profile, error, ENERGY).best
    limit = (free.energy_j + least.energy_j) / 2
    assert least.energy_j < limit < free.energy_j
    plans = solve(profile, Constraints(energy_j=limit, output_error=0.01))
    assert plans.best.energy_j <= limit * (1 + 1e-9)
    assert plans.best.latency_s >= free.latency_s
    assert plans.gap == 0
    with pytest.raises(InfeasibleError, match="the best attainable with output_error"):
        solve(profile, Constraints(energy_j=0.9 * least.energy_j, output_error=0.01))


@pytest.mark.parametrize(("strip", "named"), [
    (without_device, "edge device 'edge' states none"),
    (without_network, "network 'network' states none"),
    (lambda p: without_network(without_device(p)), "edge device 'edge' and network 'network'"),
])
def test_energy_that_is_not_known_is_refused(make_profile, strip, named):
    profile = strip(make_profile(1))
    assert any(plan.energy_j is None for plan in solve(profile))
    with pytest.raises(InputError, match=f"Objective.energy_weight of 1 .*{named}"):
        solve(profile, objective=ENERGY)
    with pytest.raises(InputError, match=f"Constraints.energy_j of 5 .*{named}.* Profile again"):
        solve(profile, Constraints(energy_j=5.0))


def test_objective_survives_the_disk(make_profile, tmp_path):
    plans = solve(make_profile(3), objective=ENERGY)
    plans.save(tmp_path / "plans.json")
    again = Plans.load(tmp_path / "plans.json")
    assert again == plans
    assert again.objective == ENERGY


def test_gap_of_nothing_is_nothing():
    assert relative_gap(0.0, 0.0) == 0
    assert relative_gap(1.0, 0.0) == np.inf


def test_exhaustive_takes_the_objective(make_profile):
    profile = make_profile(5)
    by_energy = fastest_by_enumeration(profile, Constraints(), ENERGY)
    assert by_energy.energy_j <= fastest_by_enumeration(profile, Constraints()).energy_j
