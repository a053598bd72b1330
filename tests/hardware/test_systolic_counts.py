"""Systolic counts against loops over folds and addresses, and under JAX."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware.matrix_products import Products, products_of
from autosplit.hardware.systolic_counts import (
    Dataflow,
    SystolicArray,
    count_systolic,
    dram_reads,
)
from autosplit.workload import Workload, tabulate
from experiments import scalesim_reference as reference
from experiments.scalesim_speed import workload_of

KIB = 1024
SHARES = ("mapping_efficiency", "compute_utilization", "overall_utilization")


def counted(work, array):
    return count_systolic(products_of(tabulate([work])), array)


def folded(pixels, window, filters, array):
    """Cycles, uses of multipliers and SRAM traffic of one run, fold by fold, step by step."""
    rows, columns = array.rows, array.columns
    extents = {
        Dataflow.OUTPUT_STATIONARY: (pixels, filters, window),
        Dataflow.WEIGHT_STATIONARY: (window, filters, pixels),
        Dataflow.INPUT_STATIONARY: (window, pixels, filters),
    }
    down, across, steps = extents[Dataflow(array.dataflow)]
    is_os = array.dataflow == Dataflow.OUTPUT_STATIONARY
    cycles, streamed, loaded, left, mapped = 0, 0, 0, 0, []
    for top in range(0, down, rows):
        for first in range(0, across, columns):
            height, width = min(rows, down - top), min(columns, across - first)
            mapped.append(height * width)
            last = 0
            for row in range(rows):  # when the last operand meets each row and column
                for column in range(columns):
                    load = 0 if is_os else rows
                    last = max(last, load + row + column + steps - 1)
            cycles += last + 1
            if is_os:
                streamed, loaded = streamed + height * steps, loaded + width * steps
                left += height * width
            else:
                streamed, loaded = streamed + height * steps, loaded + height * width
                left += steps * width
    if array.dataflow == Dataflow.INPUT_STATIONARY:
        streamed, loaded = loaded, streamed
    return cycles - 1, streamed, loaded, left, sum(mapped) / len(mapped) / (rows * columns)


@st.composite
def arrays(draw):
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    srams = draw(st.lists(st.integers(100, 900), min_size=3, max_size=3))
    return SystolicArray(rows, columns, draw(st.sampled_from(Dataflow)), *srams)


def layers():
    return st.from_type(Workload).filter(lambda work: work.kind != "vector")


@settings(max_examples=80)
@given(array=arrays(), work=layers())
def test_counts_equal_a_loop_over_folds(array, work):
    found = counted(work, array)
    phases = work.upsample_height * work.upsample_width
    runs = work.groups * work.repeat * phases
    pixels = work.batch * math.ceil(work.out_height / work.upsample_height)
    pixels *= math.ceil(work.out_width / work.upsample_width)
    taps = len(range(0, work.kernel_height, work.upsample_height))
    taps *= len(range(0, work.kernel_width, work.upsample_width))
    filters = work.out_channels // work.groups
    window = taps * (work.in_channels // work.groups)
    cycles, ifmap, weights, ofmap, mapping = folded(pixels, window, filters, array)
    assert found.cycles[0] == runs * cycles
    assert found.sram_ifmap_reads[0] == runs * ifmap
    assert found.sram_filter_reads[0] == runs * weights
    slip = 0
    if array.dataflow == Dataflow.OUTPUT_STATIONARY:
        slip = runs * int(found.folds[0]) * (array.rows + array.columns)
    assert found.sram_ofmap_writes[0] == runs * ofmap + slip
    assert found.mapping_efficiency[0] == pytest.approx(mapping, rel=1e-12)
    macs_per_run = work.macs / runs if phases == 1 else pixels * window * filters
    peak = max(cycles, 1) * array.rows * array.columns
    assert found.overall_utilization[0] == pytest.approx(macs_per_run / peak, rel=1e-12)


def forgetful_reads(addresses, capacity):
    """Misses of a buffer that forgets everything whenever it is full."""
    held, misses = set(), 0
    for address in addresses:
        if address not in held:
            misses += 1
            held.add(address)
            if len(held) == capacity:
                held.clear()
    return misses


@settings(max_examples=150)
@given(
    array=arrays(), pixels=st.integers(1, 40), window=st.integers(1, 60), filters=st.integers(1, 40)
)
def test_reads_of_filters_equal_those_of_a_forgetful_buffer(array, pixels, window, filters):
    work = Workload(kind="gemm", in_height=pixels, out_height=pixels, in_channels=window,
                    out_channels=filters)  # fmt: skip
    rows, columns = array.rows, array.columns
    stream = []
    if array.dataflow == Dataflow.OUTPUT_STATIONARY:
        for first in range(0, filters, columns):
            block = range(first, min(first + columns, filters))
            for _ in range(0, pixels, rows):
                stream += [(row, column) for row in range(window) for column in block]
    else:
        is_is = array.dataflow == Dataflow.INPUT_STATIONARY
        for _ in range(0, pixels if is_is else 1, columns):
            stream += [(row, column) for row in range(window) for column in range(filters)]
    capacity = array.filter_words // 100 * 50
    found = counted(work, array)
    assert found.dram_filter_reads[0] == forgetful_reads(stream, capacity)
    kept = dram_reads(products_of(tabulate([work])), array)[1][0]
    assert len(set(stream)) <= kept <= found.dram_filter_reads[0]


@settings(max_examples=150)
@given(size=st.integers(1, 14), kernel=st.integers(1, 5), stride=st.integers(1, 6))
def test_input_pixels_are_those_that_windows_touch(size, kernel, stride):
    outputs = max(1, math.ceil((size - kernel + stride) / stride))
    work = Workload(kind="conv", in_height=size, out_height=outputs, kernel_height=kernel,
                    stride_height=stride)  # fmt: skip
    touched = [i * stride + tap for i in range(outputs) for tap in range(kernel)]
    stored = [pixel for pixel in touched if pixel < size]
    products = products_of(tabulate([work]))
    assert products.ifmap_elements[0] == len(set(stored))
    assert products.ifmap_uses[0] == len(stored)


# One program for everything.


def as_jax(products, array):
    return jax.tree.map(jnp.asarray, (Products(*products), array))


def test_one_compiled_program_serves_layers_dataflows_arrays_and_bits():
    works = [workload_of(layer) for layer in [*reference.SMALL, *reference.PUBLISHED]]
    products = products_of(tabulate(works))
    traces = []

    @jax.jit
    def compiled(products, array):
        traces.append(1)
        return count_systolic(products, array)

    with jax.enable_x64():
        sizes = [(12, 14), (32, 32), (256, 256), (7, 5), (1, 8)]
        for (rows, columns), dataflow, bits in itertools.product(sizes, Dataflow, [2, 8, 16]):
            array = SystolicArray(rows, columns, int(dataflow), *[36 * KIB * 8 // bits] * 3)
            expected = count_systolic(products, array)
            found = compiled(*as_jax(products, array))
            for name in expected._fields:
                if name in SHARES:
                    np.testing.assert_allclose(
                        getattr(found, name), getattr(expected, name), rtol=1e-15
                    )
                else:
                    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert len(traces) == 1


def test_counts_map_over_devices_and_broadcast_over_all_axes():
    products = products_of(tabulate([workload_of(layer) for layer in reference.SMALL]))
    rows, columns = np.array([7, 12, 32]), np.array([5, 14, 32])
    dataflows = np.arange(3)
    words = np.array([1, 4, 36]) * KIB
    array = SystolicArray(rows, columns, dataflows, words, words, words)
    column = Products(*(field[:, None] for field in products))
    broadcast = count_systolic(column, array)
    with jax.enable_x64():
        mapped = jax.jit(jax.vmap(count_systolic, in_axes=(None, 0)))(*as_jax(products, array))
    for name in broadcast._fields:
        found, expected = np.asarray(getattr(mapped, name)), getattr(broadcast, name)
        np.testing.assert_allclose(found, expected.T, rtol=1e-15)
    for device in range(3):
        alone = count_systolic(products, SystolicArray(*(int(field[device]) for field in array)))
        np.testing.assert_array_equal(alone.cycles, broadcast.cycles[:, device])
        np.testing.assert_array_equal(alone.dram_ifmap_reads, broadcast.dram_ifmap_reads[:, device])


def test_narrow_integers_are_refused():
    products = products_of(tabulate([workload_of(reference.ALEXNET_CONV1)]))
    array = SystolicArray(32, 32, 1, *[65_536] * 3)
    with pytest.raises(InputError, match=r"int32; expected 64-bit integers.*enable_x64"):
        jax.jit(count_systolic)(*as_jax(products, array))
    with pytest.raises(InputError, match="float64"):
        count_systolic(products._replace(pixels=np.array([1.5])), array)
