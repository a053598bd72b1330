"""The original's heuristic: what it keeps, what it cannot reach."""

import itertools

import numpy as np
import pytest

from autosplit.solvers import Constraints, fastest_by_enumeration
from autosplit.solvers.charging import PACKED, price
from autosplit.solvers.lagrange_heuristic import lagrange_choices, plan_lagrange_heuristic
from autosplit.workload import FLOAT_BITS


def random_items(seed):
    rng = np.random.default_rng(seed)
    items, count = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    size = np.cumsum(rng.integers(0, 6, (items, count)), axis=1) + 1
    error = np.cumsum(rng.uniform(0, 4, (items, count))[:, ::-1], axis=1)[:, ::-1]
    if seed % 3 == 0:  # clipping may make more bits worse
        error = rng.permuted(error, axis=1)
    return error, size


def multiplier_sweep(error, size, budget):
    """The least error over a dense sweep of multipliers, by brute force."""
    best = None
    for multiplier in np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 400)]):
        priced = error + multiplier * size
        options = [np.flatnonzero(row <= row.min() + 1e-12)[0] for row in priced]
        used = sum(int(size[i, o]) for i, o in enumerate(options))
        value = sum(error[i, o] for i, o in enumerate(options))
        if used <= budget and (best is None or value < best):
            best = value
    return best


@pytest.mark.parametrize("seed", range(40))
def test_choices_are_those_of_a_multiplier(seed):
    """No worse than a sweep of multipliers, no better than the best choice of all."""
    error, size = random_items(seed)
    budgets = np.arange(size[:, 0].sum(), size[:, -1].sum() + 2)
    for budget, options in zip(budgets, lagrange_choices(error, size, budgets), strict=True):
        rows = np.arange(len(error))
        assert size[rows, options].sum() <= budget
        value = error[rows, options].sum()
        assert value <= multiplier_sweep(error, size, budget) + 1e-9
        exact = min(sum(error[i, o] for i, o in enumerate(choice))
                    for choice in itertools.product(range(error.shape[1]), repeat=len(error))
                    if sum(size[i, o] for i, o in enumerate(choice)) <= budget)
        assert value >= exact - 1e-9


def test_options_off_the_convex_hull_are_never_taken():
    """The exact optimum within 3 bytes is the middle option, which no multiplier picks."""
    error, size = np.array([[10.0, 9.0, 0.0]]), np.array([[1, 3, 4]])
    assert lagrange_choices(error, size, np.array([3, 4])).tolist() == [[0], [2]]


def test_one_candidate_leaves_no_choice():
    assert lagrange_choices(np.ones((3, 1)), np.ones((3, 1)), np.array([9])).tolist() == [[0, 0, 0]]


def test_the_plan_keeps_the_constraints_and_its_own_rules(make_profile):
    splits = 0
    for seed in range(60):
        profile = make_profile(seed)
        free = fastest_by_enumeration(profile, Constraints())
        limits = Constraints(memory_bytes=1.2 * free.edge_memory_bytes,
                             quant_mse=0.5 * free.quant_mse)
        plan = plan_lagrange_heuristic(profile, limits)
        assert plan.feasible  # cloud-only with the raw input keeps both
        if plan.encoding == PACKED:
            splits += 1
            edge = np.array(plan.on_edge)
            assert not (np.diff(edge.astype(int)) > 0).any()
            raw = next(e.payload_bytes for e in profile.input_encodings if e.name == "raw")
            sent = np.array(plan.crosses)
            assert profile.tensor_bytes[sent, 0].sum() <= raw
            cut = int(np.flatnonzero((profile.on_edge == edge).all(axis=1))[0])
            again = price(profile, cut=cut, w_bits=np.array(plan.w_bits),
                          a_bits=np.array(plan.a_bits), label=plan.label)
            assert again.latency_s == plan.latency_s
        else:
            assert set(plan.w_bits) == {FLOAT_BITS}
    assert splits >= 10


def test_an_exact_search_is_strictly_faster_somewhere(make_profile):
    """Off the hull, between the sampled budgets or with a narrower crossing tensor."""
    gaps = []
    for seed in range(60):
        profile = make_profile(seed)
        free = fastest_by_enumeration(profile, Constraints())
        limits = Constraints(memory_bytes=0.8 * free.edge_memory_bytes,
                             quant_mse=0.7 * free.quant_mse)
        best = fastest_by_enumeration(profile, limits)
        if best is not None:
            gaps.append(plan_lagrange_heuristic(profile, limits).latency_s / best.latency_s - 1)
    assert max(gaps) > 0.05


def test_tighter_memory_is_never_faster(make_resnet50):
    profile = make_resnet50(edge_bytes_per_s=1e8)
    found = [plan_lagrange_heuristic(profile, Constraints(memory_bytes=limit)).latency_s
             for limit in (1 << 18, 1 << 20, 1 << 22, 1 << 25, None)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]
