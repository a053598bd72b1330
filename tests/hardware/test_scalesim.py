"""The closed forms against SCALE-Sim: its answers on file, itself, and published totals."""

import itertools
import json
import math
import os
import subprocess

import pytest

from autosplit.hardware.matrix_products import products_of
from autosplit.hardware.systolic_counts import Dataflow, SystolicArray, count_systolic
from autosplit.workload import Workload, tabulate
from experiments import scalesim_reference as reference
from experiments import scalesim_speed
from experiments.scalesim_run import make_environment, run_scalesim

KIB = 1024
COUNTS = (
    "cycles",
    "sram_ifmap_reads",
    "sram_filter_reads",
    "sram_ofmap_writes",
    "dram_filter_reads",
    "dram_ofmap_writes",
)
SHARES = ("mapping_efficiency", "compute_utilization", "overall_utilization")


def convolution(shape):
    """A layer of `scalesim_reference`; "DP" in its name means depthwise, as in SCALE-Sim."""
    name, height, width, kernel_height, kernel_width, channels, filters, down, right = shape
    groups = channels if "DP" in name else 1
    return Workload(
        kind="conv",
        in_height=height,
        in_width=width,
        in_channels=channels,
        out_height=math.ceil((height - kernel_height + down) / down),
        out_width=math.ceil((width - kernel_width + right) / right),
        out_channels=filters * groups,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        stride_height=down,
        stride_width=right,
        groups=groups,
    )


def array_of(run):
    dataflow = reference.DATAFLOWS.index(run["dataflow"])
    return SystolicArray(*run["array"], dataflow, *[KIB * size for size in run["sram_kib"]])


def rows_by_layer(run):
    """Yields each layer with its rows of SCALE-Sim: one, or one a channel if depthwise."""
    rows = iter(run["rows"])
    for shape in run["layers"]:
        yield shape, list(itertools.islice(rows, shape[5] if "DP" in shape[0] else 1))


def ifmap_reads_have_a_formula(shape, run, elements):
    """Says where the docstring of `count_systolic` claims DRAM reads of the ifmap."""
    work = convolution(shape)
    capacity = KIB * run["sram_kib"][0] // 100 * 50
    overlaps = (work.stride_height < work.kernel_height and work.out_height > 1) or (
        work.stride_width < work.kernel_width and work.out_width > 1
    )
    rows, width = run["array"][0], work.out_width
    inner = (work.out_height - 1) * (width - 1) - width
    gap = work.in_channels // rows * rows * inner - 2 * rows**2
    far_apart = run["dataflow"] == "ws" and gap >= capacity
    return elements < capacity or not overlaps or far_apart


def assert_equal_to_scalesim(runs):
    """Compares every case; returns how many, and how many ifmaps with a formula."""
    cases = formulas = 0
    for run in runs:
        for shape, rows in rows_by_layer(run):
            products = products_of(tabulate([convolution(shape)]))
            found = count_systolic(products, array_of(run))
            where = (run["array"], run["sram_kib"], run["dataflow"], shape)
            expected = {n: sum(row[n] for row in rows) for n in (*COUNTS, "dram_ifmap_reads")}
            for name in COUNTS:
                assert int(getattr(found, name)[0]) == expected[name], (name, where)
            for name in SHARES:
                share = float(getattr(found, name)[0])
                assert 100 * share == pytest.approx(rows[0][f"{name}_percent"], rel=1e-12), where
            for buffer in ("ifmap_reads", "filter_reads", "ofmap_writes"):
                per_cycle = float((getattr(found, f"sram_{buffer}") / found.cycles)[0])
                name = f"sram_{buffer.split('_')[0]}_words_per_cycle"
                assert per_cycle == pytest.approx(rows[0][name], rel=1e-12), where
            assert all(row["stall_cycles"] == 0 for row in rows)
            elements, reads = int(products.ifmap_elements[0]), int(found.dram_ifmap_reads[0])
            if ifmap_reads_have_a_formula(shape, run, elements):
                formulas += 1
                assert reads == expected["dram_ifmap_reads"], where
            for either in (reads, expected["dram_ifmap_reads"]):
                assert elements * len(rows) <= either <= expected["sram_ifmap_reads"], where
            cases += 1
    return cases, formulas


@pytest.fixture(scope="module")
def golden():
    return json.loads(reference.GOLDEN.read_text())["runs"]


def test_counts_equal_the_table_of_scalesim(golden):
    cases, formulas = assert_equal_to_scalesim(golden)
    assert cases >= 60
    assert formulas >= 0.7 * cases
    assert {run["dataflow"] for run in golden} == set(reference.DATAFLOWS)


def test_table_was_made_from_the_layers_of_the_reference(golden):
    asked = reference.with_dataflows(reference.QUICK + reference.SLOW)
    assert [{name: run[name] for name in asked[0]} for run in golden] == asked


@pytest.mark.heavy
def test_counts_equal_scalesim_itself(tmp_path):
    try:
        python = make_environment(tmp_path / "environment")
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"scalesim cannot be installed here: {error.stderr.strip()[-300:]}")
    requests = reference.with_dataflows(reference.QUICK)
    answers = run_scalesim(python, requests)
    runs = [one | answer for one, answer in zip(requests, answers, strict=True)]
    assert assert_equal_to_scalesim(runs)[0] >= 60


@pytest.mark.parametrize(
    ("dataflow", "cycles"),
    [(Dataflow.OUTPUT_STATIONARY, 13_002_936), (Dataflow.WEIGHT_STATIONARY, 14_966_157),
     (Dataflow.INPUT_STATIONARY, 15_016_183)],
)  # fmt: skip
def test_published_totals_of_yolo_tiny(dataflow, cycles):
    sizes = [416, 208, 104, 52, 26, 13, 11, 9, 7]
    channels = [3, 16, 32, 64, 128, 256, 512, 1024, 1024]
    filters = [4, 32, 64, 128, 256, 512, 1024, 1024, 125]
    kernels = [3] * 8 + [1]
    layers = [
        convolution(["", size, size, kernel, kernel, depth, count, 1, 1])
        for size, kernel, depth, count in zip(sizes, kernels, channels, filters, strict=True)
    ]
    table = tabulate(layers)
    assert table.macs.sum() == 1_753_649_072
    array = SystolicArray(12, 14, dataflow, *[36 * KIB] * 3)
    assert count_systolic(products_of(table), array).cycles.sum() == cycles


def test_published_figures_of_alexnet():
    products = products_of(tabulate([convolution(reference.ALEXNET_CONV1)]))
    found = count_systolic(products, SystolicArray(32, 32, 1, *[65_536] * 3))
    assert found.cycles[0] == 112_283
    percent = [100 * float(getattr(found, name)[0]) for name in SHARES]
    assert percent == pytest.approx([94.53125, 90.7800, 91.6831], abs=5e-5)


def test_layers_of_the_speed_comparison_are_those_of_resnet50():
    layers = scalesim_speed.resnet50_layers()
    works = [scalesim_speed.workload_of(layer) for layer in layers]
    table = tabulate(works)
    assert len(layers) == 54
    assert table.macs.sum() == 4_089_184_256
    weights = products_of(table)
    assert (weights.window * weights.filters).sum() == 25_502_912  # without biases and norms


def test_speed_comparison_reports_every_count_that_differs():
    layers = reference.SMALL[:3]
    counts, times = scalesim_speed.measure_closed_form(layers)
    rows = [
        {name: int(getattr(counts, name)[i]) for name in scalesim_speed.COUNTS} for i in range(3)
    ]
    assert scalesim_speed.differing(layers, counts, rows) == []
    rows[1]["cycles"] += 1
    (one,) = scalesim_speed.differing(layers, counts, rows)
    assert (one["layer"], one["count"]) == (layers[1][0], "cycles")
    assert one["scalesim"] == one["closed_form"] + 1
    assert set(times) == {"numpy", "jax"}
