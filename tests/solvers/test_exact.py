"""The solver against exhaustive search, on small random profiles."""

import math

import numpy as np
import pytest

from autosplit.errors import InfeasibleError, InputError
from autosplit.solvers import (
    Constraints,
    Objective,
    bands,
    fastest_by_enumeration,
    search,
    solve,
)
from autosplit.solvers.exhaustive import enumerate_assignments
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.subproblem import Subproblem
from autosplit.solvers.tables import RESOURCES, Tables

LATENCY, ENERGY = Objective(), Objective(latency_weight=0.0, energy_weight=1.0)


def random_objective(rng, free):
    """Draws latency, energy, or a sum in which both count about as much."""
    kind = rng.integers(3)
    if kind < 2:
        return (LATENCY, ENERGY)[kind]
    balance = free.latency_s / free.energy_j
    return Objective(latency_weight=float(rng.uniform(0.2, 2)),
                     energy_weight=float(balance * 10 ** rng.uniform(-1, 1)))


def random_constraints(rng, free):
    """Draws limits on all resources around what the unconstrained optimum spends."""

    def draw(chance, value, low):
        return float(value * rng.uniform(low, 1.5)) if rng.random() < chance else None

    return Constraints(
        memory_bytes=draw(0.6, free.edge_memory_bytes, 0.3),
        output_error=draw(0.7, free.predicted_output_error, 0.001),
        quant_mse=draw(0.4, free.quant_mse, 0.01),
        latency_s=draw(0.4, free.latency_s, 0.7),
        energy_j=draw(0.4, free.energy_j, 0.7),
    )


def all_splits(profile):
    return profile.on_edge.any(axis=1)


@pytest.mark.parametrize("seed", range(210))
def test_search_finds_the_optimum(make_profile, seed):
    """Equal cost and feasibility as exhaustive search, for every objective and limit."""
    profile = make_profile(seed)
    rng = np.random.default_rng(seed)
    free = fastest_by_enumeration(profile, Constraints())
    objective = random_objective(rng, free)
    relaxation = Relaxation(Tables(profile, objective))
    for constraints in [Constraints(), *(random_constraints(rng, free) for _ in range(3))]:
        best = fastest_by_enumeration(profile, constraints, objective)
        found = search.find_fastest(relaxation, search.budgets_of(constraints),
                                    all_splits(profile))
        plan = None if found.cut is None else search.plan_of(profile, found, constraints, "found")
        # What the pure objective minimises is not a budget of the search but judged after it.
        if best is None:
            assert plan is None or not plan.feasible
            continue
        assert plan.feasible
        assert objective.cost(plan) == pytest.approx(objective.cost(best), rel=1e-9)
        assert found.cost == pytest.approx(objective.cost(best), rel=1e-9)
        assert found.proven
        assert plan.lower_bound == objective.cost(plan)


def best_split_cost(plans):
    splits = [plan for plan in plans if plan.label in ("auto-split", "edge-only")]
    return min((plans.objective.cost(plan) for plan in splits if plan.feasible), default=math.inf)


@pytest.mark.parametrize("seed", range(1000, 1040))
def test_solve_lists_the_optimum(make_profile, seed):
    profile = make_profile(seed)
    rng = np.random.default_rng(seed)
    free = fastest_by_enumeration(profile, Constraints())
    for _ in range(2):
        constraints, objective = random_constraints(rng, free), random_objective(rng, free)
        best = fastest_by_enumeration(profile, constraints, objective)
        try:
            plans = solve(profile, constraints, objective)
        except InfeasibleError:
            assert best is None
            continue
        expected = math.inf if best is None else objective.cost(best)
        assert best_split_cost(plans) == pytest.approx(expected, rel=1e-9)
        assert plans.lower_bound <= objective.cost(plans.best)
        assert plans.gap == 0


def test_profiles_cover_the_hard_cases(make_profile):
    """The sixty profiles hold what the solver could get wrong."""
    profiles = [make_profile(seed) for seed in range(60)]
    free = [np.sum(p.crosses & (p.producer >= 0), axis=1).max() for p in profiles]
    shared = [len(np.unique(p.weight_group)) < len(p.macs) for p in profiles]
    assert max(free) >= 3
    assert sum(shared) >= 5
    assert any(not p.has_weight.all() for p in profiles)
    assert sum(_is_open(sub) for profile in profiles for sub in _roots(profile)) >= 25


def _roots(profile):
    tables = Tables(profile)
    for cut, level in np.argwhere(tables.valid):
        yield Subproblem.root(tables, int(cut), int(level), int(level))


def _is_open(sub):
    low, high = sub._layer_range
    return sub.tables.cost.varies[sub.parts.layers, low, high].any()


@pytest.mark.parametrize("seed", range(1100, 1140))
def test_joined_levels_change_no_optimum(make_profile, monkeypatch, seed):
    """Large profiles are searched by ranges of levels; here one or two hold them all."""
    profile = make_profile(seed)
    rng = np.random.default_rng(seed)
    free = fastest_by_enumeration(profile, Constraints())
    constraints, objective = random_constraints(rng, free), random_objective(rng, free)
    budgets = search.budgets_of(constraints)
    exact = search.find_fastest(Relaxation(Tables(profile, objective)), budgets,
                                all_splits(profile))
    monkeypatch.setattr(bands, "MAX_BANDS", 1 + seed % 2)
    joined = Relaxation(Tables(profile, objective))
    most = 1 + seed % 2 + len(profile.bits)  # a band has one top
    assert len(joined.cut) <= most * len(profile.on_edge)
    again = search.find_fastest(joined, budgets, all_splits(profile))
    assert again.cost == pytest.approx(exact.cost, rel=1e-9)
    assert again.proven == exact.proven


def test_sums_over_cuts_equal_direct_ones(make_branchy):
    """Sums by differences of sorted cuts against matrix products."""
    profile = make_branchy(60, count=2, cuts=300)
    tables = Tables(profile)
    relaxation = bands.Bands(tables)
    rng = np.random.default_rng(0)
    layer, kept = rng.uniform(1, 2, (60, 1)), rng.uniform(1, 2, (61, 1))
    sent = rng.uniform(1, 2, (61, 1))
    flat = np.broadcast_to(layer, (60, 2)), np.broadcast_to(kept, (61, 2))
    values = relaxation.least(*flat, np.broadcast_to(sent, (61, 2)))
    stays = tables.on_edge_tensor & ~profile.crosses
    expected = (profile.on_edge @ layer + stays @ kept + profile.crosses @ sent)[:, 0]
    np.testing.assert_allclose(values, expected[relaxation.cut], rtol=1e-12)


def test_a_thousand_layers(make_branchy):
    """An optimum with its proof: 1,000 layers with branches, 8 bits, 4,000 cuts."""
    profile = make_branchy(1000, seed=1)
    limits = Constraints(memory_bytes=0.4 * float(profile.weight_bytes[:, -1].sum()),
                         output_error=1e-3)
    relaxation = Relaxation(Tables(profile))
    found = search.find_fastest(relaxation, search.budgets_of(limits), all_splits(profile))
    assert found.proven
    plan = search.plan_of(profile, found, limits, "found")
    assert plan.feasible
    assert plan.latency_s == pytest.approx(found.cost, rel=1e-9)


@pytest.mark.parametrize("joined", [64, 2])
@pytest.mark.parametrize("seed", range(300, 330))
def test_relaxation_bounds_every_cut_and_level(make_profile, monkeypatch, seed, joined):
    monkeypatch.setattr(bands, "MAX_BANDS", joined)
    profile = make_profile(seed)
    rng = np.random.default_rng(seed)
    free = fastest_by_enumeration(profile, Constraints())
    objective = random_objective(rng, free)
    relaxation = Relaxation(Tables(profile, objective))
    relaxation.add(np.ones(20), 10 ** rng.uniform(-9, 0, (20, len(RESOURCES))))
    limits = search.budgets_of(random_constraints(rng, free))
    bounds = relaxation.bounds(limits)
    levels = relaxation.tables.levels
    for block in enumerate_assignments(profile):
        charges = block.charges
        memory = charges.edge_weight_bytes + charges.edge_activation_bytes
        spent = (charges.predicted_output_error, charges.quant_mse, memory, charges.latency_s,
                 charges.energy_j)
        keeps = np.ones(len(memory), dtype=bool)
        for value, limit in zip(spent, limits, strict=True):
            keeps &= value <= limit
        best = np.where(keeps, objective.cost(charges), np.inf).min()
        holds = ((relaxation.cut == block.cut) & (levels[relaxation.last] <= block.level_bytes)
                 & (block.level_bytes <= levels[relaxation.first])
                 & (relaxation.tables.tops[relaxation.first] == block.top))
        assert holds.sum() == 1
        assert bounds[holds][0] <= best * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(200, 206))
def test_a_tie_takes_the_lower_error(make_profile, seed):
    """Where bits cost no time and memory is free, nothing is quantized more than needed."""
    profile = make_profile(seed)
    flat = np.broadcast_to(profile.edge_latency_s[:, -1:, -1:], profile.edge_latency_s.shape)
    object.__setattr__(profile, "edge_latency_s", flat)
    edge = next(plan for plan in solve(profile) if plan.label == "edge-only")
    bits = np.array(edge.w_bits)[profile.has_weight]
    assert (bits == profile.bits[-1]).all()


def test_truncated_labels_leave_a_proven_gap(make_resnet50):
    """A search that may keep few labels says how far it may be from the optimum."""
    profile = make_resnet50(edge_bytes_per_s=1e8)
    budgets = search.budgets_of(Constraints(memory_bytes=6 << 20, output_error=1e-3))
    cuts = profile.on_edge.sum(axis=1) == 45
    exact = search.find_fastest(Relaxation(Tables(profile)), budgets, cuts)
    rough = search.find_fastest(Relaxation(Tables(profile)), budgets, cuts, max_labels=1)
    assert exact.proven
    assert rough.lower_bound <= exact.cost <= rough.cost
    assert rough.lower_bound > 0.9 * exact.cost


def test_exhaustive_refuses_large_profiles(make_resnet50):
    with pytest.raises(InputError, match="Use solve"):
        fastest_by_enumeration(make_resnet50(), Constraints())
