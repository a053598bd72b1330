"""All cuts at once against one cut at a time, and the unquantized edge against plain loops."""

import dataclasses

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.solvers import Constraints, Objective
from autosplit.solvers.charging import PACKED, PLAIN, Charges, price
from autosplit.solvers.fixed_bits import (
    best_cut,
    charge_cuts,
    price_fixed,
    uniform_bits,
    unquantized_bits,
)
from autosplit.workload import FLOAT_BITS

STAGES = ("edge_s", "pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s", "round_trip_s",
          "uplink_bytes", "downlink_bytes", "edge_weight_bytes", "edge_activation_bytes",
          "quant_mse", "predicted_output_error", "edge_j", "pack_j", "uplink_j", "downlink_j")


def with_radio(profile):
    network = dataclasses.replace(profile.network, uplink_j_per_bit=1e-7, downlink_j_per_bit=5e-8)
    return dataclasses.replace(profile, network=network)


def splits(profile):
    return np.arange(1, len(profile.on_edge))


@pytest.mark.parametrize("encoding", [PACKED, PLAIN])
@pytest.mark.parametrize("seed", range(15))
def test_uniform_charges_equal_the_price_of_each_cut(make_profile, seed, encoding):
    profile = with_radio(make_profile(seed))
    for bits in profile.bits.tolist():
        fixed = uniform_bits(profile, bits, encoding)
        charges = charge_cuts(profile, fixed, splits(profile))
        for row, cut in enumerate(splits(profile).tolist()):
            plan = price(profile, cut=cut, w_bits=np.full(len(profile.macs), bits), label="x",
                         a_bits=np.full(len(profile.producer), bits), encoding=encoding)
            for stage in STAGES:
                assert getattr(charges, stage)[row] == pytest.approx(getattr(plan, stage)), stage
            assert price_fixed(profile, fixed, cut, "x") == plan


@pytest.mark.parametrize("seed", range(15))
def test_an_unquantized_edge_equals_plain_loops(make_profile, seed):
    profile = with_radio(make_profile(seed))
    plain, network = profile.unquantized, profile.network
    for cut in splits(profile).tolist():
        plan = price_fixed(profile, unquantized_bits(profile), cut, "float")
        edge = np.flatnonzero(profile.on_edge[cut]).tolist()
        sent = np.flatnonzero(profile.crosses[cut]).tolist()
        held = [t for t in range(len(profile.producer)) if profile.touches[edge, t].any()]
        stored = {}
        for layer in edge:
            group = profile.weight_group[layer]
            stored[group] = max(stored.get(group, 0), plain.weight_bytes[layer])
        assert plan.edge_s == pytest.approx(sum(plain.latency_s[i] for i in edge))
        assert plan.edge_j == pytest.approx(sum(plain.energy_j[i] for i in edge))
        for name in ("pack_s", "unpack_s", "pack_j"):
            assert getattr(plan, name) == pytest.approx(sum(getattr(plain, name)[t] for t in sent))
        assert plan.uplink_bytes == sum(plain.tensor_bytes[t] for t in sent)
        assert plan.edge_weight_bytes == sum(stored.values())
        assert plan.edge_activation_bytes == max(plain.tensor_bytes[t] for t in held)
        assert plan.quant_mse == plan.predicted_output_error == 0
        remote = cut < len(profile.on_edge) - 1
        assert plan.uplink_s == pytest.approx(remote * network.uplink_s(plan.uplink_bytes))
        assert plan.uplink_j == pytest.approx(remote * network.uplink_j(plan.uplink_bytes))
        assert plan.round_trip_s == remote * network.round_trip_s


def test_an_unquantized_plan_says_so(make_profile):
    for seed in range(15):
        profile = make_profile(seed)
        for cut in splits(profile).tolist():
            plan = price_fixed(profile, unquantized_bits(profile), cut, "float")
            assert plan.encoding == PLAIN
            assert set(plan.w_bits) == {FLOAT_BITS}
            made = profile.producer >= 0
            assert set(np.array(plan.a_bits)[made].tolist()) == {FLOAT_BITS}
            sent_inputs = profile.crosses[cut] & ~made
            assert set(np.array(plan.a_bits)[sent_inputs].tolist()) <= {8}
            assert set(np.array(plan.activation_low)[made].tolist()) == {0.0}


def test_plain_transmission_changes_the_way_and_not_the_edge(make_profile):
    """Packed against plain: the same edge and errors, other bytes on the link."""
    for seed in range(15):
        profile = make_profile(seed)
        bits = int(profile.bits[0])
        for cut in splits(profile)[:-1].tolist():
            packed, plain = (price_fixed(profile, uniform_bits(profile, bits, encoding), cut, "x")
                             for encoding in (PACKED, PLAIN))
            for same in ("edge_s", "cloud_s", "edge_j", "quant_mse", "edge_memory_bytes",
                         "w_bits", "a_bits", "downlink_s"):
                assert getattr(packed, same) == getattr(plain, same)
            sent = profile.crosses[cut]
            assert plain.uplink_bytes == profile.unquantized.tensor_bytes[sent].sum()
            assert packed.uplink_bytes <= plain.uplink_bytes
    assert packed.encoding != plain.encoding


def test_unknown_energies_stay_unknown_only_where_they_count(make_profile):
    profile = make_profile(0)
    network = dataclasses.replace(profile.network, uplink_j_per_bit=None, downlink_j_per_bit=None)
    profile = dataclasses.replace(profile, network=network)
    charges = charge_cuts(profile, unquantized_bits(profile), splits(profile))
    assert np.isnan(charges.energy_j[:-1]).all()
    assert np.isfinite(charges.energy_j[-1])  # edge-only uses no link
    plan = price_fixed(profile, unquantized_bits(profile), 1, "x")
    assert plan.uplink_j is None
    assert plan.energy_j is None
    joules = profile.unquantized.energy_j.copy()
    joules[-1] = np.nan
    wide = dataclasses.replace(profile.unquantized, energy_j=joules)
    partly = dataclasses.replace(profile, unquantized=wide)
    edge_j = charge_cuts(partly, unquantized_bits(partly), splits(profile)).edge_j
    assert np.array_equal(np.isnan(edge_j), profile.on_edge[1:, -1])


def test_best_cut_is_the_cheapest_that_keeps_the_constraints(make_profile):
    for seed in range(15):
        profile = with_radio(make_profile(seed))
        fixed = unquantized_bits(profile)
        plans = [price_fixed(profile, fixed, int(cut), "x") for cut in splits(profile)]
        for objective, name in ((Objective(), "latency_s"),
                                (Objective(latency_weight=0.0, energy_weight=1.0), "energy_j")):
            best = best_cut(profile, fixed, splits(profile), Constraints(), "x", objective)
            values = [getattr(plan, name) for plan in plans]
            assert getattr(best, name) == pytest.approx(min(values))
        memory = float(np.median([plan.edge_memory_bytes for plan in plans]))
        kept = best_cut(profile, fixed, splits(profile), Constraints(memory_bytes=memory), "x")
        assert kept.feasible
        assert kept.latency_s == pytest.approx(min(
            plan.latency_s for plan in plans if plan.edge_memory_bytes <= memory))
        none = best_cut(profile, fixed, splits(profile), Constraints(memory_bytes=0), "x")
        assert "memory_bytes" in none.reason
        assert not none.feasible


def test_bad_arguments_say_what_to_do(make_profile):
    profile = make_profile(0)
    with pytest.raises(InputError, match="candidates"):
        uniform_bits(profile, 3)
    with pytest.raises(InputError, match="'packed' or 'plain'"):
        uniform_bits(profile, int(profile.bits[0]), "png")
    with pytest.raises(InputError, match="no layer on the edge"):
        price_fixed(profile, unquantized_bits(profile), 0, "x")
    with pytest.raises(InputError, match="no cut for 'x'"):
        best_cut(profile, unquantized_bits(profile), np.array([], dtype=int), Constraints(), "x")
    unknown = dataclasses.replace(profile, edge_energy_j=profile.edge_energy_j * np.nan)
    with pytest.raises(InputError, match="states none"):
        best_cut(unknown, unquantized_bits(unknown), splits(unknown), Constraints(), "x",
                 Objective(energy_weight=1.0))


def test_charges_name_what_constraints_limit(make_profile):
    profile = make_profile(0)
    charges = charge_cuts(profile, unquantized_bits(profile), splits(profile))
    assert isinstance(charges, Charges)
    assert set(charges.costs()) == {field.name for field in dataclasses.fields(Constraints)}
