"""What the benchmark found, as ratios, as tables and as a plot."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from autosplit.reporting.canvas import mute_spines, new_figure, settle_layout, style
from autosplit.reporting.formats import format_ms, format_number, format_percent, format_size
from autosplit.reporting.tables import markdown_table

Document = Mapping[str, Any]

LEAST_SPEEDUP = 20.0
LONGEST_TRACE_S = 5.0
LONGEST_SOLVE_S = 1.0
LONGEST_LARGE_SOLVE_S = 30.0
LARGEST_EXCESS = 0.02

LOOP, HISTOGRAM = "NumPy loop", "NumPy histogram"
NUMPY, OURS, FIRST = "#6b7587", "#2f6fde", "#c2410c"  # colours of the plot
READS_OF_STATISTICS = 2  # the extremes, the counts; then once for each bit-width


def summary_of(document: Document) -> dict[str, Any]:
    """Derives the ratios from the measurements.

    Args:
      document: ``times``, ``counts``, ``copy_bytes_per_s``, ``numpy`` and ``errors``.

    Returns:
      Ratios above 1 mean that autosplit is faster. ``..._with_forward`` adds the
      network's forward pass, the same one, to the NumPy side; ``..._without_forward``
      subtracts it from autosplit's.
    """
    times, counts, numpy_side = document["times"], document["counts"], document["numpy"]
    median = {name: timing["median_s"] for name, timing in times.items()}
    loop_s, histogram_s = (
        statistics.median(numpy_side[name]["pass_s"]) for name in ("loop", "histogram")
    )
    forward_s, tables_s = median["forward"], median["error tables"]
    # Both are medians of few calls: on a busy machine the difference may come out tiny.
    statistics_s = max(tables_s - forward_s, 1e-9)
    elements = counts["activation_elements"] + counts["weight_elements"]
    moved_bytes = 4 * elements * (READS_OF_STATISTICS + counts["bits"])
    copy = statistics.median([*document["copy_bytes_per_s"], *numpy_side["copy_bytes_per_s"]])
    return {
        "loop_s": loop_s,
        "histogram_s": histogram_s,
        "statistics_s": statistics_s,
        "loop_over_tables_with_forward": (loop_s + forward_s) / tables_s,
        "loop_over_tables_without_forward": loop_s / statistics_s,
        "loop_over_tables_first_call": (loop_s + forward_s) / times["error tables"]["first_s"],
        "loop_over_profile": loop_s / median["profile"],
        "loop_over_profile_first_call": loop_s / times["profile"]["first_s"],
        "histogram_over_tables_without_forward": histogram_s / statistics_s,
        "loop_over_histogram": loop_s / histogram_s,
        "loop_steps_per_s": elements * counts["bits"] * counts["ratios"] / loop_s,
        "moved_bytes": moved_bytes,
        "throughput_bytes_per_s": moved_bytes / statistics_s,
        "copy_bytes_per_s": copy,
        "throughput_over_copy": moved_bytes / statistics_s / copy,
        "excess": excess_of(document["errors"], numpy_side["loop"]["errors"]),
        "excess_of_numpy_histogram": excess_of(
            numpy_side["histogram"]["errors"], numpy_side["loop"]["errors"]
        ),
        "trace_s": median["trace"],
        "solve_s": median["solve"],
        "solve_large_s": median["solve large"],
    }


def excess_of(errors: Any, best: Any) -> dict[str, float]:
    """Returns by how much errors exceed the loop's best: median, 95 % quantile and maximum.

    Args:
      errors: [rows, K].
      best: [rows, K]; where it is 0 (constant tensors), the error has to be 0 too.

    >>> excess_of([[2.0, 3.3]], [[2.0, 3.0]])["largest"].__round__(3)
    0.1
    """
    errors, best = np.asarray(errors, np.float64), np.asarray(best, np.float64)
    tiny = np.finfo(np.float32).tiny
    excess = np.where(np.maximum(errors, best) <= tiny, 0.0, errors / np.maximum(best, tiny) - 1)
    return {
        "median": float(np.median(excess)),
        "quantile_95": float(np.quantile(excess, 0.95)),
        "largest": float(excess.max()),
        "smallest": float(excess.min()),
    }


def aims_of(document: Document) -> list[dict[str, Any]]:
    """Returns each aim with what was found and whether it is met."""
    found = document["summary"]
    # The first is the same work on both sides, the forward pass included.
    speedup, whole = found["loop_over_tables_with_forward"], found["loop_over_profile"]
    excess = found["excess"]["median"]
    return [
        {"aim": "errors of all tensors, warm, at least 20 times faster than the loop",
         "found": f"{format_number(speedup)} times", "met": speedup >= LEAST_SPEEDUP},
        {"aim": "whole profile, warm, at least 20 times faster than the loop, which does less",
         "found": f"{format_number(whole)} times", "met": whole >= LEAST_SPEEDUP},
        {"aim": f"solve {document['counts']['large_layers']} layers with branches under 30 s",
         "found": format_ms(found["solve_large_s"]),
         "met": found["solve_large_s"] < LONGEST_LARGE_SOLVE_S},
        {"aim": "solve, the full Pareto front included, under 1 s",
         "found": format_ms(found["solve_s"]), "met": found["solve_s"] < LONGEST_SOLVE_S},
        {"aim": "trace under 5 s",
         "found": format_ms(found["trace_s"]), "met": found["trace_s"] < LONGEST_TRACE_S},
        {"aim": "median error at most 2 % above the loop's",
         "found": f"{format_percent(excess)} above", "met": excess < LARGEST_EXCESS},
    ]  # fmt: skip


def time_rows(document: Document) -> list[dict[str, str]]:
    """Returns a row for each step, and for the two NumPy ways."""
    times, numpy_side = document["times"], document["numpy"]
    one_forward_s = times["forward"]["median_s"] / document["counts"]["calls"]
    rows = [
        {"step": name, "first call": _seconds(t["first_s"]),
         "then (median)": _seconds(t["median_s"]),
         "calls": str(len(t["warm_s"])), "processor": _seconds(t["median_cpu_s"]),
         "in forward passes": format_number(t["median_s"] / one_forward_s),
         "memory added": _size(t["added_bytes"])}
        for name, t in times.items()
    ]  # fmt: skip
    for title, name in ((HISTOGRAM, "histogram"), (LOOP, "loop")):
        side = numpy_side[name]
        median_s = statistics.median(side["pass_s"])
        rows.append({
            "step": title, "first call": "–", "then (median)": _seconds(median_s),
            "calls": str(len(side["pass_s"])),
            "processor": _seconds(statistics.median(side["pass_cpu_s"])),
            "in forward passes": format_number(median_s / one_forward_s),
            "memory added": _size(side["added_bytes"]),
        })  # fmt: skip
    return rows


def ratio_rows(document: Document) -> list[dict[str, str]]:
    """Returns how many times faster autosplit is, by what is compared."""
    found = document["summary"]
    pairs = {
        "error tables against the loop, forward pass on both sides":
            "loop_over_tables_with_forward",
        "error tables against the loop, forward pass on neither":
            "loop_over_tables_without_forward",
        "first call, compilation included, against the loop": "loop_over_tables_first_call",
        "whole profile against the loop alone": "loop_over_profile",
        "whole profile, first call, against the loop alone": "loop_over_profile_first_call",
        "of this: histogram in place of the grid (NumPy against NumPy)": "loop_over_histogram",
        "of this: XLA in place of NumPy (histogram against histogram)":
            "histogram_over_tables_without_forward",
    }  # fmt: skip
    return [
        {"comparison": title, "times faster": format_number(found[name])}
        for title, name in pairs.items()
    ]


def markdown_text(document: Document) -> str:
    """Writes the results as Markdown."""
    found, counts, record = document["summary"], document["counts"], document["record"]
    excess, other = found["excess"], found["excess_of_numpy_histogram"]
    device = record["device"]
    elements = counts["activation_elements"] + counts["weight_elements"]
    aims = [row | {"met": "yes" if row["met"] else "NO"} for row in aims_of(document)]
    loop_cpu_s = statistics.median(document["numpy"]["loop"]["pass_cpu_s"])
    return f"""# {document["title"]}

{markdown_table(aims)}

## Ratios

{markdown_table(ratio_rows(document))}

The loop quantizes and dequantizes {elements / 1e6:.1f} million elements
({counts["activation_elements"] / 1e6:.1f} of activations in {counts["calls"]} calls,
{counts["weight_elements"] / 1e6:.1f} of weights) at {counts["bits"]} bit-widths and
{counts["ratios"]} clips, a grid and its best refined: {found["loop_steps_per_s"] / 1e6:.0f} million
elements a second on {loop_cpu_s / found["loop_s"]:.1f} cores. autosplit may use all
{device["cpu_cores"]}. A whole profile also runs the network forward and backward and prices
layers, cuts and image encodings; the loop does none of that.

## Times

{markdown_table(time_rows(document))}

A forward pass is one call of the float network, warm, in the same process. Memory added is the
peak of resident memory less that before the step; autosplit holds the tensors of as many
calls as fit its budget (1 GiB), the NumPy ways read them from disk one by one (not timed).

## The same answer

Error at the clip that autosplit chose, above the least error that the loop found: median
{format_percent(excess["median"])}, 95 % of {len(document["tensors"]) * counts["bits"]} pairs of
tensor and bit-width below {format_percent(excess["quantile_95"])}, largest
{format_percent(excess["largest"])}. The histogram in NumPy: median
{format_percent(other["median"])}, largest {format_percent(other["largest"])}.

## Memory traffic

Every element is read at least {READS_OF_STATISTICS + counts["bits"]} times,
{format_size(found["moved_bytes"])} in all: {found["throughput_bytes_per_s"] / 1e9:.1f} GB/s,
{format_number(found["throughput_over_copy"])} times the rate of a memory copy in the same run
({found["copy_bytes_per_s"] / 1e9:.1f} GB/s read and written).

## Run

Commit {record["git"]["commit"]}{" with changes" if record["git"]["dirty"] else ""}, seed
{record["seed"]}, {device["platform"]} on {device["cpu"]} with {device["cpu_cores"]} cores, jax
{record["packages"]["jax"]}, numpy {record["packages"]["numpy"]}, {record["started_utc"]}.
{counts["layers"]} layers, {counts["tensors"]} tensors, {counts["cuts"]} cuts,
{counts["plans"]} plans.
"""


def csv_text(document: Document) -> str:
    """Writes a row for each step with its times in seconds and memory in bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "first_s", "median_s", "median_cpu_s", "calls", "added_bytes"])
    for name, t in document["times"].items():
        writer.writerow([name, t["first_s"], t["median_s"], t["median_cpu_s"], len(t["warm_s"]),
                         t["added_bytes"]])  # fmt: skip
    for title, name in ((HISTOGRAM, "histogram"), (LOOP, "loop")):
        side = document["numpy"][name]
        medians = [statistics.median(side[field]) for field in ("pass_s", "pass_cpu_s")]
        writer.writerow([title, None, *medians, len(side["pass_s"]), side["added_bytes"]])
    return text.getvalue()


def time_figure(document: Document) -> Any:
    """Plots each step's first call and the median of the rest on a log scale, for `save_figure`."""
    times, found = document["times"], document["summary"]
    names = [LOOP, HISTOGRAM, *sorted(times, key=lambda name: -times[name]["median_s"])]
    warm = [found["loop_s"], found["histogram_s"], *(times[n]["median_s"] for n in names[2:])]
    first = [np.nan, np.nan, *(times[n]["first_s"] for n in names[2:])]
    with style():
        figure, axes = new_figure(8.6, 1.3 + 0.42 * len(names))
        rows = np.arange(len(names))
        colours = [NUMPY] * 2 + [OURS] * (len(names) - 2)
        axes.barh(rows, warm, height=0.6, color=colours)
        axes.scatter(first, rows, marker="|", s=130, color=FIRST, label="first call")
        for row, (seconds, compiled) in enumerate(zip(warm, first, strict=True)):
            axes.annotate(_seconds(seconds), (seconds, row), xytext=(-6, 0), ha="right",
                          va="center", textcoords="offset points", color="white")  # fmt: skip
            if compiled > 2 * seconds:
                axes.annotate(_seconds(compiled), (compiled, row), xytext=(8, 0), va="center",
                              textcoords="offset points", color=FIRST)  # fmt: skip
        axes.set_xscale("log")
        # Room for the text of the shortest bar.
        axes.set_xlim(min(warm) / 10, max(*warm, np.nanmax(first)) * 4)
        axes.set_yticks(rows, names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        mute_spines(axes, "left")
        axes.grid(True, axis="x")
        axes.set_xlabel("seconds, warm, median; log scale")
        axes.set_title(document["title"])
        axes.legend(loc="lower right")
        settle_layout(figure)
    return figure


def _seconds(value: float) -> str:
    return format_ms(value) if value < 1 else f"{format_number(value)} s"


def _size(size_bytes: int | None) -> str:
    return "not known" if size_bytes is None else format_size(size_bytes)
