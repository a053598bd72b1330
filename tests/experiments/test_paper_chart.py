"""The original's chart: reproduced by its equations, and what separates us adds up."""

from __future__ import annotations

import math

import pytest

from autosplit.hardware import EYERISS, TPU
from experiments import paper_chart
from experiments.paper_chart import ALIKE, HONEST, STAGES, THEIRS
from experiments.paper_original import (
    BARS,
    LAST,
    Conv,
    resnet50_convs,
    stages_of,
    tiles_s,
    weights_s,
)


@pytest.fixture(scope="module")
def found():
    return paper_chart.bars()


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: bar.label)
def test_the_equations_of_the_original_give_its_chart(bar):
    base = sum(stages_of(BARS[-1]).values())
    assert sum(stages_of(bar).values()) / base == pytest.approx(bar.value, abs=0.003)


def test_the_order_of_the_convolutions_is_torchvisions(torchvision):
    network = torchvision.models.resnet50()
    theirs = [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
              for m in network.modules() if type(m).__name__ == "Conv2d"]  # fmt: skip
    ours = [(c.in_channels, c.out_channels, c.kernel, c.stride) for c in resnet50_convs()]
    assert ours == theirs
    assert len(ours) == LAST + 1


@pytest.mark.parametrize("device", [EYERISS, TPU], ids=lambda device: device.name)
@pytest.mark.parametrize("a_bits", [4, 8, 16])
@pytest.mark.parametrize("shape", [(7, 2, 30, 3, 64), (3, 1, 14, 64, 20), (1, 2, 9, 130, 5)])
def test_tiles_are_counted_as_one_by_one(device, a_bits, shape):
    kernel, stride, size, inputs, outputs = shape
    conv = Conv(name="c", kernel=kernel, stride=stride, in_size=size, in_channels=inputs,
                out_channels=outputs)  # fmt: skip
    cycles = 0.0
    for top in range(0, size, device.tile_height):
        top = max(top - kernel + 1, 0) if top else 0
        high = min(device.tile_height, size - top)
        rows = 1 if high < kernel else math.floor(high - kernel / stride) + 1
        for left in range(0, size, device.tile_width):
            left = left - kernel + 1 if left else 0
            wide = min(device.tile_width, size - left)
            columns = 1 if wide < kernel else (wide - kernel) // stride + 1
            for first in range(0, inputs, device.tile_channels):
                deep = min(device.tile_channels, inputs - first)
                load = device.dma_cycles_per_byte * high * wide * deep * a_bits / 8
                busy = rows * math.ceil(outputs / device.tile_filters) * math.ceil(a_bits / 8)
                if first:
                    busy += outputs * columns * math.ceil(rows / device.adds_per_cycle)
                cycles += max(load, busy)
    assert tiles_s(device, conv, a_bits) == pytest.approx(cycles / device.clock_hz)


def test_all_weights_are_those_of_the_traced_network():
    graph = paper_chart.trace_resnet50()
    convs = [layer for layer in graph.layers if layer.kind == "conv"]
    assert sum(c.weights for c in resnet50_convs()) == sum(layer.weight_elements for layer in convs)
    assert {c.name for c in resnet50_convs()} == {layer.name for layer in convs}
    seconds = sum(weights_s(EYERISS, conv, 8) for conv in resnet50_convs())
    assert seconds == pytest.approx(sum(c.weights for c in resnet50_convs()) / 1e9, rel=1e-5)


def test_charging_everything_only_adds_where_something_is_sent(found):
    for row in found[:4]:
        # The residual branch that the original does not charge is the larger part.
        assert row[HONEST]["transmission"] > 1.9 * row[ALIKE]["transmission"]
        assert sum(row[HONEST].values()) > sum(found[-1][HONEST].values())


def test_the_differences_add_up(found):
    for row, (first, second) in zip(
        found, zip(*[iter(paper_chart.difference_rows(found))] * 2, strict=True), strict=True
    ):
        total = 1e3 * (sum(row[HONEST].values()) - sum(row[THEIRS].values()))
        stages = [float(part[f"{stage} (ms)"]) for part in (first, second) for stage in STAGES]
        assert sum(stages) == pytest.approx(total, abs=0.5)
        assert first["bar"] == second["bar"] == row["bar"]


def test_kinds_of_convolution_cover_all():
    rows = paper_chart.kind_rows()
    assert sum(int(row["layers"]) for row in rows) == LAST + 1


def test_the_files_are_whole(tmp_path):
    paper_chart.write_chart(tmp_path, {"seed": 0})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"chart.csv", "chart.json", "chart.md", "chart.png"}
    text = (tmp_path / "chart.md").read_text()
    assert all(f"| {bar.label} |" in text for bar in BARS)
    assert text.count("(simulated)") > 5
