"""The table of methods as Markdown, CSV and a plot, and what it says about itself."""

from __future__ import annotations

import csv
import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autosplit.reporting.canvas import INK, new_figure, settle_layout, style
from autosplit.reporting.formats import format_error, format_percent
from autosplit.reporting.tables import markdown_table
from experiments.quantize_methods import FLOAT, ORDER

COLOURS = ("#2B7BBA", "#009E73", "#D55E00", "#7A5195", "#B08900")

POINT = 0.005
"""Half a point: what W8A8 may lose."""

FIELDS = (
    "method", "bits", "images", "top1", "top5", "agreement", "output_error", "quantize_s",
)  # fmt: skip

Row = Mapping[str, Any]


def measure_of(rows: Sequence[Row]) -> tuple[str, str]:
    """Returns the field that methods are compared by, and its name: top-1 where labels exist."""
    if all(row["top1"] is not None for row in rows):
        return "top1", "top-1"
    return "agreement", "agreement with float"


def table_csv(rows: Sequence[Row]) -> str:
    """Writes a row for each method and column; shares from 0 to 1, time in seconds."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=FIELDS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table_markdown(title: str, rows: Sequence[Row], record: Mapping[str, Any]) -> str:
    """Writes the tables, a column of bits each, and the findings."""
    float_row = next(row for row in rows if row["method"] == FLOAT)
    columns = list(dict.fromkeys(row["bits"] for row in rows if row["bits"]))
    sections = [
        f"## {bits}\n\n" + markdown_table([
            _cells(row) for row in (float_row, *(r for r in rows if r["bits"] == bits))
        ])
        for bits in columns
    ]  # fmt: skip
    findings = "\n".join(f"- {line}" for line in all_findings(rows))
    git, device = record["git"], record["device"]
    images = record["config"]["images"]
    tables = "\n\n".join(sections)
    return f"""# {title}

{findings}

{float_row["images"]} photographs are scored; {images["calibration"]} others calibrate. Output error
is the relative mean squared error of the logits against float. Seconds are those of
quantization, without scoring.

{tables}

Commit {git["commit"]}{" with changes" if git["dirty"] else ""}, seed {record["seed"]},
{device["cpu"]} with {device["cpu_cores"]} cores, jax {record["packages"]["jax"]},
{record["started_utc"]}.
"""


def _cells(row: Row) -> dict[str, str]:
    def share(field: str) -> str:
        return "–" if row[field] is None else format_percent(row[field])

    seconds = row["quantize_s"]
    return {
        "method": row["method"],
        "top-1": share("top1"),
        "top-5": share("top5"),
        "agreement": share("agreement"),
        "output error": format_error(float(row["output_error"])),
        "seconds": "–" if seconds is None else f"{seconds:.1f}",
    }


def all_findings(rows: Sequence[Row]) -> list[str]:
    """Says whether W8A8 is within half a point, and whether the published order holds."""
    field, name = measure_of(rows)
    at_8_bits = [row for row in rows if row["bits"] == "W8A8"]
    found = [_within_point(rows, at_8_bits, field, name)] if at_8_bits else []
    for bits in dict.fromkeys(row["bits"] for row in rows if row["bits"].startswith("W4")):
        for order in ORDER:
            by_method = {row["method"]: row for row in rows if row["bits"] == bits}
            if all(method in by_method for method in order):
                found.append(_order(bits, [by_method[m] for m in order], field, name))
    return found


def _within_point(
    rows: Sequence[Row], candidates: Sequence[Row], field: str, name: str
) -> str:
    target = next(row for row in rows if row["method"] == FLOAT)[field]
    within = [row["method"] for row in candidates if row[field] >= target - POINT - 1e-9]
    best = max(candidates, key=lambda row: row[field])
    verdict = "is" if within else "is not"
    listed = f": {'; '.join(within)}" if within else ""
    return (
        f"W8A8 {verdict} within 0.5 point of float ({format_percent(target)} {name}) by "
        f"{len(within)} of {len(candidates)} methods{listed}; the best is {best['method']} with "
        f"{format_percent(best[field])}."
    )


def _order(bits: str, rows: Sequence[Row], field: str, name: str) -> str:
    """Compares neighbours in the published order by the measure, and by the output error."""
    chain = " < ".join(f"{row['method']} {format_percent(row[field])}" for row in rows)
    breaks = [
        f"{second['method']} is not above {first['method']}"
        for first, second in itertools.pairwise(rows)
        if second[field] <= first[field]
    ]
    errors = [float(row["output_error"]) for row in rows]
    falling = all(b < a for a, b in itertools.pairwise(errors))
    verdict = "holds" if not breaks else f"does not hold ({'; '.join(breaks)})"
    return (
        f"{bits}: the published order by {name} {verdict}: {chain}; by output error it "
        f"{'holds' if falling else 'does not hold'}: "
        f"{', '.join(format_error(e) for e in errors)}. One photograph is "
        f"{format_percent(1 / rows[0]['images'])}."
    )


def table_figure(title: str, rows: Sequence[Row]) -> Any:
    """Plots the measure of all methods as bars, for `save_figure`."""
    field, name = measure_of(rows)
    columns = list(dict.fromkeys(row["bits"] for row in rows if row["bits"]))
    methods = list(dict.fromkeys(row["method"] for row in rows if row["bits"]))
    found = {(row["method"], row["bits"]): row[field] for row in rows}
    height = 0.8 / len(columns)
    with style():
        figure, axes = new_figure(9.0, 1.2 + 0.5 * len(methods))
        for number, (bits, colour) in enumerate(zip(columns, _cycle(len(columns)), strict=True)):
            place = np.arange(len(methods)) + (number - (len(columns) - 1) / 2) * height
            bars = {y: 100 * found[method, bits] for y, method in zip(place, methods, strict=True)
                    if (method, bits) in found}  # fmt: skip
            axes.barh(list(bars), list(bars.values()), height=0.9 * height, color=colour,
                      label=bits)  # fmt: skip
            for y, share in bars.items():
                axes.text(share + 0.5, y, f"{share:.1f}", va="center", fontsize=7)
        target = 100 * next(row for row in rows if row["method"] == FLOAT)[field]
        axes.axvline(target, color=INK, linewidth=1, linestyle="--", label=f"float {target:.1f}")
        axes.set_yticks(np.arange(len(methods)), [textwrap.fill(name, 24) for name in methods])
        axes.invert_yaxis()
        axes.set_xlim(0, 108)
        axes.set_xlabel(f"{name} (%)")
        axes.set_title(title)
        axes.grid(True, axis="x")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(columns) + 1)
        settle_layout(figure)
    return figure


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]
