"""Layers that no budget reaches are in the cloud in every plan that keeps the budgets."""

import math

import numpy as np
import pytest

from autosplit.solvers import Constraints, fastest_by_enumeration
from autosplit.solvers.closed_set_bounds import ClosedSetBounds
from autosplit.solvers.exhaustive import enumerate_assignments
from autosplit.solvers.reach import Reach
from autosplit.solvers.search import budgets_of
from autosplit.solvers.tables import Tables


def reach_of(profile, constraints, upper=math.inf):
    return Reach(ClosedSetBounds(Tables(profile), budgets_of(constraints)), upper)


@pytest.mark.parametrize("seed", range(60))
def test_no_plan_that_keeps_the_budgets_has_a_layer_beyond_them(make_profile, seed):
    profile, rng = make_profile(seed), np.random.default_rng(seed)
    free = fastest_by_enumeration(profile, Constraints())
    limits = Constraints(memory_bytes=free.edge_memory_bytes * rng.uniform(0.3, 1.2),
                         output_error=free.predicted_output_error * rng.uniform(0.01, 1.2))
    upper = free.latency_s * rng.uniform(1.0, 3.0)
    beyond = reach_of(profile, limits, upper).beyond
    for block in enumerate_assignments(profile):
        spent = block.charges.costs()
        keeps = ((spent["memory_bytes"] <= limits.memory_bytes)
                 & (spent["output_error"] <= limits.output_error) & (spent["latency_s"] < upper))
        if keeps.any():
            assert not (profile.on_edge[block.cut] & beyond).any()


def test_tight_budgets_leave_layers_out_and_none_leaves_none(make_profile):
    left_out = 0
    for seed in range(20):
        profile = make_profile(seed)
        assert not reach_of(profile, Constraints()).beyond.any()
        weights = float(profile.weight_bytes[:, 0].sum())
        left_out += reach_of(profile, Constraints(memory_bytes=weights / 4)).beyond.sum()
    assert left_out > 10


@pytest.mark.parametrize("seed", range(10))
def test_what_is_spared_falls_with_what_is_on_the_edge(make_profile, seed):
    profile = make_profile(seed)
    reach = reach_of(profile, Constraints(memory_bytes=1e5, output_error=1.0))
    nowhere, first = np.zeros(len(profile.macs), bool), np.zeros(len(profile.macs), bool)
    first[0] = True
    assert (reach.spare(first, 0) <= reach.spare(nowhere, 0) + 1e-9).all()
    assert (reach.spare(nowhere, 10**6) <= reach.spare(nowhere, 0)).all()
