"""`Roofline` against its equation in plain Python."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware import Roofline
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
