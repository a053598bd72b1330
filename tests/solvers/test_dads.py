"""The float baselines: a chain of layers against the minimum cut of the graph."""

import dataclasses

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.solvers import Constraints, Objective
from autosplit.solvers.charging import runs_some
from autosplit.solvers.cloud_only import price_in_cloud
from autosplit.solvers.dads import plan_dads, plan_qdmp_uniform
from autosplit.solvers.fixed_bits import price_fixed, unquantized_bits
from autosplit.solvers.min_cut import Topology
from autosplit.solvers.neurosurgeon import plan_neurosurgeon, prefixes

LATENCY = Objective()
ENERGY = Objective(latency_weight=0.0, energy_weight=1.0)
BOTH = Objective(latency_weight=1.0, energy_weight=0.3)


def with_cuts(profile, on_edge, open_cuts=False):
    """Lists other cuts."""
    network = dataclasses.replace(profile.network, uplink_j_per_bit=5e-7, downlink_j_per_bit=5e-8)
    return dataclasses.replace(
        profile, on_edge=on_edge, crosses=Topology.of(profile).crosses(on_edge), network=network,
        cut_names=tuple(f"cut{i}" for i in range(len(on_edge))), open_cuts=open_cuts)


def uneven(profile, seed):
    """Makes layers and tensors so unlike one another that branches part."""
    rng = np.random.default_rng(seed)
    factor = 10.0 ** rng.uniform(-2, 1, len(profile.macs))
    wide, made = profile.unquantized, profile.producer >= 0
    size = wide.tensor_bytes * np.where(made, 10.0 ** rng.uniform(-2, 0.5, len(made)), 1.0)
    wide = dataclasses.replace(wide, latency_s=wide.latency_s * factor,
                               energy_j=wide.energy_j * factor,
                               tensor_bytes=np.ceil(size).astype(np.int64))
    cloud_s = profile.cloud_latency_s * 10.0 ** rng.uniform(0, 3, len(factor))
    return dataclasses.replace(profile, unquantized=wide, cloud_latency_s=cloud_s)


def all_closed_sets(profile):
    """Every set of layers that holds the makers of all that it reads, by size."""
    layers = len(profile.macs)
    rows = np.array(list(np.ndindex(*[2] * layers)), dtype=bool)
    makers = [{int(profile.producer[t]) for t in np.flatnonzero(profile.reads[i])} - {-1}
              for i in range(layers)]
    closed = [all(row[list(makers[i])].all() for i in np.flatnonzero(row)) for row in rows]
    rows = rows[closed]
    return rows[np.argsort(rows.sum(axis=1), kind="stable")]


def chain_only(profile, open_cuts):
    layers = len(profile.macs)
    return with_cuts(profile, np.tri(layers + 1, layers, k=-1, dtype=bool), open_cuts)


def cheapest(profile, objective):
    """Brute force: all listed cuts, and cloud-only."""
    fixed = unquantized_bits(profile)
    plans = [price_fixed(profile, fixed, int(cut), "x")
             for cut in np.flatnonzero(runs_some(profile))]
    return min(objective.cost(plan) for plan in [*plans, price_in_cloud(profile, "raw")])


@pytest.mark.parametrize(("objective", "parted"), [(LATENCY, 2), (ENERGY, 0), (BOTH, 2)])
def test_the_minimum_cut_equals_brute_force_over_all_closed_sets(make_profile, objective, parted):
    """Also where no topological prefix is the best, of which there are ``parted`` at least."""
    beyond = 0
    for seed in range(60):
        profile = uneven(make_profile(seed, layers=7), seed)
        every = with_cuts(profile, all_closed_sets(profile))
        chain = chain_only(profile, open_cuts=True)
        least = cheapest(every, objective)
        found = plan_dads(chain, Constraints(), objective)
        assert objective.cost(found) == pytest.approx(least)
        assert objective.cost(plan_dads(every, Constraints(), objective)) == pytest.approx(least)
        beyond += least < cheapest(chain, objective) * (1 - 1e-9)
    assert beyond >= parted


def test_dads_is_never_worse_than_neurosurgeon(make_profile):
    for seed in range(60):
        profile = make_profile(seed)
        for limits in (Constraints(), Constraints(memory_bytes=3000)):
            graph, chain = plan_dads(profile, limits), plan_neurosurgeon(profile, limits)
            assert graph.feasible >= chain.feasible
            if chain.feasible:
                assert graph.latency_s <= chain.latency_s * (1 + 1e-12)


def test_neurosurgeon_takes_the_best_prefix(make_profile):
    for seed in range(30):
        profile = chain_only(make_profile(seed), open_cuts=True)
        assert len(prefixes(profile)) == len(profile.macs)
        for objective in (LATENCY, ENERGY):
            found = plan_neurosurgeon(profile, Constraints(), objective)
            assert objective.cost(found) == pytest.approx(cheapest(profile, objective))
            edge = np.array(found.on_edge)
            assert np.array_equal(edge, np.arange(len(edge)) < edge.sum())


def test_prefixes_leave_other_cuts_out(make_profile):
    for seed in range(30):
        profile = make_profile(seed)
        for cut in range(len(profile.on_edge)):
            flags = profile.on_edge[cut]
            is_prefix = flags.any() and not (np.diff(flags.astype(int)) > 0).any()
            assert (cut in prefixes(profile)) == is_prefix


def test_every_baseline_pays_for_every_crossing_tensor(make_profile):
    """Neurosurgeon's chain view does not make a passing branch free."""
    for seed in range(30):
        profile = chain_only(make_profile(seed), open_cuts=False)
        plan = plan_neurosurgeon(profile, Constraints())
        if any(plan.on_edge):
            sent = np.array(plan.crosses)
            assert plan.uplink_bytes == profile.unquantized.tensor_bytes[sent].sum()


def test_qdmp_with_a_uniform_edge_keeps_the_cut_of_the_float_network(make_profile):
    moved = 0
    for seed in range(30):
        profile = chain_only(make_profile(seed), open_cuts=True)
        floats = plan_dads(profile, Constraints())
        for bits in profile.bits.tolist():
            plan = plan_qdmp_uniform(profile, bits, Constraints(memory_bytes=1))
            assert plan.on_edge == floats.on_edge
            if any(plan.on_edge):
                assert set(plan.w_bits) <= {bits, 32}
                assert plan.edge_weight_bytes <= floats.edge_weight_bytes
                moved += 1
            else:
                assert plan.latency_s == floats.latency_s
            assert plan.feasible == (plan.edge_memory_bytes <= 1)
    assert moved > 10


def test_bad_arguments_say_what_to_do(make_profile):
    profile = make_profile(0)
    with pytest.raises(InputError, match="candidates"):
        plan_qdmp_uniform(profile, 3, Constraints())
    unknown = dataclasses.replace(profile, edge_energy_j=profile.edge_energy_j * np.nan)
    for find in (plan_dads, plan_neurosurgeon):
        with pytest.raises(InputError, match="energy"):
            find(unknown, Constraints(), ENERGY)
    no_cloud = dataclasses.replace(profile, on_edge=profile.on_edge[1:],
                                   crosses=profile.crosses[1:], cut_names=profile.cut_names[1:])
    with pytest.raises(InputError, match="cloud-only cut"):
        price_in_cloud(no_cloud, "raw")
