"""`Energy` against its equation in plain Python, and against what chips were measured to draw."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware import EYERISS, Energy
from autosplit.workload import Workload, tabulate

BITS = np.arange(1, 33)
coefficient = st.floats(1e-15, 1e-6)
energies = st.builds(
    lambda macs, vector, sram, dram, static: Energy(
        mac_j=macs[0],
        mac_16bit_j=macs[1],
        mac_32bit_j=macs[2],
        vector_op_j=vector,
        sram_byte_j=sram,
        dram_byte_j=dram,
        static_w=static,
    ),
    st.lists(coefficient, min_size=3, max_size=3).map(sorted),
    coefficient,
    coefficient,
    coefficient,
    st.floats(0, 100),
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
WORK = Workload(
    kind="gemm",
    in_channels=10,
    out_channels=20,
    input_elements=10,
    output_elements=20,
    weight_elements=200,
    vector_ops=20,
)
ONE = tabulate([WORK])
NO_TIME = np.zeros((1, 1, 1))


def joules(energy, w_bits=8, a_bits=8, latency_s=NO_TIME, **traffic):
    return float(
        energy.layer_j(ONE, np.array([w_bits]), np.array([a_bits]), latency_s, **traffic)[0, 0, 0]
    )


@settings(max_examples=50)
@given(
    energy=energies,
    work=layers,
    w_bits=st.integers(1, 32),
    a_bits=st.integers(1, 32),
    seconds=st.floats(0, 10),
)
def test_equation(energy, work, w_bits, a_bits, seconds):
    wider = max(w_bits, a_bits)
    mac_j = energy.mac_j
    if wider > 8:
        mac_j = energy.mac_16bit_j
    if wider > 16:
        mac_j = energy.mac_32bit_j
    dram = work.weight_elements * w_bits / 8
    dram += (work.input_elements + work.output_elements) * a_bits / 8
    expected = work.macs * mac_j + work.vector_ops * energy.vector_op_j
    expected += dram * energy.dram_byte_j + 2 * dram * energy.sram_byte_j
    expected += seconds * energy.static_w
    found = energy.layer_j(
        tabulate([work]), np.array([w_bits]), np.array([a_bits]), np.full((1, 1, 1), seconds)
    )
    np.testing.assert_allclose(found, [[[expected]]], rtol=1e-12)


@settings(max_examples=50)
@given(energy=energies, works=st.lists(layers, min_size=1, max_size=4))
def test_energy_never_falls_when_bits_rise(energy, works):
    found = energy.layer_j(tabulate(works), BITS, BITS, np.zeros((len(works), 32, 32)))
    assert found.shape == (len(works), 32, 32)
    # Sums of equal terms may differ in the last bit.
    assert np.all(np.diff(found, axis=1) >= -1e-12 * found[:, 1:])
    assert np.all(np.diff(found, axis=2) >= -1e-12 * found[:, :, 1:])


def test_below_eight_bits_only_data_movement_gets_cheaper():
    arithmetic = Energy(mac_j=3e-12, vector_op_j=1e-12)
    assert joules(arithmetic, 1, 1) == joules(arithmetic, 8, 8)
    movement = Energy(dram_byte_j=1e-10, sram_byte_j=1e-11)
    assert joules(movement, 4, 4) == pytest.approx(joules(movement, 8, 8) / 2)


def test_coefficients_left_out_double_with_the_width():
    energy = Energy(mac_j=1e-12)
    found = [joules(energy, bits, 4) for bits in (8, 9, 16, 17, 32)]
    np.testing.assert_allclose(found, np.array([1, 2, 2, 4, 4]) * WORK.macs * 1e-12)


def test_static_power_is_charged_for_the_latency():
    assert joules(Energy(static_w=3), latency_s=np.full((1, 1, 1), 0.5)) == 1.5


def test_counted_traffic_takes_the_place_of_the_rule():
    energy = Energy(sram_byte_j=1, dram_byte_j=1000)
    assert joules(energy) == 230 * 1002
    assert joules(energy, dram_bytes=500) == 500 * 1002
    assert joules(energy, sram_bytes=7) == 230 * 1000 + 7
    assert joules(energy, sram_bytes=7, dram_bytes=np.full((1, 1, 1), 500)) == 500 * 1000 + 7


def test_moving_is_what_a_layer_of_nothing_else_costs():
    energy = Energy(mac_j=1, sram_byte_j=1e-11, dram_byte_j=1e-10, static_w=2)
    copy = tabulate([Workload(kind="vector", input_elements=600, output_elements=400)])
    as_layer = energy.layer_j(copy, np.array([8]), np.array([8]), np.full((1, 1, 1), 1e-6))
    assert float(energy.move_j(1000, 1e-6)) == pytest.approx(float(as_layer[0, 0, 0]))


def test_no_layers_give_an_empty_array():
    found = Energy(mac_j=1).layer_j(tabulate([]), BITS, BITS[:2], np.zeros((0, 32, 2)))
    assert found.shape == (0, 32, 2)


def test_eyeriss_lies_between_its_parts_and_its_chip():
    # AlexNet's convolutions: 666 million MACs of 16 bits, 278 mW at 35 images a second in 65 nm
    # (Chen et al., JSSC 2017). The coefficients are of 45 nm, without clock and control.
    measured_j = 0.278 / 35 / 666e6
    assert measured_j / 4 < EYERISS.energy.mac_16bit_j < measured_j


def test_eyeriss_keeps_the_published_order_of_costs():
    energy = EYERISS.energy
    word = energy.dram_byte_j / 100  # the energy of a 16-bit MAC
    assert energy.sram_byte_j == pytest.approx(3 * word)
    assert word < energy.mac_16bit_j < energy.sram_byte_j * 2 < energy.dram_byte_j
    # Horowitz has DRAM at 1.3 to 2.6 nJ for eight bytes, buffers of 32 KB to 1 MB at 20 to 100 pJ.
    assert 0.5 < energy.dram_byte_j * 8 / 1.3e-9 < 2
    assert 20e-12 < energy.sram_byte_j * 8 < 100e-12


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Energy)])
@pytest.mark.parametrize("value", [-1e-12, float("nan"), float("inf")])
def test_wrong_coefficients_are_named(field, value):
    with pytest.raises(InputError, match=field):
        Energy(**{"mac_j": 1e-12, field: value})


def test_a_free_device_is_refused():
    with pytest.raises(InputError, match="energy=None"):
        Energy()


@pytest.mark.parametrize(
    "wrong", [{"mac_16bit_j": 0.5}, {"mac_32bit_j": 1.5}, {"mac_16bit_j": 0.0}], ids=str
)
def test_wider_numbers_may_not_be_cheaper(wrong):
    with pytest.raises(InputError, match="wider numbers cheaper"):
        Energy(mac_j=1.0, **wrong)


@pytest.mark.parametrize("argument", ["sram_bytes", "dram_bytes"])
@pytest.mark.parametrize("value", [-1, float("nan"), np.zeros(3)], ids=["negative", "nan", "shape"])
def test_wrong_traffic_is_named(argument, value):
    with pytest.raises(InputError, match=argument):
        joules(Energy(mac_j=1), **{argument: value})


def test_wrong_latency_and_bits_are_named():
    with pytest.raises(InputError, match="latency_s"):
        joules(Energy(mac_j=1), latency_s=np.zeros((1, 2, 1)))
    with pytest.raises(InputError, match="a_bits"):
        joules(Energy(mac_j=1), a_bits=33)
