"""What was measured of a device, as tables and as a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from autosplit.hardware.measured import Measured, shape_text
from autosplit.reporting.canvas import mute_spines, new_figure, settle_layout, style
from autosplit.reporting.formats import format_ms, format_number, format_percent
from autosplit.reporting.tables import markdown_table
from experiments.layer_timing import GraphTimes, ShapeTimes

FLOAT, INT8, NETWORK = "#2f6fde", "#c2410c", "#6b7587"  # colours of the plot
QUARTILES = (25, 50, 75)
LARGEST_SPREAD = 0.1  # of the network's quartiles, on a machine that does nothing else
_MOST_LABELS = 80


def summary_of(times: GraphTimes) -> dict[str, float]:
    """Derives sums and errors from the samples.

    Returns:
      ``layer_sum_s``, ``int8_sum_s``, ``network_s``, ``call_s``: medians.
      ``network_error``, ``call_error``: how far the sum of the layers lies above the
      network within a program, and above one call of it. ``spread``: the quartile
      distance of the network's samples over their median.
    """
    network_s, call_s = float(np.median(times.network_s)), float(np.median(times.call_s))
    low, middle, high = np.percentile(times.network_s, QUARTILES)
    return {
        "layer_sum_s": times.layer_sum_s,
        "int8_sum_s": times.int8_sum_s,
        "network_s": network_s,
        "call_s": call_s,
        "network_error": times.layer_sum_s / network_s - 1,
        "call_error": times.layer_sum_s / call_s - 1,
        "spread": float((high - low) / middle),
    }


def verdict(summary: Mapping[str, float]) -> str:
    """Says how far the layers account for the network, and whether to believe it."""
    busy = " The machine was busy: measure again when it is idle."
    return (
        f"The layers sum to {format_ms(summary['layer_sum_s'])} in float, "
        f"{_signed(summary['network_error'])} of the network within a program "
        f"({format_ms(summary['network_s'])}; quartiles {format_percent(summary['spread'])} apart) "
        f"and {_signed(summary['call_error'])} of one call from Python "
        f"({format_ms(summary['call_s'])}); in 8 bits to {format_ms(summary['int8_sum_s'])}."
        + (busy if summary["spread"] > LARGEST_SPREAD else "")
    )


def shape_rows(times: GraphTimes) -> list[dict[str, str]]:
    """Returns a row for each distinct layer."""
    return [
        {
            "layer": shape.layer.name,
            "alike": str(len(shape.layers)),
            "shape": "; ".join(shape_text(w) for w in shape.layer.workloads),
            "float (median)": _microseconds(shape.median_float_s),
            "int8 (median)": _microseconds(shape.median_int8_s),
            "int8 form": shape.form,
            "float over int8": _ratio(shape),
            "share of the sum": format_percent(
                len(shape.layers) * shape.median_float_s / max(times.layer_sum_s, 1e-12)
            ),
        }
        for shape in times.shapes
    ]


def markdown_text(device: Measured, times: GraphTimes) -> str:
    """Writes the results as Markdown."""
    found, record = summary_of(times), device.record
    machine, packages = record["device"], record["packages"]
    slower = sum(s.median_int8_s > s.median_float_s for s in times.shapes)
    commit = f"{record['git']['commit']}{' with changes' if record['git']['dirty'] else ''}"
    return f"""# {device.name}: the layers of {record["title"]}

{verdict(found)}

Medians of {len(times.network_s)} rounds. A layer is repeated within one compiled program, so
that the call from Python is not in its time. It then finds its weights in the caches that they
fit. XLA optimizes across layers in the network; where the error is large on an idle machine, it
made another program of the network than of the layers alone.

{markdown_table(shape_rows(times))}

Float is the layer as autosplit runs it, with all that is fused into it. Int8 is the form named:
int8 tensors in and out, int32 sums; what is not a product runs in float inside
(autosplit/execution/integer_forms.py). {slower} of {len(times.shapes)} shapes were slower in
int8: there the device counts the float time at 8 bits too.

## Run

{machine["platform"]} on {machine["cpu"]} with {machine["cpu_cores"]} cores; a copy moves
{device.memory_bytes_per_s / 1e9:.1f} GB/s read and written. jax {packages["jax"]}, jaxlib
{packages["jaxlib"]}, XLA_FLAGS {record["xla_flags"] or "none"}, commit {commit},
{record["started_utc"]}. Graph {", ".join(device.fingerprints)}.
"""


def csv_text(times: GraphTimes) -> str:
    """Writes a row for each distinct layer: quartiles in seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([
        "layer", "alike", "shape", "macs", "int8_form",
        *(f"{name}_p{q}_s" for name in ("float", "int8") for q in QUARTILES),
    ])  # fmt: skip
    for shape in times.shapes:
        writer.writerow([
            shape.layer.name, len(shape.layers),
            "; ".join(shape_text(w) for w in shape.layer.workloads), shape.layer.macs, shape.form,
            *np.percentile(shape.float_s, QUARTILES), *np.percentile(shape.int8_s, QUARTILES),
        ])  # fmt: skip
    return text.getvalue()


def layer_figure(device: Measured, times: GraphTimes) -> Any:
    """Plots the sum against the network, and every layer in float and in 8 bits."""
    found = summary_of(times)
    with style():
        figure, (top, bottom) = new_figure(9.0, 6.0, nrows=2, height_ratios=(1, 2.4))
        _plot_sums(top, found)
        top.set_title(f"{device.record['title']} on {device.name}: the sum is "
                      f"{_signed(found['network_error'])} of the network")  # fmt: skip
        _plot_layers(bottom, times)
        settle_layout(figure)
    return figure


def _plot_sums(axes: Any, found: Mapping[str, float]) -> None:
    bars = {
        "network, one call": (found["call_s"], NETWORK),
        "network, within a program": (found["network_s"], NETWORK),
        "sum of layers, float": (found["layer_sum_s"], FLOAT),
        "sum of layers, int8": (found["int8_sum_s"], INT8),
    }
    seconds = [value for value, _ in bars.values()]
    axes.barh(range(len(bars)), [1e3 * s for s in seconds], color=[c for _, c in bars.values()])
    for row, value in enumerate(seconds):
        axes.annotate(format_ms(value), (1e3 * value, row), xytext=(5, 0), va="center",
                      textcoords="offset points")  # fmt: skip
    axes.set_xlim(0, 1.15e3 * max(*seconds, 1e-9))
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    mute_spines(axes, "left")
    axes.set_xlabel("milliseconds, median")


def _plot_layers(axes: Any, times: GraphTimes) -> None:
    by_layer = sorted((index, shape) for shape in times.shapes for index in shape.layers)
    position = np.arange(len(by_layer))
    for side, (name, colour) in enumerate((("float", FLOAT), ("int8", INT8))):
        values = [1e6 * getattr(shape, f"median_{name}_s") for _, shape in by_layer]
        axes.bar(position + 0.4 * side - 0.2, values, width=0.4, color=colour, label=name)
    names = {shape.layers[0]: shape.layer.name for _, shape in by_layer}
    step = max(1, len(by_layer) // _MOST_LABELS)
    axes.set_xticks(position[::step], [names.get(i, "") or str(i) for i in position[::step]],
                    rotation=90, fontsize=7)  # fmt: skip
    axes.set_ylabel("microseconds, median")
    axes.set_xlabel("layer in order; a layer like an earlier one has its number")
    axes.grid(True, axis="y")
    axes.legend(loc="upper right")


def _ratio(shape: ShapeTimes) -> str:
    if shape.form == "float" or not shape.median_int8_s:
        return "–"
    return format_number(shape.median_float_s / shape.median_int8_s)


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


def _signed(ratio: float) -> str:
    """Writes -0.04 as "4 % short"."""
    return f"{format_percent(abs(ratio))} {'short' if ratio < 0 else 'in excess'}"
