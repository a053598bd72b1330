"""All workloads of the paper's experiments side by side."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from autosplit.files import write_text
from autosplit.reporting.canvas import save_figure
from autosplit.reporting.formats import format_error
from autosplit.reporting.tables import markdown_table
from experiments.paper_chart import bar_rows
from experiments.paper_page import PAGE, RANDOM_NOTE, SIMULATED_NOTE
from experiments.paper_plans import AUTO, EDGE, JPEG, PNG, RAW
from experiments.paper_plots import COLOURS, grouped_figure
from experiments.paper_tables import csv_text, ratio

SHOWN = (AUTO, EDGE, "DADS", "uniform 8-bit", "lagrange heuristic", RAW, PNG, JPEG)
SUMMARY = "summary.md"

Results = Mapping[str, Mapping[str, Any]]


def shown_rows(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the rows of the comparison by plan, the best JPEG among them.

    Args:
      document: what ``results.json`` holds.
    """
    rows = document["rows"]["comparison"]
    found = {row["plan"]: row for row in rows}
    for row in rows:
        if row["encoding"] == document["best_jpeg"]:
            found[JPEG] = row
    return {name: found[name] for name in SHOWN if name in found}


def summary_rows(results: Results) -> list[dict[str, str]]:
    """Returns a row for each workload and plan."""
    return [
        {
            "network": document["title"],
            "plan": name,
            "cut or code": row["encoding"] if row["edge_layers"] == 0 else row["cut"],
            "over cloud-only raw (simulated)": f"{row['simulated_over_cloud_only']:.3f}",
            "latency (simulated)": f"{row['simulated_latency_s'] * 1e3:.1f} ms",
            "output error (measured)": format_error(row["measured_output_error"]),
            "keeps its limits": "yes" if row["keeps_constraints"] else "no",
        }
        for document in results.values()
        for name, row in shown_rows(document).items()
    ]


def summary_groups(results: Results) -> dict[str, dict[str, float | None]]:
    """Returns the bars of the plot; plans that break a limit are left out."""
    return {
        document["title"].replace(" (", "\n("): {
            name: row["simulated_over_cloud_only"] if row["keeps_constraints"] else None
            for name, row in shown_rows(document).items()
        }
        for document in results.values()
    }


def write_summary(
    results: Results, chart: Sequence[Mapping[str, Any]], workdir: pathlib.Path
) -> pathlib.Path:
    """Writes ``summary.csv``, ``summary.png`` and ``summary.md``.

    Args:
      results: by name of the workload, what its ``results.json`` holds.
      chart: the bars of the original's chart.
      workdir: in which each workload has a folder.

    Returns:
      The page.
    """
    colours = {"uniform 8-bit": "#CC79A7", "lagrange heuristic": "#56B4E9"} | COLOURS
    figure = grouped_figure(
        "Plans that keep the limits of memory and error", summary_groups(results),
        {name: colours[name] for name in SHOWN},
        "simulated latency over\ncloud-only with the raw input", line_at=1.0,
    )  # fmt: skip
    save_figure(figure, workdir / "summary.png")
    rows = [
        {"network": document["title"], **row}
        for document in results.values() for row in document["rows"]["comparison"]
    ]  # fmt: skip
    write_text(workdir / "summary.csv", csv_text(rows))
    pages = [
        f"- [{document['title']}]({name}/{PAGE}): {verdict(document)}"
        for name, document in results.items()
    ]
    parts = ["# Auto-Split's experiments (simulated)", SIMULATED_NOTE]
    if any(document["random_weights"] for document in results.values()):
        parts.append(RANDOM_NOTE.replace("The weights", 'The weights marked so'))
    parts += [
        "\n".join(pages), "![all workloads](summary.png)", markdown_table(summary_rows(results)),
        "All plans: [summary.csv](summary.csv)",
        "## [The ResNet-50 chart of the original](chart.md) (simulated)",
        markdown_table(bar_rows(chart)),
    ]  # fmt: skip
    write_text(workdir / SUMMARY, "\n\n".join(parts) + "\n")
    return workdir / SUMMARY


def verdict(document: Mapping[str, Any]) -> str:
    """Says in a sentence what is fastest within the limits, and how the best split compares."""
    rows = [
        row for row in document["rows"]["comparison"]
        if row["keeps_constraints"]
        and (not row["encoding"].startswith("jpeg") or row["encoding"] == document["best_jpeg"])
    ]  # fmt: skip
    best = min(rows, key=lambda row: row["simulated_latency_s"])
    fastest_s = best["simulated_latency_s"]
    text = f"fastest within its limits is {best['plan']} ({fastest_s * 1e3:.1f} ms, simulated)"
    splits = [row for row in rows if row["plan"] == AUTO]
    if not splits:
        return f"{text}; no split keeps them"
    if best["plan"] == AUTO:
        return text
    times = ratio(splits[0]["simulated_latency_s"], fastest_s)
    return f"{text}; the best split takes {times} times as long"
