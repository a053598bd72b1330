"""The nodes of a search against the bounds of the whole pool."""

import math

import numpy as np
import pytest

from autosplit.solvers import Constraints
from autosplit.solvers.nodes import Nodes
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import budgets_of
from autosplit.solvers.tables import RESOURCES, Tables


@pytest.mark.parametrize("seed", range(3))
def test_nodes_come_by_the_best_bound_of_the_pool(make_resnet50, seed):
    relaxation = Relaxation(Tables(make_resnet50(seed)))
    rng = np.random.default_rng(seed)
    relaxation.add(np.ones(40), 10 ** rng.uniform(-9, 0, (40, len(RESOURCES))) * [1, 0, 1, 0, 0])
    budgets = budgets_of(Constraints(memory_bytes=1 << 20, output_error=1e-2))
    cuts = relaxation.tables.profile.on_edge.any(axis=1)
    bounds = np.where(cuts[relaxation.cut], relaxation.bounds(budgets), np.inf)
    nodes = Nodes(relaxation, budgets, cuts, math.inf)
    for _ in range(100):
        lowest = nodes.lowest()
        assert lowest == pytest.approx(bounds.min(), rel=1e-12)
        index = nodes.pop(lowest)
        assert bounds[index] < math.inf
        bounds[index] = math.inf


def test_what_costs_too_much_is_dropped(make_profile):
    relaxation = Relaxation(Tables(make_profile(3)))
    budgets = budgets_of(Constraints())
    everywhere = np.ones(len(relaxation.tables.valid), dtype=bool)
    nodes = Nodes(relaxation, budgets, everywhere, math.inf)
    middle = float(np.median(nodes.bound))
    nodes.drop(middle)
    assert (nodes.bound < middle).all()
    nodes.drop(0.0)
    assert nodes.lowest() == math.inf
