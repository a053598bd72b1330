"""The closed form of `Tiled` against a loop over every tile, and against published peaks."""

import dataclasses
import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware import EYERISS, TPU, Energy, Tiled
from autosplit.hardware.spec import PoweredDevice
from autosplit.workload import Workload, tabulate

SMALL = Tiled(
    name="small", clock_hz=1.0, tile_height=5, tile_width=3, tile_channels=4, tile_filters=3,
    macs_per_cycle=24, dma_cycles_per_byte=0.7, adds_per_cycle=2,
)  # fmt: skip
BITS = np.array([1, 2, 4, 8, 9, 16, 32])


def windows(outputs, size, kernel, stride, dilation, upsample, tile):
    """Yields (output pixels, stored input pixels) of each tile along one axis."""
    reach = dilation * (kernel - 1) + 1
    start = 0
    while start < outputs:
        end = start + 1
        # Grow while the window, counted in pixels with zeros inserted, fits the tile's own.
        while end < outputs and end * stride - start * stride + reach <= tile * upsample:
            end += 1
        stretched = range((end - 1 - start) * stride + reach)
        stored = len([pixel for pixel in stretched if pixel % upsample == 0])
        yield end - start, min(stored, size)
        start = end


def channel_tiles(work, device):
    """Yields (input channels, whether they add to earlier ones) of each tile."""
    channels, filters = work.in_channels // work.groups, work.out_channels // work.groups
    group = 0
    while group < work.groups:
        together = 1
        while (
            group + together < work.groups
            and (together + 1) * channels <= device.tile_channels
            and (together + 1) * filters <= device.tile_filters
        ):
            together += 1
        group += together
        for start in range(0, together * channels, device.tile_channels):
            end = min(start + device.tile_channels, together * channels)
            yield end - start, start > 0


def looped_seconds(device, work, w_bits, a_bits):
    """Latency of one layer, one tile after the other, in plain Python."""
    dma = device.dma_cycles_per_byte
    cycles = dma * work.weight_elements * w_bits / 8
    extra = work.input_elements
    if work.kind != "vector":
        image = work.in_height * work.in_width * work.in_channels
        extra = max(0, extra - work.batch * work.repeat * image)
    cycles += dma * extra * a_bits / 8
    calls = 0 if work.kind == "vector" else work.batch * work.repeat
    filters = work.out_channels // work.groups
    rows = [getattr(work, f"{n}_height") for n in ("kernel", "stride", "dilation", "upsample")]
    columns = [getattr(work, f"{n}_width") for n in ("kernel", "stride", "dilation", "upsample")]
    lanes = device.macs_per_cycle // device.tile_channels // device.tile_filters
    for _ in range(calls):
        for height, in_height in windows(
            work.out_height, work.in_height, *rows, device.tile_height
        ):
            for width, in_width in windows(
                work.out_width, work.in_width, *columns, device.tile_width
            ):
                for channels, accumulates in channel_tiles(work, device):
                    busy = 0
                    for _ in range(0, filters, device.tile_filters):
                        for _ in range(0, height * width, lanes):
                            for _ in range(0, rows[0], rows[3]):
                                for _ in range(0, columns[0], columns[3]):
                                    busy += math.ceil(max(w_bits, a_bits) / 8)
                    if accumulates:
                        busy += math.ceil(height * width * filters / device.adds_per_cycle)
                    cycles += max(dma * channels * in_height * in_width * a_bits / 8, busy)
    return max(cycles, dma * work.output_elements * a_bits / 8) / device.clock_hz


def looped_bytes(device, work, w_bits, a_bits):
    """What `looped_seconds` streams, and the output."""
    elements = work.input_elements
    if work.kind != "vector":
        image = work.in_height * work.in_width * work.in_channels
        elements = max(0, elements - work.batch * work.repeat * image)
    calls = 0 if work.kind == "vector" else work.batch * work.repeat
    rows = [getattr(work, f"{n}_height") for n in ("kernel", "stride", "dilation", "upsample")]
    columns = [getattr(work, f"{n}_width") for n in ("kernel", "stride", "dilation", "upsample")]
    for _, height in windows(work.out_height, work.in_height, *rows, device.tile_height):
        for _, width in windows(work.out_width, work.in_width, *columns, device.tile_width):
            for channels, _ in channel_tiles(work, device):
                elements += calls * channels * height * width
    elements += work.output_elements
    return (work.weight_elements * w_bits + elements * a_bits) / 8


layers = functools.partial(st.from_type, Workload)
devices = st.builds(
    lambda height, width, channels, filters, lanes, adds, dma: Tiled(
        name="drawn",
        clock_hz=1e3,
        tile_height=height,
        tile_width=width,
        tile_channels=channels,
        tile_filters=filters,
        macs_per_cycle=channels * filters * lanes,
        dma_cycles_per_byte=dma,
        adds_per_cycle=adds,
    ),
    *[st.integers(1, 6) for _ in range(6)],
    st.floats(0.01, 10),
)


@settings(max_examples=60)
@given(device=devices, work=layers(), w_bits=st.integers(1, 32), a_bits=st.integers(1, 32))
def test_closed_form_equals_loop_over_tiles(device, work, w_bits, a_bits):
    found = device.latency_s(tabulate([work]), np.array([w_bits]), np.array([a_bits]))
    expected = looped_seconds(device, work, w_bits, a_bits)
    np.testing.assert_allclose(found[0, 0, 0], expected, rtol=1e-12)


@settings(max_examples=40)
@given(device=devices, works=st.lists(layers(), min_size=1, max_size=4))
def test_layers_and_bits_are_priced_independently(device, works):
    together = device.latency_s(tabulate(works), BITS, BITS[:3])
    assert together.shape == (len(works), len(BITS), 3)
    for row, work in enumerate(works):
        alone = device.latency_s(tabulate([work]), BITS[4:5], BITS[1:2])
        assert together[row, 4, 1] == alone[0, 0, 0]


@settings(max_examples=60)
@given(device=devices, works=st.lists(layers(), min_size=1, max_size=4))
def test_latency_never_falls_when_bits_rise(device, works):
    latency = device.latency_s(tabulate(works), np.arange(1, 33), np.arange(1, 33))
    assert np.all(latency >= 0)
    assert np.all(np.diff(latency, axis=1) >= 0)
    assert np.all(np.diff(latency, axis=2) >= 0)


@settings(max_examples=60)
@given(device=devices, work=layers())
def test_no_layer_beats_the_peaks(device, work):
    latency = device.latency_s(tabulate([work]), np.array([8]), np.array([8]))[0, 0, 0]
    slack = 1 + 1e-9
    assert latency * slack >= work.macs / device.peak_macs_per_s
    written = max(work.weight_elements, work.output_elements)
    assert latency * slack >= written / device.memory_bytes_per_s


@settings(max_examples=60)
@given(device=devices, work=layers(), w_bits=st.integers(1, 32), a_bits=st.integers(1, 32))
def test_energy_counts_the_bytes_that_the_latency_streams(device, work, w_bits, a_bits):
    table, w_bits, a_bits = tabulate([work]), np.array([w_bits]), np.array([a_bits])
    of_bytes = dataclasses.replace(device, energy=Energy(dram_byte_j=1.0, sram_byte_j=10.0))
    found = of_bytes.energy_j(table, w_bits, a_bits)[0, 0, 0]
    assert found == pytest.approx(21 * looped_bytes(device, work, w_bits[0], a_bits[0]))
    of_macs = dataclasses.replace(
        device, energy=Energy(mac_j=1.0, mac_16bit_j=1.0, mac_32bit_j=1.0)
    )
    assert of_macs.energy_j(table, w_bits, a_bits)[0, 0, 0] == work.macs


@settings(max_examples=60)
@given(works=st.lists(layers(), min_size=1, max_size=4))
def test_energy_never_falls_when_bits_rise(works):
    energy = EYERISS.energy_j(tabulate(works), np.arange(1, 33), np.arange(1, 33))
    assert energy.shape == (len(works), 32, 32)
    # Sums of equal terms may differ in the last bit.
    assert np.all(np.diff(energy, axis=1) >= -1e-12 * energy[:, 1:])
    assert np.all(np.diff(energy, axis=2) >= -1e-12 * energy[:, :, 1:])


def test_energy_left_out_is_not_known():
    assert isinstance(SMALL, PoweredDevice)
    assert np.isnan(SMALL.energy_j(tabulate([Workload(kind="gemm")]), BITS, BITS)).all()
    assert np.isnan(SMALL.move_j(1.0))


def test_overlapping_windows_cost_their_energy_again():
    one_by_one = convolution(12, 7, size=56, kernel=1)
    three_by_three = convolution(12, 7, size=56, kernel=3)
    bits = np.array([8])
    device = dataclasses.replace(EYERISS, energy=Energy(dram_byte_j=1.0))
    plain, overlapping = (
        float(device.energy_j(tabulate([work]), bits, bits)[0, 0, 0])
        for work in (one_by_one, three_by_three)
    )
    read = one_by_one.input_elements
    assert plain == read + one_by_one.output_elements + one_by_one.weight_elements
    # 7 x 4 pixels are read for 5 x 2 of output.
    overlapping -= three_by_three.output_elements + three_by_three.weight_elements
    assert overlapping / read == pytest.approx(2.8, rel=0.05)


def convolution(channels, filters, size, kernel=3, groups=1, **fields):
    return Workload(
        kind="conv",
        in_height=size,
        in_width=size,
        in_channels=channels,
        out_height=size,
        out_width=size,
        out_channels=filters,
        kernel_height=kernel,
        kernel_width=kernel,
        groups=groups,
        input_elements=size * size * channels,
        output_elements=size * size * filters,
        weight_elements=kernel * kernel * filters * channels // groups,
        **fields,
    )


NO_TRAFFIC = {"input_elements": 0, "output_elements": 0, "weight_elements": 0}


def seconds(device, work, w_bits=8, a_bits=8):
    return float(
        device.latency_s(tabulate([work]), np.array([w_bits]), np.array([a_bits]))[0, 0, 0]
    )


@pytest.mark.parametrize(
    ("device", "macs_per_s", "bytes_per_s"),
    [(EYERISS, 34.0e9, 1.0e9), (TPU, 96e12, 13.0e9)],
    ids=["eyeriss", "tpu"],
)
def test_peaks_are_the_published_ones(device, macs_per_s, bytes_per_s):
    assert device.peak_macs_per_s == pytest.approx(macs_per_s, rel=2e-3)
    assert device.memory_bytes_per_s == pytest.approx(bytes_per_s, rel=1e-6)


@pytest.mark.parametrize(
    ("device", "filters", "a_bits", "macs_per_s"),
    # Written at 8 bits, the TPU's output would take longer than its products: hence 1 bit.
    [(EYERISS, 64 * 7, 8, 34.0e9), (TPU, 32 * 128, 1, 96e12)],
    ids=["eyeriss", "tpu"],
)
def test_large_3x3_convolutions_approach_the_peak(device, filters, a_bits, macs_per_s):
    work = convolution(device.tile_channels, filters, size=1000)
    assert 0.97 < work.macs / seconds(device, work, a_bits=a_bits) / macs_per_s < 1.002


@pytest.mark.parametrize(("device", "share"), [(EYERISS, 45 / 62.5), (TPU, 45 / 55)])
def test_partial_sums_of_many_channels_cost_their_adds(device, share):
    # A tile of 3x3 has 5 x (tile_width - 2) output pixels: 45 cycles of MACs, then the adds of
    # 7 * 10 / 4 or 128 * 20 / 256 partial sums for each group of filters.
    work = convolution(40 * device.tile_channels, 32 * device.tile_filters, size=1000)
    assert work.macs / seconds(device, work) / device.peak_macs_per_s == pytest.approx(
        share, rel=0.03
    )


@pytest.mark.parametrize(
    ("device", "bytes_per_s"), [(EYERISS, 1.0e9), (TPU, 13.0e9)], ids=["eyeriss", "tpu"]
)
def test_bandwidth_bound_layers_approach_the_bandwidth(device, bytes_per_s):
    dense = Workload(kind="gemm", in_channels=8192, out_channels=8192, weight_elements=8192**2)
    add = Workload(kind="vector", input_elements=2_000_000, output_elements=1_000_000)
    # The products of the one row come after its weights, at half or less of the peak.
    assert 0.85 < 8192**2 / seconds(device, dense) / bytes_per_s < 1
    assert 2_000_000 / seconds(device, add) == pytest.approx(bytes_per_s, rel=1e-6)
    assert seconds(device, dense, w_bits=4) < 0.65 * seconds(device, dense)


def test_below_eight_bits_only_data_movement_gets_faster():
    bound_by_macs = convolution(12, 448, size=70)
    without_weights = dataclasses.replace(bound_by_macs, weight_elements=0)
    assert seconds(EYERISS, without_weights, 1, 1) == seconds(EYERISS, without_weights, 8, 8)
    assert seconds(EYERISS, without_weights, 9, 8) == 2 * seconds(EYERISS, without_weights, 8, 8)
    assert seconds(EYERISS, without_weights, 8, 17) == 3 * seconds(EYERISS, without_weights, 8, 8)
    saved = seconds(EYERISS, bound_by_macs, 8, 8) - seconds(EYERISS, bound_by_macs, 2, 8)
    assert saved == pytest.approx(EYERISS.move_s(bound_by_macs.weight_elements * 6 / 8))


@pytest.mark.parametrize("groups", [2, 6, 12, 84])
def test_grouped_and_depthwise_layers_see_bits(groups):
    work = convolution(84, 84, size=28, groups=groups)
    assert seconds(EYERISS, work, 8, 16) > seconds(EYERISS, work, 8, 8)
    assert seconds(EYERISS, work, 8, 8) > seconds(EYERISS, work, 1, 8)


def test_groups_that_fit_share_the_array():
    # Three depthwise channels fit the three filters of a tile, so nine take three rounds.
    per_round = seconds(SMALL, dataclasses.replace(convolution(3, 3, 9, groups=3), **NO_TRAFFIC))
    rounds = seconds(SMALL, dataclasses.replace(convolution(9, 9, 9, groups=9), **NO_TRAFFIC))
    assert rounds == 3 * per_round


def test_batch_and_repeat_multiply_all_but_the_weights():
    one = dataclasses.replace(convolution(12, 21, 14), **NO_TRAFFIC)
    six = dataclasses.replace(one, batch=3, repeat=2)
    assert seconds(EYERISS, six) == pytest.approx(6 * seconds(EYERISS, one))
    weights = dataclasses.replace(six, weight_elements=1000)
    assert seconds(EYERISS, weights) - seconds(EYERISS, six) == pytest.approx(1e-6)


def test_second_operand_of_a_matrix_product_is_streamed():
    plain = Workload(
        kind="gemm", in_height=64, out_height=64, in_channels=32, out_channels=64, repeat=4
    )
    own = 4 * 64 * 32
    attention = dataclasses.replace(plain, input_elements=own + 4 * 32 * 64)
    assert seconds(EYERISS, dataclasses.replace(plain, input_elements=own)) == seconds(
        EYERISS, plain
    )
    assert seconds(EYERISS, attention) - seconds(EYERISS, plain) == pytest.approx(
        EYERISS.move_s(4 * 32 * 64)
    )


def test_transposed_convolution_costs_its_real_taps():
    stretched = {"upsample_height": 2, "upsample_width": 2}
    transposed = dataclasses.replace(
        convolution(12, 448, 140, kernel=4, **stretched), in_height=70, in_width=70
    )
    ordinary = convolution(12, 448, 140, kernel=4)
    assert ordinary.macs == 4 * transposed.macs
    assert seconds(EYERISS, transposed) < 0.5 * seconds(EYERISS, ordinary)


def test_no_layers_give_an_empty_array():
    assert EYERISS.latency_s(tabulate([]), BITS, BITS).shape == (0, len(BITS), len(BITS))


def test_move_s_takes_arrays_and_numbers():
    np.testing.assert_allclose(SMALL.move_s(np.array([[0, 10]])), [[0.0, 7.0]])
    assert float(EYERISS.move_s(1e9)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clock_hz": 0.0},
        {"clock_hz": float("nan")},
        {"tile_height": 0},
        {"tile_width": 2.5},
        {"dma_cycles_per_byte": -1.0},
        {"dma_cycles_per_byte": float("inf")},
        {"adds_per_cycle": 0},
        {"macs_per_cycle": 25},
        {"memory_bytes": 0},
    ],
    ids=str,
)
def test_wrong_fields_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)


@pytest.mark.parametrize(
    "bits", [np.array([0]), np.array([33]), np.array([4.0]), np.array(8), [[8]]], ids=str
)
def test_wrong_bits_are_named(bits):
    with pytest.raises(InputError, match="a_bits"):
        SMALL.latency_s(tabulate([]), np.array([8]), bits)
