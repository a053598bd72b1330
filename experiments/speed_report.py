"""Tables and plots of the comparisons with other libraries."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from autosplit.reporting.canvas import mute_spines, new_figure, settle_layout, style
from autosplit.reporting.tables import markdown_table

OURS, OTHERS = "#2f6fde", "#9aa3ad"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes a row for each measurement; lists are left to the JSON file."""
    fields = [name for name, value in rows[0].items() if not isinstance(value, (list, tuple))]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def groups_of(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """Groups rows by network and batch, in order."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["batch"]), []).append(row)
    return groups


def markdown_text(document: Mapping[str, Any]) -> str:
    """Writes a table for each network and batch, and how it was measured."""
    parts = [f"# {document['title']}", ""]
    for (network, batch), rows in groups_of(document["rows"]).items():
        table = [
            {"": row["name"], "median": f"{row['median_s'] * 1e3:.2f} ms",
             "fastest": f"{row['fastest_s'] * 1e3:.2f} ms",
             "of torch float": f"{row['ratio']:.2f}",
             "fastest, likewise": f"{row['fastest_ratio']:.2f}",
             "output error": f"{row['output_error']:.2g}",
             "same class": f"{row['agreement']:.0%}"}
            for row in rows
        ]  # fmt: skip
        parts += [f"## {network}, batch {batch}", "", markdown_table(table), ""]
    record = document["record"]
    settings = record["config"]
    parts.append(
        f"""All in turn, {settings["rounds"]} rounds of {settings["calls"]} timed calls after one
that is not timed; {record["threads"]} threads each. Load of the machine before and after:
{record["load_before"][0]:.1f} and {record["load_after"][0]:.1f} (a busy machine slows torch most,
whose threads wait for each other: then read the fastest calls). Outputs are compared with
those of torch float on {settings["images"]} images, which also calibrated all 8-bit networks.

{", ".join(f"{name} {version}" for name, version in record["peers"].items())}, jax
{record["packages"]["jax"]}; commit {record["git"]["commit"]}\
{" with changes" if record["git"]["dirty"] else ""}, {record["device"]["cpu"]} with
{record["device"]["cpu_cores"]} cores, {record["started_utc"]}.
"""
    )
    return "\n".join(parts)


def speed_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Plots medians over torch's float, a panel for each network and batch, for `save_figure`."""
    groups = groups_of(rows)
    with style():
        figure, axes = new_figure(9.6, 2.6 * -(-len(groups) // 2) + 0.6,
                                  nrows=-(-len(groups) // 2), ncols=2, squeeze=False)  # fmt: skip
        panels = axes.ravel()
        for panel, ((network, batch), group) in zip(panels, groups.items(), strict=False):
            places = range(len(group))
            colours = [OURS if row["name"].startswith("autosplit") else OTHERS for row in group]
            panel.barh(places, [row["ratio"] for row in group], color=colours)
            for place, row in zip(places, group, strict=True):
                label = f" {row['ratio']:.2f} ({row['median_s'] * 1e3:.1f} ms)"
                panel.text(row["ratio"], place, label, va="center", fontsize="small")
            panel.set_yticks(places, [row["name"] for row in group], fontsize="small")
            panel.set_xlim(0, 1.35 * max(row["ratio"] for row in group))
            panel.invert_yaxis()
            panel.axvline(1, color="#444444", linewidth=0.8)
            panel.set_title(f"{network}, batch {batch}")
            panel.set_xlabel("time of a call over that of torch float")
            mute_spines(panel, "top", "right")
        for panel in panels[len(groups) :]:
            panel.set_visible(False)
        settle_layout(figure)
    return figure
