"""What the devices and the link cost, given errors that are known."""

import dataclasses

import numpy as np
import pytest

from autosplit.hardware import EYERISS, RASPBERRY_PI_5, TPU, Network
from autosplit.profiling.pricing import layer_energy_j, layer_latency_s
from autosplit.profiling.storage import load_profile, save_profile
from autosplit.workload import tabulate


class Plain:
    """A user's device: the four members of `Device`, no energy."""

    name = "plain"
    memory_bytes = None

    def latency_s(self, workloads, w_bits, a_bits):
        return workloads.macs[:, None, None] * np.ones((len(w_bits), len(a_bits))) * 1e-9

    def move_s(self, num_bytes):
        return np.asarray(num_bytes) * 1e-9


@pytest.fixture(scope="module")
def plainly(net, make_profile):
    return make_profile(net.graph, net.params, net.calibration, edge=Plain())


class TestEnergy:
    def test_a_device_without_energy_is_not_known(self, net, plainly):
        assert np.isnan(plainly.edge_energy_j).all()
        assert np.isnan(plainly.pack_j).all()
        assert np.isnan(plainly.unquantized.energy_j).all()
        assert all(np.isnan(encoding.encode_j) for encoding in plainly.input_encodings[1:])

    def test_layers_sum_what_their_workloads_cost(self, net):
        bits = np.array([2, 8])
        found = layer_energy_j(net.graph, EYERISS, bits, bits)
        for index, layer in enumerate(net.graph.layers):
            alone = EYERISS.energy_j(tabulate(layer.workloads), bits, bits).sum(axis=0)
            expected = alone if layer.weight is not None else np.broadcast_to(alone[-1], (2, 2))
            np.testing.assert_allclose(found[index], expected)

    def test_fewer_bits_never_cost_more(self, profiled):
        assert (np.diff(profiled.edge_energy_j, axis=1) >= 0).all()
        assert (np.diff(profiled.edge_energy_j, axis=2) >= 0).all()


class TestUnquantized:
    def test_is_the_device_at_16_bits(self, net, profiled):
        wide = layer_latency_s(net.graph, EYERISS, [16], [16])[:, 0, 0]
        np.testing.assert_array_equal(profiled.unquantized.latency_s, wide)
        assert profiled.unquantized.bits == 16

    def test_is_never_cheaper_than_8_bits(self, profiled):
        wide = profiled.unquantized
        assert (wide.latency_s >= profiled.edge_latency_s[:, -1, -1]).all()
        assert (wide.energy_j >= profiled.edge_energy_j[:, -1, -1]).all()

    def test_numbers_take_two_bytes_and_pixels_one(self, net, profiled):
        for index, tensor in enumerate(net.graph.tensors):
            width = 1 if tensor.producer < 0 else 2
            assert profiled.unquantized.tensor_bytes[index] == width * tensor.size
        for index, layer in enumerate(net.graph.layers):
            if layer.weight is not None:
                bias = 4 * layer.weight.channels * layer.has_bias
                expected = 2 * layer.weight.size + bias + layer.constant_bytes
                assert profiled.unquantized.weight_bytes[index] == expected


def test_listed_cuts_are_closed_to_solvers(net, profiled, make_profile):
    assert not profiled.open_cuts
    chosen = make_profile(net.graph, net.params, net.calibration, cuts=net.graph.cuts()[:2])
    assert not chosen.open_cuts


def test_a_profile_is_kept_whole(tmp_path, net, make_profile):
    edge = dataclasses.replace(RASPBERRY_PI_5, energy=None)
    network = Network(uplink_bits_per_s=1e6, uplink_j_per_bit=1e-7)
    profile = make_profile(net.graph, net.params, net.calibration, edge=edge, cloud=TPU,
                           network=network)  # fmt: skip
    save_profile(profile, tmp_path / "profile.npz")
    again = load_profile(tmp_path / "profile.npz")
    for field in dataclasses.fields(profile):
        if field.name not in ("unquantized", "input_encodings"):
            np.testing.assert_equal(getattr(again, field.name), getattr(profile, field.name))
    pairs = zip(profile.input_encodings, again.input_encodings, strict=True)
    for one, other in ((profile.unquantized, again.unquantized), *pairs):
        np.testing.assert_equal(dataclasses.asdict(other), dataclasses.asdict(one))
