"""The knapsack and its bounds against scipy's linear and integer programming."""

import math

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from autosplit.solvers.knapsack import improve, solve_knapsack
from autosplit.solvers.labels import suffix_sums
from autosplit.solvers.lagrangian import maximise_dual


def random_knapsack(seed):
    """Draws items whose cheap options use much of a first resource, dear ones of the others."""
    rng = np.random.default_rng(seed)
    items, options, count = rng.integers(1, 12), rng.integers(1, 7), rng.integers(1, 4)
    cost = np.sort(rng.uniform(0, 10, (items, options)), axis=1)
    resources = np.sort(rng.uniform(0, 5, (count, items, options)), axis=2)
    resources[0] = resources[0, :, ::-1] ** 2
    if seed % 3 == 0:
        cost, resources = np.round(cost), np.round(resources)
    cost[rng.random(cost.shape) < 0.15] = np.inf
    cost[np.isinf(cost).all(axis=1), 0] = 1.0
    finite = np.where(np.isfinite(cost), resources, np.nan)
    least, most = np.nanmin(finite, 2).sum(1), np.nanmax(finite, 2).sum(1)
    return cost, resources, least + rng.uniform(0.02, 0.9, count) * (most - least)


def program(cost, resources, budgets):
    """Writes the knapsack as objective, inequality and equality matrices."""
    finite = np.isfinite(cost).ravel()
    one_each = np.kron(np.eye(len(cost)), np.ones(cost.shape[1]))[:, finite]
    return cost.ravel()[finite], resources.reshape(len(budgets), -1)[:, finite], one_each


def integer_optimum(cost, resources, budgets):
    objective, used, one_each = program(cost, resources, budgets)
    result = milp(objective, integrality=np.ones_like(objective), bounds=Bounds(0, 1),
                  constraints=[LinearConstraint(used, -np.inf, budgets),
                               LinearConstraint(one_each, 1, 1)],
                  options={"mip_rel_gap": 0.0})
    return result.fun if result.status == 0 else math.inf


@pytest.mark.parametrize("seed", range(80))
def test_knapsack_equals_milp(seed):
    cost, resources, budgets = random_knapsack(seed)
    expected = integer_optimum(cost, resources, budgets)
    choice = solve_knapsack(cost, resources, budgets)
    assert choice.cost == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert choice.lower_bound == choice.cost
    if choice.options is not None:
        items = np.arange(len(cost))
        assert cost[items, choice.options].sum() == pytest.approx(choice.cost)
        assert (resources[:, items, choice.options].sum(axis=1) <= budgets + 1e-12).all()


@pytest.mark.parametrize("seed", range(40))
def test_dual_equals_the_linear_relaxation(seed):
    cost, resources, budgets = random_knapsack(seed)
    objective, used, one_each = program(cost, resources, budgets)
    relaxed = linprog(objective, A_ub=used, b_ub=budgets, A_eq=one_each, b_eq=np.ones(len(cost)))
    dual = maximise_dual(cost, resources, budgets)
    if relaxed.status == 2:
        assert dual.bound == math.inf
    else:
        assert dual.bound <= relaxed.fun + 1e-7 * abs(relaxed.fun)
        assert dual.bound >= relaxed.fun - 1e-4 * (1 + abs(relaxed.fun))


@pytest.mark.parametrize("seed", range(30))
def test_a_hint_changes_the_way_and_not_the_height(seed):
    cost, resources, budgets = random_knapsack(seed)
    plain = maximise_dual(cost, resources, budgets)
    rng = np.random.default_rng(seed)
    for hint in (plain.multipliers * rng.uniform(0.1, 10), 10 ** rng.uniform(-6, 6, len(budgets))):
        if math.isinf(plain.bound):
            continue
        hinted = maximise_dual(cost, resources, budgets, hint=hint)
        assert hinted.bound == pytest.approx(plain.bound, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_upper_is_exclusive(seed):
    """Nothing is returned that is not cheaper than what the caller has."""
    cost, resources, budgets = random_knapsack(seed)
    best = solve_knapsack(cost, resources, budgets)
    if best.options is None:
        assert best.lower_bound == math.inf
        return
    none = solve_knapsack(cost, resources, budgets, upper=best.cost)
    assert none.options is None
    assert none.lower_bound >= best.cost * (1 - 1e-9)
    again = solve_knapsack(cost, resources, budgets, upper=best.cost * 1.1 + 1e-6)
    assert again.cost == pytest.approx(best.cost)


@pytest.mark.parametrize("seed", range(30))
def test_few_labels_never_claim_too_much(seed):
    cost, resources, budgets = random_knapsack(seed)
    exact = solve_knapsack(cost, resources, budgets)
    rough = solve_knapsack(cost, resources, budgets, max_labels=1)
    assert rough.lower_bound <= exact.cost * (1 + 1e-9)
    assert rough.cost >= exact.cost * (1 - 1e-9)


def test_no_budget_takes_the_cheapest():
    cost = np.array([[3.0, 1.0, np.inf], [2.0, 5.0, 0.5]])
    choice = solve_knapsack(cost, np.zeros((2, 2, 3)), np.array([np.inf, np.inf]))
    assert choice.options.tolist() == [1, 2]


def test_least_use_over_budget_is_infeasible():
    choice = solve_knapsack(np.ones((2, 2)), np.ones((1, 2, 2)), np.array([1.9]))
    assert choice.options is None
    assert choice.lower_bound == math.inf


def test_equal_costs_that_fit_only_together_are_proven_infeasible():
    """Flat costs give the bound no slope; feasibility of two budgets must be decided anyway."""
    steps = np.arange(7.0)
    resources = np.stack([np.tile(6 - steps, (40, 1)), np.tile(steps, (40, 1))])
    cost = np.ones((40, 7))
    assert solve_knapsack(cost, resources, np.array([120.0, 119.0])).options is None
    assert solve_knapsack(cost, resources, np.array([120.0, 120.0])).cost == 40


def test_improve_breaks_ties_by_the_first_resource():
    cost = np.array([[1.0, 1.0, 2.0]])
    error, size = np.array([[5.0, 3.0, 0.0]]), np.array([[1.0, 2.0, 3.0]])
    resources, start = np.stack([error, size]), np.array([0])
    assert improve(cost, resources, np.array([np.inf, 9.0]), start).tolist() == [1]
    assert improve(cost, resources, np.array([np.inf, 1.0]), start).tolist() == [0]


def test_suffix_sums_of_no_items():
    assert suffix_sums(np.zeros((2, 0, 3))).shape == (2, 1, 3)
