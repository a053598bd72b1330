"""Table and plot of the search beside other libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autosplit.reporting.canvas import mute_spines, new_figure, settle_layout, style
from autosplit.reporting.tables import markdown_table
from experiments.speed_report import OTHERS, OURS

TITLES = {
    "statistics": "Clips of all tensors",
    "assignments": "Outputs of mixed assignments",
}


def markdown_text(document: Mapping[str, Any]) -> str:
    """Writes a table for each part, and how it was measured."""
    record = document["record"]
    settings = record["config"]
    parts = [f"# {document['title']}", "", f"On {settings['network']}.", ""]
    for part, title in TITLES.items():
        table = [
            {"": row["name"], "seconds": f"{row['seconds']:.3g}", "what": row["work"],
             "over ours, compiling": f"{row['of_compiling']:.1f}",
             "over ours, warm": f"{row['of_warm']:.1f}"}
            for row in document["rows"] if row["part"] == part
        ]  # fmt: skip
        parts += [f"## {title}", "", markdown_table(table), ""]
    parts.append(
        f"""Statistics: {settings["calibration"]} images. The peers know 8 bits alone: they are
charged one calibration for each method they have, and nothing for the other bit-widths, for
weights, or for the error at the clips, all of which ours finds.

Assignments: {settings["assignments"]} of them on {settings["images"]} images. Ours were all
measured; of the peers, {settings["peer_assignments"]} each, and the median is multiplied. They
calibrate on {settings["peer_calibration"]} images; "calibrated before" leaves that out, which their
public function cannot. They choose between 8 bits and float, having no 4 bits.

{record["threads"]} threads each; load of the machine before and after
{record["load_before"][0]:.1f} and {record["load_after"][0]:.1f}.
{", ".join(f"{name} {version}" for name, version in record["peers"].items())}, jax
{record["packages"]["jax"]}; commit {record["git"]["commit"]}\
{" with changes" if record["git"]["dirty"] else ""}, {record["device"]["cpu"]} with
{record["device"]["cpu_cores"]} cores, {record["started_utc"]}.
"""
    )
    return "\n".join(parts)


def search_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Plots seconds on a logarithmic axis, a panel for each part, for `save_figure`."""
    with style():
        figure, axes = new_figure(9.6, 3.2, ncols=len(TITLES))
        for panel, (part, title) in zip(axes, TITLES.items(), strict=True):
            group = [row for row in rows if row["part"] == part]
            places = range(len(group))
            colours = [OURS if row["name"].startswith("autosplit") else OTHERS for row in group]
            panel.barh(places, [row["seconds"] for row in group], color=colours)
            panel.set_yticks(places, [row["name"] for row in group], fontsize="small")
            panel.invert_yaxis()
            panel.set_xscale("log")
            panel.set_xlabel("seconds")
            panel.set_title(title)
            mute_spines(panel, "top", "right")
        settle_layout(figure)
    return figure
