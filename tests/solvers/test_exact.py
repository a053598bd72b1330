"""The solver against exhaustive search, on small random profiles."""

import math

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.solvers import Constraints, fastest_by_enumeration, search, solve
from autosplit.solvers.exhaustive import enumerate_assignments
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.subproblem import Subproblem, Tables


def random_constraints(rng, free):
    """Draws budgets around what the unconstrained optimum spends."""

    def draw(chance, value, low):
        return float(value * rng.uniform(low, 1.5)) if rng.random() < chance else None

    return Constraints(
        memory_bytes=draw(0.6, free.edge_memory_bytes, 0.3),
        output_error=draw(0.7, free.predicted_output_error, 0.001),
        quant_mse=draw(0.4, free.quant_mse, 0.01),
    )


def fastest_split_s(plans):
    splits = [plan for plan in plans if plan.label in ("auto-split", "edge-only")]
    return min((plan.latency_s for plan in splits if plan.feasible), default=math.inf)


@pytest.mark.parametrize("seed", range(60))
def test_solve_finds_the_optimum(make_profile, seed):
    profile = make_profile(seed)
    rng = np.random.default_rng(seed)
    free = fastest_by_enumeration(profile, Constraints())
    for constraints in [Constraints(), *(random_constraints(rng, free) for _ in range(3))]:
        best = fastest_by_enumeration(profile, constraints)
        plans = solve(profile, constraints)
        expected = math.inf if best is None else best.latency_s
        assert fastest_split_s(plans) == pytest.approx(expected, rel=1e-9)
        assert plans.lower_bound_s <= plans.fastest.latency_s
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
        yield Subproblem.root(tables, int(cut), int(level))


def _is_open(sub):
    low, high = sub._layer_range
    return sub.tables.varies[sub.parts.layers, low, high].any()


@pytest.mark.parametrize("seed", range(100, 115))
def test_relaxation_bounds_every_cut_and_level(make_profile, seed):
    profile = make_profile(seed)
    rng = np.random.default_rng(seed)
    relaxation = Relaxation(Tables(profile))
    relaxation.add(np.ones(20), 10 ** rng.uniform(-9, 0, (20, 3)))
    free = fastest_by_enumeration(profile, Constraints())
    constraints = random_constraints(rng, free)
    bounds = relaxation.bounds(search.budgets_of(constraints))
    sizes = relaxation.tables.levels[relaxation.level]
    nodes = {(int(c), int(s)): b for c, s, b in zip(relaxation.cut, sizes, bounds, strict=True)}
    for block in enumerate_assignments(profile):
        charges = block.charges
        memory = charges.edge_weight_bytes + block.level_bytes
        spent = (charges.predicted_output_error, charges.quant_mse, memory)
        keeps = np.ones(len(memory), dtype=bool)
        for value, limit in zip(spent, search.budgets_of(constraints), strict=True):
            keeps &= value <= limit
        best = np.where(keeps, charges.latency_s, np.inf).min()
        bound = nodes.get((block.cut, block.level_bytes))
        if bound is not None:
            assert bound <= best * (1 + 1e-9)


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
    assert rough.lower_bound_s <= exact.latency_s <= rough.latency_s
    assert rough.lower_bound_s > 0.9 * exact.latency_s


def test_exhaustive_refuses_large_profiles(make_resnet50):
    with pytest.raises(InputError, match="Use solve"):
        fastest_by_enumeration(make_resnet50(), Constraints())
