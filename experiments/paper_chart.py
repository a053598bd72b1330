"""Takes the ResNet-50 chart of Auto-Split's proof of concept apart, bar by bar.

    python -m experiments.paper_chart --workdir=build/paper

Each bar is computed three times: by the equations of the proof of concept, by our models
of the same devices charged as the original charges (convolutions alone, the output of
the split layer alone), and by our models with everything charged: all layers, all tensors
that cross, packing, the response. ``chart.csv`` and ``chart.md`` have the seconds of each
stage, ``chart.png`` the bars. Weights play no part, so none are loaded.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import autosplit
from autosplit.errors import AutosplitError
from autosplit.files import to_plain, write_json, write_text
from autosplit.hardware import EYERISS, TPU, named_network
from autosplit.models import create_model, variable_shapes
from autosplit.profiling.pricing import QuantizationErrors, layer_latency_s, price_graph
from autosplit.profiling.table import InputEncoding
from autosplit.reporting import run_record
from autosplit.reporting.canvas import save_figure
from autosplit.reporting.tables import markdown_table
from autosplit.solvers import price
from experiments.paper_original import (
    BARS,
    CLOUD_BITS,
    LAST,
    Bar,
    resnet50_convs,
    stages_of,
    tiles_s,
)
from experiments.paper_plots import grouped_figure
from experiments.paper_tables import csv_text

STAGES = ("transmission", "edge weights", "edge tiles", "cloud")
BITS = np.array([2, 4, 6, 7, 8])
CHART, THEIRS, ALIKE, HONEST = (
    "the chart", "original's equations", "our devices, charged alike", "our devices, all charged",
)  # fmt: skip
COLOURS = {CHART: "#8A8F98", THEIRS: "#56B4E9", ALIKE: "#2B7BBA", HONEST: "#D55E00"}

EXPLANATION = """\
All latencies are **simulated**. What the numbers say:

- **The chart is reproduced** by the equations of the proof of concept to within 0.003 of every bar,
  1.1 ms at most. The bits on its labels are budgets, averages over the layers on the edge, not the
  bits of any layer: `8_12_6` fits only if the tensor of the split is sent at 7 bits. What is left
  cannot be settled from three digits: the bits of each layer are not published (they move the edge
  of the split bars by less than 0.5 ms; those of `U2` to `U8` are known and leave 0.4 to 1.1 ms),
  nor is it known that the chart was made by the published state of the code.
- **Transmission.** The original sends the output of the split layer alone. At both splits a
  residual branch crosses as well: at 12 the sum before the block, 56x56x256, which `downsample_0`
  reads in the cloud, eight times as many elements as the tensor that was charged for; at 2 the
  output of the stem, 56x56x64, as many again. Charged, the first four bars are slower than
  cloud-only.
- **Edge arithmetic.** In the original a multiplier does all taps of a kernel in one cycle, and
  windows step by a tile after reaching back by one halo, so most pixels of a 7x7 or 3x3 layer are
  never computed: the stem takes 0.4 ms there and 30 ms here. The other way round, a 1x1 layer of
  stride 2 computes rows that it does not need, for want of a bracket. The last table has the sums.
- **From U2 to U8** each step of two bits adds 5.9 ms for the weights and 0.6 ms for the outputs
  that are sent; the tiles are bound by arithmetic and do not change.
- **Weights** are charged alike. **The classifier** and everything else that is no convolution cost
  nothing in the original, on the edge or in the cloud; nor does sending the answer back.
- An edge-only network of the original sends its 1,000 outputs to the cloud; ours sends nothing.
"""


def trace_resnet50() -> autosplit.LayerGraph:
    """Traces the network by the shapes of its weights alone."""
    model: Any = create_model("resnet50")
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return autosplit.trace(model.apply, variable_shapes(model), image)


def bars(network_name: str = "paper_3mbps") -> list[dict[str, Any]]:
    """Returns, for each bar, the seconds of its stages charged in three ways.

    Args:
      network_name: of the link.
    """
    graph = trace_resnet50()
    profile = _profile(graph, network_name)
    return [
        {"bar": bar.label, "chart": bar.value, THEIRS: stages_of(bar),
         ALIKE: _alike(graph, bar), HONEST: _honest(graph, profile, bar)}
        for bar in BARS
    ]  # fmt: skip


def _profile(graph: autosplit.LayerGraph, network_name: str) -> autosplit.Profile:
    """Prices the cuts of the bars; there are no errors without weights."""
    layers, tensors, widths = len(graph.layers), len(graph.tensors), len(BITS)
    errors = QuantizationErrors(
        clipping="none", bits=BITS,
        weight_error=np.zeros((layers, widths)), weight_gain=np.zeros((layers, widths)),
        sensitivity="output",
        weight_ratio=np.ones((layers, widths)), activation_error=np.zeros((tensors, widths)),
        activation_gain=np.zeros((tensors, widths)), activation_low=np.zeros((tensors, widths)),
        activation_high=np.ones((tensors, widths)),
    )  # fmt: skip
    raw = InputEncoding(name="raw", payload_bytes=224 * 224 * 3, lossless=True)
    return price_graph(
        graph, errors, [raw], edge=EYERISS, cloud=TPU, network=named_network(network_name),
        cloud_bits=CLOUD_BITS, cuts=[_cut(graph, bar) for bar in BARS],
    )  # fmt: skip


def _cut(graph: autosplit.LayerGraph, bar: Bar) -> autosplit.Cut:
    if bar.split < 0:
        return graph.cut([])
    if bar.split == LAST:
        return graph.cut(range(len(graph.layers)))
    return graph.cut_after(resnet50_convs()[bar.split].name)


def _alike(graph: autosplit.LayerGraph, bar: Bar) -> dict[str, float]:
    """Charges our devices as the original does: convolutions, and the split layer's output."""
    kinds = np.array([layer.kind == "conv" for layer in graph.layers])
    on_edge = np.array(_cut(graph, bar).on_edge)
    edge_s = layer_latency_s(graph, EYERISS, [bar.w_bits], [bar.a_bits])[:, 0, 0]
    cloud_s = layer_latency_s(graph, TPU, [CLOUD_BITS], [CLOUD_BITS])[:, 0, 0]
    weights = _weights_s(graph, bar)
    return {
        "transmission": stages_of(bar)["transmission"],
        "edge weights": weights[kinds & on_edge].sum(),
        "edge tiles": (edge_s - weights)[kinds & on_edge].sum(),
        "cloud": cloud_s[kinds & ~on_edge].sum(),
    }


def _weights_s(graph: autosplit.LayerGraph, bar: Bar) -> np.ndarray:
    elements = np.array([layer.weight_elements for layer in graph.layers])
    return EYERISS.move_s(elements * bar.w_bits / 8)


def _honest(
    graph: autosplit.LayerGraph, profile: autosplit.Profile, bar: Bar
) -> dict[str, float]:
    """Charges everything; all tensors that cross are sent at the bits of the bar."""
    cut = [other.label for other in BARS].index(bar.label)
    a_bits = np.full(len(graph.tensors), bar.a_bits)
    a_bits[profile.crosses[cut]] = bar.sent_bits
    encoding = "raw" if bar.split < 0 else "packed"
    plan = price(profile, cut=cut, w_bits=np.full(len(graph.layers), bar.w_bits), a_bits=a_bits,
                 label=bar.label, encoding=encoding)  # fmt: skip
    weights_s = _weights_s(graph, bar)[np.array(plan.on_edge)].sum()
    sending_s = plan.pack_s + plan.uplink_s + plan.unpack_s + plan.downlink_s
    return {
        "transmission": sending_s, "edge weights": weights_s,
        "edge tiles": plan.edge_s - weights_s, "cloud": plan.cloud_s,
    }  # fmt: skip


def normalised(found: Sequence[Mapping[str, Any]], way: str) -> dict[str, float]:
    """Returns the bars of one way to charge, over its own CLOUD16."""
    total = {row["bar"]: sum(row[way].values()) for row in found}
    return {bar: value / total["CLOUD16"] for bar, value in total.items()}


def bar_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the bars by each way to charge."""
    ways = {way: normalised(found, way) for way in (THEIRS, ALIKE, HONEST)}
    return [
        {"bar": row["bar"], CHART: f"{row['chart']:.3f}"}
        | {f"{way} (simulated)": f"{values[row['bar']]:.3f}" for way, values in ways.items()}
        for row in found
    ]


def difference_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Splits what separates us from the original into stages, in milliseconds."""
    rows = []
    for row in found:
        for title, way, other in (("their devices to ours", ALIKE, THEIRS),
                                  ("all charged", HONEST, ALIKE)):  # fmt: skip
            change = {stage: 1e3 * (row[way][stage] - row[other][stage]) for stage in STAGES}
            total = sum(change.values())
            cells = {f"{stage} (ms)": f"{value:+.1f}" for stage, value in change.items()}
            rows.append({"bar": row["bar"], "step": title} | cells | {"sum (ms)": f"{total:+.1f}"})
    return rows


def kind_rows() -> list[dict[str, str]]:
    """Compares the tiles of all convolutions at 8 bits by kind of convolution, in milliseconds."""
    graph = trace_resnet50()
    everywhere = BARS[-2]
    ours_s = layer_latency_s(graph, EYERISS, [8], [8])[:, 0, 0] - _weights_s(graph, everywhere)
    sums: dict[str, list[float]] = {}
    for conv in resnet50_convs():
        kind = f"{conv.kernel}x{conv.kernel}, stride {conv.stride}"
        row = sums.setdefault(kind, [0, 0.0, 0.0])
        row[0] += 1
        row[1] += 1e3 * tiles_s(EYERISS, conv, 8)
        row[2] += 1e3 * float(ours_s[graph.layer_index(conv.name)])
    return [
        {"convolutions": kind, "layers": str(count), "original's equations (ms)": f"{theirs:.1f}",
         "our devices (ms)": f"{ours:.1f}", "difference (ms)": f"{ours - theirs:+.1f}"}
        for kind, (count, theirs, ours) in sums.items()
    ]  # fmt: skip


def stage_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the simulated seconds of each stage, for CSV."""
    return [
        {"bar": row["bar"], "chart": row["chart"], "charged": way,
         "simulated_over_cloud16": normalised(found, way)[row["bar"]]}
        | {f"simulated_{stage.replace(' ', '_')}_s": float(row[way][stage]) for stage in STAGES}
        for row in found for way in (THEIRS, ALIKE, HONEST)
    ]  # fmt: skip


def write_chart(workdir: pathlib.Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Computes the bars and writes ``chart.csv``, ``chart.png``, ``chart.json`` and ``chart.md``.

    Returns:
      The bars.
    """
    found = bars()
    ways = {way: normalised(found, way) for way in (THEIRS, ALIKE, HONEST)}
    groups = {
        row["bar"]: {CHART: row["chart"]} | {way: ways[way][row["bar"]] for way in ways}
        for row in found
    }
    figure = grouped_figure("ResNet-50: the bars of Auto-Split's chart", groups, COLOURS,
                            "simulated latency over CLOUD16", line_at=1.0)  # fmt: skip
    write_text(workdir / "chart.csv", csv_text(stage_rows(found)))
    save_figure(figure, workdir / "chart.png")
    write_json(workdir / "chart.json", {"bars": to_plain(found), "record": record})
    parts = [
        "# The ResNet-50 chart of Auto-Split, taken apart (simulated)", EXPLANATION.strip(),
        "## Latency over CLOUD16 (simulated)", markdown_table(bar_rows(found)),
        "![bars](chart.png)", "## Where the differences come from (simulated)",
        markdown_table(difference_rows(found)),
        "## Tiles on the edge at 8 bits, by kind of convolution (simulated)",
        markdown_table(kind_rows()),
    ]  # fmt: skip
    write_text(workdir / "chart.md", "\n\n".join(parts) + "\n")
    return found


def main(argv: Sequence[str]) -> None:
    """Reads the flags and writes the chart."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    workdir = pathlib.Path(flags.FLAGS.workdir).resolve()
    try:
        write_chart(workdir, run_record({}, seed=0))
    except (AutosplitError, OSError) as error:
        sys.exit(f"paper_chart: {error}")
    print((workdir / "chart.md").read_text())


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)
    jax.config.config_with_absl()
    app.run(main)
