"""The front against exhaustive enumeration, and what it promises on larger graphs."""

import math

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.solvers import Constraints, Objective
from autosplit.solvers.cloud_only import price_in_cloud
from autosplit.solvers.constraints import within
from autosplit.solvers.exhaustive import enumerate_assignments
from autosplit.solvers.front import Resolution, find_front
from autosplit.solvers.pareto import non_dominated
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.tables import Tables

EXACT = Resolution(output_error=0.0, memory_bytes=0.0)


def cloud_plans(profile):
    return [price_in_cloud(profile, encoding.name) for encoding in profile.input_encodings]


def front_of(profile, constraints=None, resolution=EXACT, objective=None, known=None):
    relaxation = Relaxation(Tables(profile, objective or Objective()))
    known = cloud_plans(profile) if known is None else known
    return find_front(relaxation, constraints or Constraints(), known, resolution)


def points_of(front, objective=None):
    cost = (objective or Objective()).cost
    rows = [(cost(p), p.predicted_output_error, p.edge_memory_bytes) for p in front.plans]
    return np.array(rows).reshape(-1, 3)


def enumerated(profile, constraints, upper, objective=None):
    """All feasible points below ``upper``, by enumeration: f64[N, 3]."""
    rows = []
    for block in enumerate_assignments(profile):
        spent = block.charges.costs()
        keeps = np.ones(len(block.w_index), dtype=bool)
        for name, limit in constraints.limits().items():
            keeps &= within(spent[name], limit)
        cost = (objective or Objective()).cost(block.charges)
        points = np.stack([cost, spent["output_error"], spent["memory_bytes"]], axis=1)
        rows.append(points[keeps & (cost < upper)])
    return np.concatenate(rows)


def exhaustive_front(points):
    """The points that none beats; up to rounding, equal points once."""
    rounded = np.stack([np.round(points[:, 0] / points[:, 0].max(), 11),
                        np.round(points[:, 1] / max(points[:, 1].max(), 1e-300), 11),
                        points[:, 2]], axis=1) if len(points) else points
    return points[non_dominated(rounded)] if len(points) else points


def random_constraints(rng, points):
    """Draws limits between the least and the most that the plans spend."""

    def draw(chance, values):
        low, high = values.min(), values.max()
        return float(low + (high - low) * rng.uniform(0.02, 1)) if rng.random() < chance else None

    return Constraints(output_error=draw(0.6, points[:, 1]), memory_bytes=draw(0.6, points[:, 2]),
                       latency_s=draw(0.4, points[:, 0]))


def ordered(points):
    return points[np.lexsort(np.round(points / (points.max(axis=0, initial=1e-300)), 9).T)]


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_the_exact_front_is_that_of_enumeration(make_profile, first):
    for seed in range(first, first + 25):
        profile = make_profile(seed, layers=2 + seed % 3, count=2 + seed % 2)
        rng = np.random.default_rng(seed)
        free = enumerated(profile, Constraints(), math.inf)
        limited = random_constraints(rng, free)
        for constraints in (limited,) if seed % 2 else (Constraints(), limited):
            front = front_of(profile, constraints)
            expected = exhaustive_front(enumerated(profile, constraints, front.upper))
            assert front.exact
            assert len(front.plans) == len(expected), seed
            np.testing.assert_allclose(ordered(points_of(front)), ordered(expected), rtol=2e-9)


@pytest.mark.parametrize("seed", range(300, 330))
def test_a_resolution_covers_what_it_leaves_out(make_profile, seed):
    profile = make_profile(seed)
    rng = np.random.default_rng(seed)
    resolution = Resolution(output_error=rng.choice([0.0, 0.1, 0.5, 2.0]),
                            memory_bytes=rng.choice([0.0, 0.05, 0.3]))
    constraints = random_constraints(rng, enumerated(profile, Constraints(), math.inf))
    front = front_of(profile, constraints, resolution)
    points = enumerated(profile, constraints, front.upper)
    listed = points_of(front)
    factors = np.array([front.cost_factor, front.error_factor, front.memory_factor])
    covered = (listed[None] <= points[:, None] * factors * (1 + 2e-9)).all(axis=2).any(axis=1)
    assert covered.all()
    for plan in front.plans:
        assert plan.feasible
        assert plan.lower_bound == plan.latency_s
    assert len(non_dominated(listed)) == len(listed)


@pytest.mark.parametrize("seed", range(400, 410))
def test_any_objective(make_profile, seed):
    profile = make_profile(seed, layers=3, count=2)
    for objective in (Objective(latency_weight=0.0, energy_weight=1.0),
                      Objective(latency_weight=1.0, energy_weight=0.3)):
        front = front_of(profile, objective=objective)
        expected = exhaustive_front(enumerated(profile, Constraints(), front.upper, objective))
        np.testing.assert_allclose(ordered(points_of(front, objective)), ordered(expected),
                                   rtol=2e-9)


def test_only_lossless_cloud_only_bounds_the_front(make_profile):
    profile = make_profile(4)
    lossy = [plan for plan in cloud_plans(profile) if not plan.error_is_predicted]
    assert front_of(profile, known=lossy).upper == math.inf
    front = front_of(profile)
    lossless = [plan.latency_s for plan in cloud_plans(profile) if plan.error_is_predicted]
    assert front.upper == min(lossless)
    assert all(plan.latency_s < front.upper for plan in front.plans)


def test_nothing_fits(make_profile):
    assert front_of(make_profile(1), Constraints(memory_bytes=0)).plans == ()
    assert front_of(make_profile(1), Constraints(output_error=-1.0)).plans == ()


def test_finer_resolutions_list_more_plans_and_none_that_is_beaten(make_resnet50):
    profile = make_resnet50(edge_bytes_per_s=1e8)
    coarse = front_of(profile, resolution=Resolution(output_error=0.5, memory_bytes=0.3))
    fine = front_of(profile, resolution=Resolution(output_error=0.1, memory_bytes=0.05))
    assert 3 <= len(coarse.plans) < len(fine.plans)
    assert coarse.solves < fine.solves < 100
    both = np.concatenate([points_of(fine), points_of(coarse)])
    strictly = (both[None] < both[:, None] * (1 - 1e-9)).all(axis=2)
    assert not strictly.any()
    for plan in fine.plans:
        assert plan.lower_bound == plan.latency_s


def test_a_front_without_a_resolution_is_refined_while_that_is_cheap(make_profile, make_resnet50):
    """Small graphs reach the default; where many cuts compete it stops, and says so."""
    small, hard = front_of(make_profile(4), resolution=None), front_of(make_resnet50(),
                                                                       resolution=None)
    default = Resolution()
    assert small.error_factor == 1 + default.output_error
    assert small.memory_factor == 1 + default.memory_bytes
    assert hard.error_factor > small.error_factor
    assert hard.memory_factor > small.memory_factor
    assert hard.solves < 150
    points = points_of(hard)
    assert len(non_dominated(points)) == len(points) >= 20


@pytest.mark.parametrize("seed", range(330, 350))
def test_refined_fronts_cover_what_they_leave_out(make_profile, seed):
    profile = make_profile(seed)
    constraints = random_constraints(np.random.default_rng(seed),
                                     enumerated(profile, Constraints(), math.inf))
    front = front_of(profile, constraints, resolution=None)
    points = enumerated(profile, constraints, front.upper)
    factors = np.array([front.cost_factor, front.error_factor, front.memory_factor])
    covered = (points_of(front)[None] <= points[:, None] * factors * (1 + 2e-9)).all(axis=2)
    assert covered.any(axis=1).all()


@pytest.mark.parametrize(("name", "value"), [
    ("output_error", -0.1), ("memory_bytes", math.inf), ("output_error", math.nan),
    ("memory_bytes", "5%"), ("output_error", True),
])
def test_bad_resolutions_are_refused(name, value):
    with pytest.raises(InputError, match=f"Resolution.{name}"):
        Resolution(**{name: value})
