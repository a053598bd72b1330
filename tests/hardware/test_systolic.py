"""`Systolic`: its bounds, what each kind of layer costs, and its traffic."""

import dataclasses
import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware import EYERISS, TPU
from autosplit.hardware.energy import Energy
from autosplit.hardware.spec import PoweredDevice
from autosplit.hardware.systolic import Systolic, stalled_s
from autosplit.hardware.systolic_counts import Dataflow
from autosplit.hardware.systolic_presets import (
    ALL,
    EYERISS_SYSTOLIC,
    SCALE_SYSTOLIC,
    TPU_SYSTOLIC,
)
from autosplit.workload import Workload, tabulate
from experiments.scalesim_reference import ALEXNET_CONV1
from experiments.scalesim_speed import workload_of

BITS = np.array([1, 2, 4, 7, 8, 9, 16, 17, 32])


layers = functools.partial(st.from_type, Workload)


devices = st.builds(
    lambda rows, columns, dataflow, srams, bandwidth, stalls: Systolic(
        name="drawn",
        rows=rows,
        columns=columns,
        dataflow=dataflow,
        clock_hz=1e3,
        ifmap_sram_bytes=srams[0],
        filter_sram_bytes=srams[1],
        ofmap_sram_bytes=srams[2],
        memory_bytes_per_s=bandwidth,
        stalls=stalls,
    ),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(Dataflow),
    st.lists(st.integers(50, 900), min_size=3, max_size=3),
    st.floats(100, 1e5),
    st.booleans(),
)


@settings(max_examples=60)
@given(device=devices, works=st.lists(layers(), min_size=1, max_size=4))
def test_latency_and_traffic_never_fall_when_bits_rise(device, works):
    table, bits = tabulate(works), np.arange(1, 33)
    for prices in (device.latency_s(table, bits, bits), *device.traffic_bytes(table, bits, bits)):
        assert prices.shape == (len(works), 32, 32)
        assert np.all(prices >= 0)
        assert np.all(np.diff(prices, axis=1) >= 0)
        assert np.all(np.diff(prices, axis=2) >= 0)


@settings(max_examples=40)
@given(device=devices, works=st.lists(layers(), min_size=1, max_size=4))
def test_layers_and_bits_are_priced_independently(device, works):
    together = device.latency_s(tabulate(works), BITS, BITS[:3])
    assert together.shape == (len(works), len(BITS), 3)
    for row, work in enumerate(works):
        alone = device.latency_s(tabulate([work]), BITS[4:5], BITS[1:2])
        assert together[row, 4, 1] == alone[0, 0, 0]


@settings(max_examples=60)
@given(device=devices, work=layers(), w_bits=st.integers(1, 32), a_bits=st.integers(1, 32))
def test_stalls_stay_within_their_bounds(device, work, w_bits, a_bits):
    arguments = tabulate([work]), np.array([w_bits]), np.array([a_bits])
    free = float(dataclasses.replace(device, stalls=False).latency_s(*arguments)[0, 0, 0])
    stalled = float(dataclasses.replace(device, stalls=True).latency_s(*arguments)[0, 0, 0])
    transfer = float(device.move_s(device.traffic_bytes(*arguments)[1])[0, 0, 0])
    slack = 1 + 1e-12
    assert max(free, transfer) <= stalled * slack
    assert stalled <= (free + transfer) * slack


@settings(max_examples=60)
@given(
    compute=st.floats(0, 100), transfer=st.floats(0, 100), folds=st.integers(1, 50)
)
def test_stalled_time_is_that_of_two_stages_run_fold_by_fold(compute, transfer, folds):
    loaded = computed = 0.0
    for _ in range(folds):
        loaded += transfer / folds
        computed = max(loaded, computed) + compute / folds
    assert stalled_s(compute, transfer, folds) == pytest.approx(computed, rel=1e-9, abs=1e-12)


def seconds(device, work, w_bits=8, a_bits=8):
    return float(
        device.latency_s(tabulate([work]), np.array([w_bits]), np.array([a_bits]))[0, 0, 0]
    )


def dram_bytes(device, work, w_bits=8, a_bits=8):
    bits = np.array([w_bits]), np.array([a_bits])
    return float(device.traffic_bytes(tabulate([work]), *bits)[1][0, 0, 0])


def gemm(rows, depth, columns, **fields):
    return Workload(
        kind="gemm",
        in_height=rows,
        in_channels=depth,
        out_height=rows,
        out_channels=columns,
        input_elements=rows * depth,
        output_elements=rows * columns,
        **{"weight_elements": depth * columns} | fields,
    )


STALL_FREE = dataclasses.replace(SCALE_SYSTOLIC, stalls=False)


def test_stall_free_time_is_scalesims_cycles_per_pass():
    work = workload_of(ALEXNET_CONV1)
    cycle_s = 1 / STALL_FREE.clock_hz
    assert seconds(STALL_FREE, work) == pytest.approx(112_283 * cycle_s)
    assert seconds(STALL_FREE, work, 2, 4) == pytest.approx(112_283 * cycle_s)
    assert seconds(STALL_FREE, work, 16, 4) == pytest.approx(2 * 112_283 * cycle_s)
    assert seconds(STALL_FREE, work, 8, 32) == pytest.approx(4 * 112_283 * cycle_s)


def test_groups_and_repeats_run_one_after_the_other():
    dense = Workload(kind="conv", in_height=8, in_width=8, in_channels=4, out_height=8, out_width=8,
                     out_channels=6, kernel_height=3, kernel_width=3)  # fmt: skip
    grouped = dataclasses.replace(dense, in_channels=20, out_channels=30, groups=5)
    assert seconds(STALL_FREE, grouped) == pytest.approx(5 * seconds(STALL_FREE, dense))
    repeated = dataclasses.replace(dense, repeat=3)
    assert seconds(STALL_FREE, repeated) == pytest.approx(3 * seconds(STALL_FREE, dense))


def test_a_batch_shares_the_loading_of_weights():
    one, eight = gemm(64, 256, 64), dataclasses.replace(gemm(64, 256, 64), batch=8)
    assert seconds(STALL_FREE, eight) < 8 * seconds(STALL_FREE, one)
    rows = gemm(8 * 64, 256, 64)
    assert seconds(STALL_FREE, eight) == seconds(STALL_FREE, rows)


def test_a_transposed_convolution_skips_the_inserted_zeros():
    plain = Workload(kind="conv", in_height=10, in_width=10, in_channels=32, out_height=10,
                     out_width=10, out_channels=32, kernel_height=2, kernel_width=2)  # fmt: skip
    larger = {"out_height": 20, "out_width": 20, "kernel_height": 4, "kernel_width": 4}
    transposed = dataclasses.replace(plain, **larger, upsample_height=2, upsample_width=2)
    assert transposed.macs == 4 * plain.macs
    assert seconds(STALL_FREE, transposed) == pytest.approx(4 * seconds(STALL_FREE, plain))


def test_padding_and_dilation_cost_no_memory_traffic():
    same = Workload(kind="conv", in_height=8, in_width=8, in_channels=16, out_height=8, out_width=8,
                    out_channels=16, kernel_height=3, kernel_width=3, input_elements=1024,
                    output_elements=1024, weight_elements=9 * 256)  # fmt: skip
    assert dram_bytes(SCALE_SYSTOLIC, same) == 1024 + 1024 + 9 * 256
    dilated = dataclasses.replace(same, dilation_height=2, dilation_width=2)
    assert dram_bytes(SCALE_SYSTOLIC, dilated) == dram_bytes(SCALE_SYSTOLIC, same)
    assert seconds(STALL_FREE, dilated) == seconds(STALL_FREE, same)


def test_below_eight_bits_only_traffic_shrinks():
    work = gemm(64, 256, 64)
    assert dram_bytes(SCALE_SYSTOLIC, work, 8, 8) == 64 * 256 * 2 + 64 * 64
    assert dram_bytes(SCALE_SYSTOLIC, work, 2, 4) == 256 * 64 / 4 + (64 * 256 + 64 * 64) / 2
    assert seconds(STALL_FREE, work, 2, 4) == seconds(STALL_FREE, work)


def test_a_second_operand_that_is_data_moves_at_activation_bits():
    product = gemm(64, 256, 32, weight_elements=0)
    product = dataclasses.replace(product, input_elements=64 * 256 + 256 * 32)
    elements = 64 * 256 + 256 * 32 + 64 * 32
    assert dram_bytes(SCALE_SYSTOLIC, product, 2, 8) == elements
    assert dram_bytes(SCALE_SYSTOLIC, product, 8, 4) == elements / 2


def test_biases_and_summands_beside_the_product_are_charged():
    work = gemm(64, 256, 64)
    more = dataclasses.replace(work, weight_elements=256 * 64 + 64, input_elements=64 * 256 + 4096)
    extra = dram_bytes(SCALE_SYSTOLIC, more) - dram_bytes(SCALE_SYSTOLIC, work)
    assert extra == 64 + 4096
    skipped = Workload(kind="conv", in_height=8, in_width=8, in_channels=4, out_height=4,
                       out_width=4, out_channels=4, stride_height=2, stride_width=2,
                       input_elements=256, output_elements=64, weight_elements=16)  # fmt: skip
    assert dram_bytes(SCALE_SYSTOLIC, skipped) == 64 + 16 + 64  # unread pixels are no summand


def test_large_operands_are_read_once_per_pass():
    # 64 KiB of ifmap do not fit half of the SRAM at 8 bits; at 2 bits they do.
    work = gemm(256, 256, 64)
    assert dram_bytes(SCALE_SYSTOLIC, work) == 2 * 65_536 + 16_384 + 16_384
    assert dram_bytes(SCALE_SYSTOLIC, work, 8, 2) == (65_536 + 16_384) / 4 + 16_384


def test_vector_layers_cost_their_traffic_or_the_vector_rate():
    add = Workload(kind="vector", input_elements=2000, output_elements=1000, vector_ops=1000)
    assert seconds(SCALE_SYSTOLIC, add) == pytest.approx(3000 / 10e9)
    softmax = dataclasses.replace(add, vector_ops=32_000)
    assert seconds(SCALE_SYSTOLIC, softmax) == pytest.approx(1000 / 1e9)
    slower = dataclasses.replace(SCALE_SYSTOLIC, vector_ops_per_cycle=1)
    assert seconds(slower, softmax) == pytest.approx(32_000 / 1e9)
    assert SCALE_SYSTOLIC.move_s(3000) == pytest.approx(3000 / 10e9)


@pytest.mark.parametrize("device", ALL, ids=lambda device: device.name)
def test_large_products_approach_the_peak(device):
    fast = dataclasses.replace(device, memory_bytes_per_s=1e15)
    work = gemm(1_000_000, 4 * device.rows, 4 * device.columns)
    peak = device.rows * device.columns * device.clock_hz
    assert isinstance(device, PoweredDevice)
    assert 0.98 < work.macs / seconds(fast, work) / peak <= 1


def test_presets_have_the_multipliers_of_the_tile_model():
    for systolic, tiled in ((EYERISS_SYSTOLIC, EYERISS), (TPU_SYSTOLIC, TPU)):
        assert systolic.rows * systolic.columns == tiled.macs_per_cycle


def test_energy_charges_the_counted_traffic():
    table, bits = tabulate([gemm(64, 256, 64)]), np.array([8])
    sram, dram = EYERISS_SYSTOLIC.traffic_bytes(table, bits, bits)
    per_byte = Energy(sram_byte_j=3.0, dram_byte_j=100.0)
    device = dataclasses.replace(EYERISS_SYSTOLIC, energy=per_byte)
    np.testing.assert_allclose(device.energy_j(table, bits, bits), 3 * sram + 100 * dram)
    assert device.move_j(1000) == per_byte.move_j(1000, device.move_s(1000))
    unknown = dataclasses.replace(device, energy=None)
    assert np.all(np.isnan(unknown.energy_j(table, bits, bits)))
    assert np.isnan(unknown.move_j(1000))


def test_sram_traffic_is_that_of_the_array_and_of_the_dram():
    # One fold each way over 64 columns of 32, 8 row folds of 32: seven partial sums an output.
    table, bits = tabulate([gemm(64, 256, 64)]), np.array([8])
    sram, dram = SCALE_SYSTOLIC.traffic_bytes(table, bits, bits)
    streamed, weights, outputs = 2 * 64 * 256, 256 * 64, 64 * 64
    partial_sums = 7 * outputs * 4 * 2
    assert sram[0, 0, 0] == streamed + weights + outputs + partial_sums + dram[0, 0, 0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rows", 0, r"rows is 0; expected a finite number above 0"),
        ("columns", 2.5, r"columns is 2.5; expected a whole number"),
        ("memory_bytes_per_s", -1.0, r"memory_bytes_per_s is -1.0; expected"),
        ("dataflow", "row", r"dataflow is 'row'; expected a member of Dataflow: OUTPUT_STATIONARY"),
        ("clock_hz", math.inf, r"clock_hz is inf; expected"),
    ],
)
def test_wrong_fields_are_refused(field, value, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SCALE_SYSTOLIC, **{field: value})


def test_wrong_bits_are_refused():
    with pytest.raises(InputError, match="w_bits"):
        SCALE_SYSTOLIC.latency_s(tabulate([gemm(2, 2, 2)]), np.array([0]), np.array([8]))
