"""One plan for several bandwidths, against plain recomputation."""

import dataclasses

import numpy as np
import pytest

from autosplit.errors import InfeasibleError, InputError
from autosplit.solvers import Constraints, solve
from autosplit.solvers.bandwidth import Lines, with_uplink
from autosplit.solvers.charging import PACKED, price
from autosplit.solvers.robust import choose_robust, least_worst_ratio

RATES = (3e5, 1e6, 1e7, 1e8)


def repriced(profile, plan, rate):
    """Prices a plan anew at another rate, from its bits."""
    other = with_uplink(profile, rate)
    cut = int(np.flatnonzero((profile.on_edge == plan.on_edge).all(axis=1))[0])
    return price(other, cut=cut, w_bits=np.array(plan.w_bits), a_bits=np.array(plan.a_bits),
                 label="x", encoding=plan.encoding).latency_s


@pytest.mark.parametrize("downlink", [None, 5e6])
def test_lines_equal_the_price_at_every_rate(make_profile, downlink):
    for seed in range(8):
        profile = make_profile(seed)
        network = dataclasses.replace(profile.network, downlink_bits_per_s=downlink)
        profile = dataclasses.replace(profile, network=network)
        plans = list(solve(profile))
        latency_s = Lines.of(profile, plans).latency_s(RATES)
        expected = [[repriced(profile, plan, rate) for rate in RATES] for plan in plans]
        assert latency_s == pytest.approx(np.array(expected))


def test_only_the_network_depends_on_the_rate(make_profile):
    profile = make_profile(3)
    other = with_uplink(profile, 5e5)
    assert other.network.uplink_bits_per_s == 5e5
    same = dataclasses.replace(other, network=profile.network)
    assert all(getattr(same, field.name) is getattr(profile, field.name)
               for field in dataclasses.fields(profile))


def test_the_choice_has_the_least_worst_ratio(make_profile):
    for seed in range(6):
        profile = make_profile(seed)
        choice = choose_robust(profile, Constraints(), RATES)
        best = np.array([solve(with_uplink(profile, rate)).best.latency_s for rate in RATES])
        assert choice.best_s == pytest.approx(best)
        ratios = [max(repriced(profile, plan, rate) / least
                      for rate, least in zip(RATES, best, strict=True)) for plan in choice.plans]
        assert choice.worst_ratio == pytest.approx(min(ratios))
        assert max(repriced(profile, choice.plan, rate) / least for rate, least
                   in zip(RATES, best, strict=True)) == pytest.approx(choice.worst_ratio)
        assert 1 <= choice.lower_bound <= choice.worst_ratio
        assert (choice.ratio >= 1).all()


def test_within_lists_the_plans_that_are_close_everywhere(make_profile):
    for seed in range(6):
        choice = choose_robust(make_profile(seed), Constraints(), RATES)
        worst = choice.ratio.max(axis=1)
        for share in (0.0, 0.1, 1.0, 1e6):
            close = choice.within(share)
            assert len(close) == (worst <= 1 + share).sum()
            if 1 + share < choice.lower_bound:
                assert close == ()
        assert choice.within(1e9)[0] is choice.plan


def test_no_plan_is_close_everywhere_where_links_differ_much(make_resnet50):
    """From a slow link to a fast one no plan serves both, and the bound proves it."""
    choice = choose_robust(make_resnet50(), Constraints(memory_bytes=4 << 20, output_error=0.01),
                           (1e4, 1e9))
    assert choice.lower_bound > 1.05
    assert choice.within(0.05) == ()


def test_the_bound_holds_for_all_lines_that_never_beat_the_best():
    """Random plans, from which the least are computed: none is more robust than the bound."""
    rng = np.random.default_rng(0)
    slowness, every = np.geomspace(0.03, 1, 4), np.geomspace(0.03, 1, 60)
    tight = []
    for _ in range(200):
        lines = Lines(fixed_s=rng.uniform(0.1, 5, 6), sent_bits=10 ** rng.uniform(-2, 1.5, 6))
        latency_s = lines.latency_s(1 / slowness)
        best_s = latency_s.min(axis=0)
        worst = (latency_s / best_s).max(axis=1).min()
        few = least_worst_ratio(slowness, best_s, slowness, best_s)
        many = least_worst_ratio(slowness, best_s, every, lines.latency_s(1 / every).min(axis=0))
        assert 1 <= few <= many * (1 + 1e-12)
        assert many <= worst * (1 + 1e-12)
        tight.append(many / worst)
    assert np.median(tight) > 0.95


def test_constraints_are_kept_at_every_rate(make_profile):
    limits = Constraints(memory_bytes=5000, output_error=0.1)
    choice = choose_robust(make_profile(4), limits, RATES)
    for plan in choice.plans:
        assert plan.edge_memory_bytes <= 5000
        if plan.encoding == PACKED:
            assert plan.predicted_output_error <= 0.1


def test_bad_arguments_say_what_to_do(make_profile):
    profile = make_profile(0)
    for rates in ((), (0.0,), (1e6, -1.0), (float("nan"),), (float("inf"),)):
        with pytest.raises(InputError, match="uplink rates"):
            choose_robust(profile, Constraints(), rates)
    with pytest.raises(InputError, match="latency_s"):
        choose_robust(profile, Constraints(latency_s=1.0), RATES)
    with pytest.raises(InfeasibleError):
        choose_robust(profile, Constraints(output_error=-1.0), RATES)
    with pytest.raises(InputError, match="share"):
        choose_robust(profile, Constraints(), RATES).within(-0.1)
