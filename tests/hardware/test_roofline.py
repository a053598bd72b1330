"""`Roofline` against its equation in plain Python."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware import Energy, Roofline
from autosplit.hardware.spec import PoweredDevice
from autosplit.workload import Workload, tabulate

PLAIN = Roofline(name="plain", macs_per_s=1e9, vector_ops_per_s=2e8, memory_bytes_per_s=3e7)

rate = st.floats(1e3, 1e12)
devices = st.builds(
    lambda rates, vector, memory, overhead: Roofline(
        name="drawn",
        macs_per_s=rates[2],
        macs_16bit_per_s=rates[1],
        macs_32bit_per_s=rates[0],
        vector_ops_per_s=vector,
        memory_bytes_per_s=memory,
        overhead_s=overhead,
    ),
    st.lists(rate, min_size=3, max_size=3).map(sorted),
    rate,
    rate,
    st.floats(0, 1e-3),
)
count = st.integers(0, 10**6)
layers = st.builds(
    Workload,
    kind=st.sampled_from(["gemm", "vector"]),
    in_channels=st.integers(1, 500),
    out_channels=st.integers(1, 500),
    input_elements=count,
    output_elements=count,
    weight_elements=count,
    vector_ops=count,
)


@settings(max_examples=50)
@given(device=devices, work=layers, w_bits=st.integers(1, 32), a_bits=st.integers(1, 32))
def test_equation(device, work, w_bits, a_bits):
    wider = max(w_bits, a_bits)
    peak = device.macs_per_s
    if wider > 8:
        peak = device.macs_16bit_per_s
    if wider > 16:
        peak = device.macs_32bit_per_s
    num_bytes = work.weight_elements * w_bits / 8
    num_bytes += (work.input_elements + work.output_elements) * a_bits / 8
    slowest = max(
        work.macs / peak,
        work.vector_ops / device.vector_ops_per_s,
        num_bytes / device.memory_bytes_per_s,
    )
    found = device.latency_s(tabulate([work]), np.array([w_bits]), np.array([a_bits]))
    np.testing.assert_allclose(found, [[[device.overhead_s + slowest]]], rtol=1e-12)


@settings(max_examples=50)
@given(device=devices, works=st.lists(layers, min_size=1, max_size=4))
def test_latency_never_falls_when_bits_rise(device, works):
    latency = device.latency_s(tabulate(works), np.arange(1, 33), np.arange(1, 33))
    assert latency.shape == (len(works), 32, 32)
    assert np.all(np.diff(latency, axis=1) >= 0)
    assert np.all(np.diff(latency, axis=2) >= 0)


def test_rates_left_out_follow_the_eight_bit_rate():
    work = tabulate([Workload(kind="gemm", in_channels=1000, out_channels=1000)])
    latency = PLAIN.latency_s(work, np.array([1, 8, 9, 16, 17, 32]), np.array([8]))
    np.testing.assert_allclose(latency[0, :, 0], [1e-3, 1e-3, 2e-3, 2e-3, 4e-3, 4e-3])


def test_move_s_takes_arrays_and_numbers():
    np.testing.assert_allclose(PLAIN.move_s(np.array([0, 3e7])), [0, 1])
    assert float(PLAIN.move_s(6e7)) == 2


@settings(max_examples=50)
@given(
    device=devices,
    works=st.lists(layers, min_size=1, max_size=4),
    watts=st.floats(1e-3, 1e3),
)
def test_power_alone_is_energy_over_time(device, works, watts):
    # "Derived: board power over peak rate" is this, for layers that reach the peak.
    powered = dataclasses.replace(device, energy=Energy(static_w=watts))
    arguments = (tabulate(works), np.arange(1, 33), np.arange(1, 17))
    np.testing.assert_allclose(
        powered.energy_j(*arguments), watts * powered.latency_s(*arguments), rtol=1e-12
    )
    np.testing.assert_allclose(powered.move_j([0, 1e6]), watts * powered.move_s([0, 1e6]))


@settings(max_examples=50)
@given(device=devices, works=st.lists(layers, min_size=1, max_size=4))
def test_energy_never_falls_when_bits_rise(device, works):
    energy = Energy(mac_j=1e-12, vector_op_j=1e-12, dram_byte_j=1e-10, static_w=0.5)
    powered = dataclasses.replace(device, energy=energy)
    found = powered.energy_j(tabulate(works), np.arange(1, 33), np.arange(1, 33))
    assert found.shape == (len(works), 32, 32)
    # Sums of equal terms may differ in the last bit.
    assert np.all(np.diff(found, axis=1) >= -1e-12 * found[:, 1:])
    assert np.all(np.diff(found, axis=2) >= -1e-12 * found[:, :, 1:])


def test_energy_prices_the_same_traffic_as_the_latency():
    copy = tabulate([Workload(kind="vector", input_elements=600, output_elements=400)])
    device = dataclasses.replace(PLAIN, energy=Energy(dram_byte_j=1e-10))
    bits = np.array([1, 4, 8, 16])
    moved_bytes = device.latency_s(copy, bits[:1], bits) * device.memory_bytes_per_s
    np.testing.assert_allclose(device.energy_j(copy, bits[:1], bits), moved_bytes * 1e-10)
    np.testing.assert_allclose(
        device.move_j(moved_bytes), device.energy_j(copy, bits[:1], bits), rtol=1e-12
    )


def test_energy_left_out_is_not_known():
    assert isinstance(PLAIN, PoweredDevice)
    found = PLAIN.energy_j(tabulate([Workload(kind="gemm")] * 2), np.array([4, 8]), np.array([8]))
    assert found.shape == (2, 2, 1)
    assert np.isnan(found).all()
    assert np.isnan(PLAIN.move_j(np.zeros((3, 1)))).tolist() == [[True]] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"macs_per_s": 0.0},
        {"vector_ops_per_s": -1.0},
        {"memory_bytes_per_s": float("nan")},
        {"macs_16bit_per_s": 0.0},
        {"overhead_s": -1e-6},
        {"overhead_s": float("nan")},
        {"memory_bytes": -1.0},
    ],
    ids=str,
)
def test_wrong_fields_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(PLAIN, **wrong)


@pytest.mark.parametrize("wrong", [{"macs_16bit_per_s": 2e9}, {"macs_32bit_per_s": 6e8}], ids=str)
def test_wider_numbers_may_not_be_faster(wrong):
    with pytest.raises(InputError, match="wider numbers faster"):
        dataclasses.replace(PLAIN, **wrong)


def test_wrong_bits_are_named():
    with pytest.raises(InputError, match="w_bits"):
        PLAIN.latency_s(tabulate([]), np.array([0]), np.array([8]))
