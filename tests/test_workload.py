"""MACs of a `Workload` against a count of real products, and the table against the rows."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.workload import KINDS, Workload, tabulate


def counted_macs(work):
    """Products of one call, where the inserted zeros are most densely in the way."""
    filters_per_group = work.out_channels // work.groups
    channels_per_group = work.in_channels // work.groups
    # Taps at multiples of the factor meet data; the others meet inserted zeros.
    taps = [
        (row, column)
        for row in range(0, work.kernel_height, work.upsample_height)
        for column in range(0, work.kernel_width, work.upsample_width)
    ]
    pixels = work.batch * work.out_height * work.out_width
    per_pixel = work.groups * filters_per_group * channels_per_group * len(taps)
    return work.repeat * pixels * per_pixel


@st.composite
def workloads(draw):
    small = st.integers(1, 4)
    groups = draw(small)
    drawn = {f.name: draw(small) for f in dataclasses.fields(Workload) if f.name != "kind"}
    drawn |= {"groups": groups, "in_channels": groups * draw(small)}
    drawn |= {"out_channels": groups * draw(small), "kernel_height": draw(st.integers(1, 7))}
    return Workload(kind=draw(st.sampled_from(KINDS)), **drawn)


@settings(max_examples=50)
@given(workloads())
def test_macs_equal_a_count_of_products(work):
    assert work.macs == (0 if work.kind == "vector" else counted_macs(work))


@pytest.mark.parametrize("batch", [1, 3])
def test_macs_of_a_convolution_equal_those_of_its_loops(batch):
    image, filters = np.ones((batch, 2, 6, 5)), np.ones((4, 2, 3, 2))
    products = 0
    for _ in image:
        for _ in filters:
            for row in range(0, 6 - 3 + 1, 2):
                for column in range(5 - 2 + 1):
                    products += filters[0].size * int(image[0, 0, row, column])
    work = Workload(
        kind="conv",
        batch=batch,
        in_height=6,
        in_width=5,
        in_channels=2,
        out_height=2,
        out_width=4,
        out_channels=4,
        kernel_height=3,
        kernel_width=2,
        stride_height=2,
    )
    assert work.macs == products


def test_macs_of_a_transposed_convolution_equal_those_of_its_gradient():
    # A transposed convolution scatters every input pixel through every tap.
    size, kernel, stride, channels, filters = 6, 4, 2, 3, 5
    work = Workload(
        kind="conv",
        in_height=size,
        in_width=size,
        in_channels=channels,
        out_height=size * stride,
        out_width=size * stride,
        out_channels=filters,
        kernel_height=kernel,
        kernel_width=kernel,
        upsample_height=stride,
        upsample_width=stride,
    )
    assert work.macs == size * size * kernel * kernel * channels * filters


def test_depthwise_has_one_channel_a_filter():
    dense = Workload(kind="conv", in_channels=8, out_channels=8, kernel_height=3, kernel_width=3)
    assert dense.macs == 8 * dataclasses.replace(dense, groups=8).macs


@settings(max_examples=30)
@given(st.lists(workloads(), max_size=5))
def test_table_holds_every_column_of_every_row(works):
    table = tabulate(works)
    assert len(table) == len(works)
    for field in dataclasses.fields(table):
        column = getattr(table, field.name)
        assert column.shape == (len(works),)
        assert column.dtype == (bool if field.name.startswith("is_") else np.int64)
    for row, work in enumerate(works):
        assert table.macs[row] == work.macs
        assert table.is_conv[row] == (work.kind == "conv")
        assert table.is_gemm[row] == (work.kind == "gemm")
        for field in dataclasses.fields(work):
            if field.name != "kind":
                assert getattr(table, field.name)[row] == getattr(work, field.name)


def test_macs_of_huge_layers_do_not_overflow():
    work = Workload(kind="gemm", in_height=2**20, out_height=2**20, in_channels=2**14)
    assert tabulate([dataclasses.replace(work, out_channels=2**14)]).macs[0] == 2**48
