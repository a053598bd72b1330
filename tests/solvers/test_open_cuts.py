"""The search over all closed sets against their enumeration, and its scale."""

import dataclasses
import math

import numpy as np
import pytest

from autosplit.solvers import Constraints, fastest_by_enumeration
from autosplit.solvers.charging import price, runs_all, runs_some
from autosplit.solvers.closed_set_bounds import ClosedSetBounds
from autosplit.solvers.multipliers import climb
from autosplit.solvers.objective import Objective
from autosplit.solvers.open_cuts import search_open_cuts, with_cuts
from autosplit.solvers.regions import Regions
from autosplit.solvers.relaxation import Relaxation
from autosplit.solvers.search import Found, budgets_of, find_fastest
from autosplit.solvers.tables import Tables


def closed_rows(profile):
    """Lists every closed set of a small profile, the empty one first."""
    layers = len(profile.macs)
    rows = []
    for number in range(2**layers):
        flags = (number >> np.arange(layers) & 1).astype(bool)
        makers = profile.producer[profile.reads[flags].any(axis=0)]
        if flags[makers[makers >= 0]].all():
            rows.append(flags)
    return np.array(sorted(rows, key=lambda row: (row.sum(), row.tolist())))


def listing(profile, rows, **changes):
    """Returns the profile with exactly these cuts listed."""
    ends = dataclasses.replace(
        profile, on_edge=rows[[0, -1]], crosses=profile.crosses[[0, -1]],
        cut_names=("cloud-only", "edge-only"), **changes)
    return with_cuts(ends, rows[1:-1])


def both_listings(profile):
    """Returns the profile with all its proper splits, and with the prefixes only, open.

    Enumeration takes every listed cut but the empty one, so the first is without edge-only.
    """
    layers = len(profile.macs)
    full = listing(profile, closed_rows(profile), open_cuts=False)
    proper = dataclasses.replace(full, on_edge=full.on_edge[:-1], crosses=full.crosses[:-1],
                                 cut_names=full.cut_names[:-1])
    prefixes = np.tri(layers + 1, layers, k=-1, dtype=bool)
    return proper, listing(profile, prefixes, open_cuts=True)


def nothing(objective):
    return Found(cut=None, w_index=None, a_index=None, cost=math.inf, objective=objective,
                 lower_bound=math.inf)


def search_both(profile, constraints, objective=None, **limits):
    """Returns the best of the listed proper splits and the outcome for all closed sets."""
    tables, budgets = Tables(profile, objective), budgets_of(constraints)
    proper = runs_some(profile) & ~runs_all(profile)
    listed = find_fastest(Relaxation(tables), budgets, proper)
    return listed, search_open_cuts(tables, budgets, listed, **limits)


def random_constraints(rng, free, names=("memory_bytes", "output_error", "quant_mse")):
    """Draws limits around what the best plan without limits spends."""
    spends = {"memory_bytes": free.edge_memory_bytes, "output_error": free.predicted_output_error,
              "quant_mse": free.quant_mse, "latency_s": free.latency_s, "energy_j": free.energy_j}
    lowest = {"memory_bytes": 0.3, "output_error": 0.001, "quant_mse": 0.01,
              "latency_s": 0.7, "energy_j": 0.7}
    return Constraints(**{name: float(spends[name] * rng.uniform(lowest[name], 1.5))
                          for name in names if rng.random() < 0.6})


def check_against_enumeration(profile, opened, constraints, objective=None):
    objective = Objective() if objective is None else objective
    best = fastest_by_enumeration(profile, constraints, objective)
    expected = math.inf if best is None else objective.cost(best)
    listed, result = search_both(opened, constraints, objective)
    found = result.found
    assert found.cost == pytest.approx(expected, rel=1e-9)
    assert found.lower_bound == found.cost
    if found.cut is not None:
        plan = price(result.profile, cut=found.cut, w_bits=opened.bits[found.w_index],
                     a_bits=opened.bits[found.a_index], label="open")
        assert objective.cost(plan) == pytest.approx(expected, rel=1e-9)
    return found.cost < listed.cost


@pytest.mark.parametrize("start", range(0, 120, 10))
def test_best_of_all_closed_sets(make_profile, start):
    """120 profiles, half of them with more layers and two candidate bits."""
    improved = 0
    for seed in range(start, start + 10):
        size = (5 + seed % 3, 2) if seed % 2 else (None, None)
        profile, opened = both_listings(make_profile(seed, *size))
        rng = np.random.default_rng(seed)
        free = fastest_by_enumeration(profile, Constraints())
        for constraints in (Constraints(), random_constraints(rng, free)):
            improved += check_against_enumeration(profile, opened, constraints)
    assert improved  # some of the best are no topological prefix


@pytest.mark.parametrize("seed", range(200, 212))
def test_energy_as_objective_and_as_limit(make_profile, seed):
    profile, opened = both_listings(make_profile(seed))
    rng = np.random.default_rng(seed)
    objective = [Objective(latency_weight=0.0, energy_weight=1.0),
                 Objective(latency_weight=1.0, energy_weight=0.5)][seed % 2]
    free = fastest_by_enumeration(profile, Constraints(), objective)
    other = random_constraints(rng, free, ("latency_s", "output_error"))
    check_against_enumeration(profile, opened, other, objective)
    limited = random_constraints(rng, free, ("energy_j", "memory_bytes"))
    check_against_enumeration(profile, opened, limited)


@pytest.mark.parametrize("seed", range(300, 330))
def test_every_multiplier_bounds_every_closed_set(make_profile, seed):
    """Also where layers share weights, and where only some of the sets are asked for."""
    profile, opened = both_listings(make_profile(seed))
    rng = np.random.default_rng(seed)
    free = fastest_by_enumeration(profile, Constraints())
    constraints = random_constraints(rng, free)
    bounds = ClosedSetBounds(Tables(opened), budgets_of(constraints))
    whole = Regions(bounds.tables, bounds.topology).whole
    none = whole.on_edge
    layer = int(rng.integers(len(none)))
    forced = np.arange(len(none)) == layer
    for on_edge, in_cloud in ((none, none), (forced, none), (none, forced)):
        kept = profile.on_edge[:, layer] if on_edge.any() else ~profile.on_edge[:, layer]
        kept = kept | ~forced.any() if (on_edge | in_cloud).any() else np.ones_like(kept)
        kept[0] = True  # the empty set, which enumeration leaves out
        some = dataclasses.replace(
            profile, on_edge=profile.on_edge[kept], crosses=profile.crosses[kept],
            cut_names=tuple(np.array(profile.cut_names)[kept].tolist()))
        best = fastest_by_enumeration(some, constraints) if kept.sum() > 1 else None
        least = math.inf if best is None else best.latency_s
        region = dataclasses.replace(whole, on_edge=on_edge, in_cloud=in_cloud)
        points = 10 ** rng.uniform(-9, 0, (4, len(bounds.rows)))
        found = [bounds.at(region, point).value for point in points]
        highest = climb(bounds, region, points[0], math.inf, 20).bound
        if math.isfinite(least):
            assert max([*found, highest.value]) <= least * (1 + 1e-9)


def wide_blocks(rng, layers):
    """Draws blocks of 2 to 12 parallel branches: the tensors each layer reads, and sizes."""
    sources, sizes = [[0]], [224 * 224 * 3, 300_000]
    while len(sources) < layers:
        ends, first = [], len(sizes) - 1
        base = 300_000 * np.exp(-len(sources) / 250)
        width = int(rng.integers(2, 13))
        for _ in range(width):
            end, depth = first, int(rng.integers(2, 8))
            neck = int(rng.integers(depth))
            for step in range(min(depth, layers - 1 - len(sources))):
                share = 0.15 if step == neck else 1
                sources.append([end])
                sizes.append(64 + int(base * rng.uniform(0.3, 1) * share / width))
                end = len(sizes) - 1
            ends.append(end)
        sources.append(sorted(set(ends)))
        sizes.append(64 + int(base * rng.uniform(0.5, 1)))
    return sources, np.array(sizes)


def wide_profile(make_branchy, layers, seed=0):
    """Makes a profile with far more closed sets than can be listed; only the ends are."""
    rng = np.random.default_rng(seed)
    profile = make_branchy(layers, cuts=0, seed=seed, edge_bytes_per_s=3e9,
                           edge_macs_per_s=1e11)
    sources, sizes = wide_blocks(rng, layers)
    reads = np.zeros((layers, layers + 1), dtype=bool)
    for layer, tensors in enumerate(sources):
        reads[layer, tensors] = True
    sent = -(-sizes[:, None] * profile.bits // 8)
    sent[0] = sizes[0]
    inputs = profile.producer < 0
    return dataclasses.replace(
        profile, reads=reads, is_output=~reads.any(axis=0), tensor_bytes=sent,
        float_bytes=4 * sizes, pack_s=sent * 1e-10, unpack_s=sent * 1e-11, open_cuts=True,
        on_edge=np.repeat([[False], [True]], layers, axis=1),
        crosses=np.stack([inputs, np.zeros_like(inputs)]), cut_names=("cloud-only", "edge-only"))


def prefixes_of(profile):
    layers = len(profile.macs)
    return listing(profile, np.tri(layers + 1, layers, k=-1, dtype=bool))


def test_a_wide_graph_is_cut_inside_its_branches(make_branchy):
    """The best cut ends each of several branches at a place of its own."""
    profile = prefixes_of(wide_profile(make_branchy, 150))
    constraints = Constraints(output_error=1e-3)
    listed, result = search_both(profile, constraints)
    found = result.found
    assert found.lower_bound == found.cost < 0.98 * listed.cost
    on_edge = result.profile.on_edge[found.cut]
    assert not (result.profile.on_edge[:-2] == on_edge).all(axis=1).any()
    assert (result.profile.on_edge[: found.cut] == profile.on_edge[: found.cut]).all()
    assert result.profile.on_edge[-1].all()
    name = result.profile.cut_names[found.cut]
    assert name.startswith("after layer")
    assert name.count("+") <= 3


def test_the_limit_of_min_cuts_leaves_an_honest_bound(make_branchy):
    profile = wide_profile(make_branchy, 100)
    budgets = budgets_of(Constraints(output_error=1e-3, memory_bytes=300_000))
    tables = Tables(profile)
    none = nothing(tables.objective)
    exact = search_open_cuts(tables, budgets, none)
    assert exact.found.lower_bound == exact.found.cost < math.inf
    bounds = []
    for limit in (1, exact.min_cuts // 2, exact.min_cuts - 1):
        rough = search_open_cuts(tables, budgets, none, max_min_cuts=limit)
        assert rough.found.lower_bound <= exact.found.cost <= rough.found.cost
        bounds.append(rough.found.lower_bound)
    assert 0 < bounds[0] < bounds[-1]
    assert bounds == sorted(bounds)
    assert bounds[-1] > 0.7 * exact.found.cost


def test_closed_lists_stay_as_they_are(make_profile):
    profile = make_profile(3)
    listed, result = search_both(profile, Constraints())
    assert result.profile is profile
    assert result.found is listed
    assert result.min_cuts == 0


def test_unknown_energy_is_not_asked_for(make_profile):
    """A profile without energy figures is searched for latency all the same."""
    _, opened = both_listings(make_profile(11, 6, 2))
    network = dataclasses.replace(opened.network, uplink_j_per_bit=None)
    unknown = dataclasses.replace(opened, edge_energy_j=math.nan * opened.edge_energy_j,
                                  pack_j=math.nan * opened.pack_j, network=network)
    constraints = Constraints(output_error=1e-2)
    known = search_both(opened, constraints)[1].found
    assert search_both(unknown, constraints)[1].found.cost == known.cost


def test_nothing_fits_anywhere(make_branchy):
    profile = wide_profile(make_branchy, 60)
    found = search_open_cuts(Tables(profile), budgets_of(Constraints(memory_bytes=10)),
                             nothing(Objective())).found
    assert found.cut is None
    assert found.cost == found.lower_bound == math.inf


@pytest.mark.heavy
@pytest.mark.parametrize(("seed", "proven"), [(0, True), (1, True), (2, False)])
def test_a_thousand_layers(make_branchy, seed, proven):
    """With limits that bind: proven over all closed sets, or stopped with a bound."""
    profile = prefixes_of(wide_profile(make_branchy, 1000, seed))
    free = search_open_cuts(Tables(profile), budgets_of(Constraints()), nothing(Objective()))
    assert 0 < free.profile.on_edge[free.found.cut].sum() < len(profile.macs)
    listed, result = search_both(profile, Constraints(output_error=1e-3, memory_bytes=400_000))
    found = result.found
    assert 0.7 * found.cost < found.lower_bound <= found.cost <= listed.cost
    assert not proven or found.lower_bound == found.cost
