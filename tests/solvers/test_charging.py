"""Prices against a slow reference that is written from the contract."""

import dataclasses

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.solvers import best_uniform, price
from autosplit.solvers.charging import INPUT_BITS, chooses_bits
from autosplit.solvers.constraints import Constraints
from autosplit.workload import FLOAT_BITS


def random_bits(profile, seed):
    rng = np.random.default_rng(seed)
    per_group = dict(zip(np.unique(profile.weight_group).tolist(),
                         rng.choice(profile.bits, len(np.unique(profile.weight_group))),
                         strict=True))
    w_bits = np.array([per_group[group] for group in profile.weight_group.tolist()])
    return w_bits, rng.choice(profile.bits, len(profile.producer))


def reference(profile, cut, w_bits, a_bits):
    """Adds up one plan with plain loops."""
    bits = profile.bits.tolist()
    last = len(bits) - 1
    free = chooses_bits(profile)
    edge = [i for i in range(len(profile.macs)) if profile.on_edge[cut, i]]
    a = [bits.index(b) if free[t] else last for t, b in enumerate(a_bits)]
    w = [bits.index(b) if profile.has_weight[i] else last for i, b in enumerate(w_bits)]
    total = dict.fromkeys(("edge_s", "pack_s", "unpack_s", "quant_mse", "error"), 0.0)
    tensors, stored = set(), {}
    for i in edge:
        mine = {t for t in range(len(a)) if profile.reads[i, t] or profile.producer[t] == i}
        tensors |= mine
        total["edge_s"] += profile.edge_latency_s[i, w[i], max(a[t] for t in mine)]
        total["quant_mse"] += profile.weight_error[i, w[i]]
        total["error"] += (profile.weight_gain * profile.weight_error)[i, w[i]]
        group = profile.weight_group[i]
        stored[group] = max(stored.get(group, 0), profile.weight_bytes[i, w[i]])
    for t in tensors:
        if profile.producer[t] >= 0:
            total["quant_mse"] += profile.activation_error[t, a[t]]
            total["error"] += (profile.activation_gain * profile.activation_error)[t, a[t]]
    sent = [t for t in range(len(a)) if profile.crosses[cut, t]]
    total["pack_s"] = sum(profile.pack_s[t, a[t]] for t in sent)
    total["unpack_s"] = sum(profile.unpack_s[t, a[t]] for t in sent)
    total["uplink_bytes"] = sum(profile.tensor_bytes[t, a[t]] for t in sent)
    total["weights"] = sum(stored.values())
    total["activation"] = max(profile.tensor_bytes[t, a[t]] for t in tensors)
    return total


@pytest.mark.parametrize("seed", range(20))
def test_price_equals_plain_loops(make_profile, seed):
    profile = make_profile(seed)
    w_bits, a_bits = random_bits(profile, seed)
    network = profile.network
    for cut in range(1, len(profile.on_edge)):
        plan = price(profile, cut=cut, w_bits=w_bits, a_bits=a_bits, label="x")
        expected = reference(profile, cut, w_bits, a_bits)
        assert plan.edge_s == pytest.approx(expected["edge_s"])
        assert plan.pack_s == pytest.approx(expected["pack_s"])
        assert plan.unpack_s == pytest.approx(expected["unpack_s"])
        assert plan.uplink_bytes == expected["uplink_bytes"]
        assert plan.edge_weight_bytes == expected["weights"]
        assert plan.edge_activation_bytes == expected["activation"]
        assert plan.quant_mse == pytest.approx(expected["quant_mse"])
        assert plan.predicted_output_error == pytest.approx(expected["error"])
        assert plan.cloud_s == pytest.approx(
            sum(profile.cloud_latency_s[~profile.on_edge[cut]].tolist()))
        if cut < len(profile.on_edge) - 1:
            assert plan.uplink_s == pytest.approx(network.uplink_s(plan.uplink_bytes))
            assert plan.downlink_s == pytest.approx(network.downlink_s(profile.response_bytes))
            assert plan.round_trip_s == network.round_trip_s
        else:
            assert plan.uplink_s == plan.downlink_s == plan.round_trip_s == 0


def test_a_tensor_with_two_readers_is_sent_once(make_profile):
    profile = next(p for p in map(make_profile, range(100))
                   if ((p.reads.sum(axis=0) > 1) & p.crosses[1:].any(axis=0)).any())
    readers = profile.reads.sum(axis=0)
    cut, tensor = np.argwhere(profile.crosses & (readers > 1) & profile.on_edge.any(1)[:, None])[0]
    w_bits, a_bits = random_bits(profile, 0)
    with_it = price(profile, cut=int(cut), w_bits=w_bits, a_bits=a_bits, label="x")
    crosses = profile.crosses.copy()
    crosses[cut, tensor] = False
    without = price(dataclasses.replace(profile, crosses=crosses), cut=int(cut), w_bits=w_bits,
                    a_bits=a_bits, label="x")
    column = profile.bits.tolist().index(a_bits[tensor]) if chooses_bits(profile)[tensor] else -1
    assert with_it.uplink_bytes - without.uplink_bytes == profile.tensor_bytes[tensor, column]


def test_bits_are_float_where_nothing_is_quantized(make_profile):
    for seed in range(20):
        profile = make_profile(seed)
        w_bits, a_bits = random_bits(profile, seed)
        cut = len(profile.on_edge) // 2 or 1
        plan = price(profile, cut=cut, w_bits=w_bits, a_bits=a_bits, label="x")
        chosen = profile.on_edge[cut] & profile.has_weight
        assert np.array_equal(np.array(plan.w_bits) != FLOAT_BITS, chosen)
        assert np.array_equal(np.array(plan.w_bits)[chosen], w_bits[chosen])
        assert (np.array(plan.weight_ratio)[~chosen] == 1).all()
        whole = np.array(plan.a_bits) == FLOAT_BITS
        assert (np.array(plan.activation_low)[whole] == 0).all()
        sent_inputs = profile.crosses[cut] & (profile.producer < 0)
        assert (np.array(plan.a_bits)[sent_inputs] == INPUT_BITS).all()


def test_integers_keep_their_width(make_profile):
    profile = next(p for p in map(make_profile, range(100))
                   if (~chooses_bits(p) & (p.producer >= 0)).any())
    w_bits, a_bits = random_bits(profile, 0)
    plan = price(profile, cut=len(profile.on_edge) - 1, w_bits=w_bits, a_bits=a_bits, label="x")
    integers = ~chooses_bits(profile) & (profile.producer >= 0)
    assert (np.array(plan.a_bits)[integers] == FLOAT_BITS).all()


def test_cloud_only_is_priced_by_its_encoding(make_profile):
    profile = make_profile(3)
    bits = random_bits(profile, 0)
    for encoding in profile.input_encodings:
        plan = price(profile, cut=0, w_bits=bits[0], a_bits=bits[1], label="x",
                     encoding=encoding.name)
        expected = (encoding.encode_s + profile.network.uplink_s(encoding.payload_bytes)
                    + encoding.decode_s + profile.cloud_latency_s.sum()
                    + profile.network.downlink_s(profile.response_bytes)
                    + profile.network.round_trip_s)
        assert plan.latency_s == pytest.approx(expected)
        assert plan.edge_memory_bytes == 0
        assert plan.error_is_predicted == encoding.lossless
        quantized = np.array(plan.a_bits) != FLOAT_BITS
        assert np.array_equal(quantized, profile.crosses[0] & (encoding.name == "raw"))


def test_bad_arguments_say_what_to_do(make_profile):
    profile = next(p for p in map(make_profile, range(100))
                   if len(np.unique(p.weight_group)) < len(p.macs) and p.has_weight.all())
    w_bits, a_bits = random_bits(profile, 0)
    last = len(profile.on_edge) - 1

    def attempt(cut=last, w=w_bits, a=a_bits, encoding="packed"):
        price(profile, cut=cut, w_bits=w, a_bits=a, label="x", encoding=encoding)

    with pytest.raises(InputError, match="expected one of the"):
        attempt(w=np.full_like(w_bits, 3))
    with pytest.raises(InputError, match="shape"):
        attempt(a=a_bits[:-1])
    with pytest.raises(InputError, match="cloud-only is encoded"):
        attempt(encoding="png")
    with pytest.raises(InputError, match="jpeg-q90"):
        attempt(cut=0)
    group, count = np.unique(profile.weight_group, return_counts=True)
    shared = np.flatnonzero(profile.weight_group == group[count.argmax()])
    differing = w_bits.copy()
    differing[shared[0]] = next(b for b in profile.bits if b != w_bits[shared[1]])
    with pytest.raises(InputError, match="shares its weight"):
        attempt(w=differing)


def test_uniform_is_the_best_cut_within_the_constraints(make_profile):
    for seed in range(10):
        profile = make_profile(seed)
        bits = int(profile.bits[0])
        free = best_uniform(profile, bits, Constraints())
        assert set(free.w_bits) <= {bits, FLOAT_BITS}
        prices = [price(profile, cut=cut, w_bits=np.full(len(profile.macs), bits),
                        a_bits=np.full(len(profile.producer), bits), label="x")
                  for cut in range(1, len(profile.on_edge))]
        assert free.latency_s == min(plan.latency_s for plan in prices)
        limit = min(plan.edge_memory_bytes for plan in prices)
        tight = best_uniform(profile, bits, Constraints(memory_bytes=limit))
        assert tight.edge_memory_bytes == limit
        assert not best_uniform(profile, bits, Constraints(memory_bytes=0)).feasible
