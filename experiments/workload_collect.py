"""The step ``collect``: all workloads of a work directory as one table and one plot."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autosplit.errors import InputError
from autosplit.files import write_json, write_text
from autosplit.reporting.canvas import INK, new_figure, save_figure, settle_layout, style
from autosplit.reporting.formats import format_error, format_ms, format_percent, format_size
from autosplit.reporting.tables import markdown_table
from experiments.paper_plans import EDGE, JPEG, PNG, RAW, UNIFORM
from experiments.paper_plots import COLOURS, MARKERS
from experiments.paper_tables import csv_text
from experiments.workload_documents import Document, read_step
from experiments.workload_evaluate import SHARES

TABLE, PLOT, PAGE, RECORD = "workloads.csv", "workloads.png", "workloads.md", "workloads.json"
CHOSEN = "auto-split"
OTHERS = (EDGE, "DADS", "neurosurgeon", UNIFORM, RAW, PNG, JPEG)
"""What the chosen split is compared with, by the names of the step ``latency``."""
TITLES = {JPEG: "cloud-only, JPEG", PNG: "cloud-only, PNG", RAW: "cloud-only, raw",
          UNIFORM: "one width"}  # fmt: skip

PLANNING = ("trace", "profile", "solve")

Found = dict[str, Document]


def collect(workdir: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Writes the table, the plot, the run record and, last, the page.

    Args:
      workdir: of one workload, or with a folder for each.
      record: of this run.

    Raises:
      InputError: no workload there has its latencies.
    """
    every = {name: found for name, found in _workloads(workdir).items() if "latency" in found}
    if not every:
        raise InputError(
            f"{workdir} has no workload with a finished latency.json, in itself or in a folder; "
            "expected one. Run --step=latency or --step=all there first."
        )
    rows = [row_of_workload(name, found) for name, found in every.items()]
    write_text(workdir / TABLE, csv_text(rows))
    save_figure(workloads_figure(rows), workdir / PLOT)
    write_json(workdir / RECORD, {"workloads": list(every), "record": record})
    write_text(workdir / PAGE, page_text(rows))


def _workloads(workdir: pathlib.Path) -> dict[str, Found]:
    """Returns the documents of each workload by the name of its folder."""
    folders = [workdir, *sorted(path for path in workdir.iterdir() if path.is_dir())]
    names = ("statistics", "split", "latency", "evaluate")
    found = {
        folder.name: {name: document for name in names if (document := read_step(folder, name))}
        for folder in folders
    }
    return {name: documents for name, documents in found.items() if documents}


def row_of_workload(name: str, found: Found) -> dict[str, Any]:
    """Returns all that is told of a workload; None where it is not known.

    Args:
      name: of its folder.
      found: its documents by step; ``evaluate`` may be missing.
    """
    about, solved, latency = (found[s]["result"] for s in ("statistics", "split", "latency"))
    scores = found["evaluate"]["result"] if "evaluate" in found else {}
    config = found["statistics"]["record"]["config"]
    chosen, measured = solved["chosen"] or {}, latency["measured"] or {}
    times = about | solved
    return {
        "workload": name,
        "title": config["title"],
        "random_weights": about["random_weights"],
        "input": "x".join(map(str, about["input_shape"])),
        "layers": about["layers"],
        "macs": about["macs"],
        "parameters": about["parameters"],
        "candidates": about["candidates"],
        "all_cuts_listed": not about["open_cuts"],
        "memory_limit_bytes": config["constraints"].get("memory_bytes"),
        "chosen": chosen.get("label"),
        "cut": chosen.get("cut"),
        "edge_layers": chosen.get("edge_layers"),
        "mean_weight_bits": chosen.get("mean_weight_bits"),
        "uplink_bytes": chosen.get("uplink_bytes"),
        "edge_memory_bytes": chosen.get("edge_memory_bytes"),
        f"simulated_s {CHOSEN}": chosen.get("simulated_latency_s"),
        **{f"simulated_s {other}": _latency_s(latency["rows"].get(other)) for other in OTHERS},
        **{f"keeps_limits {other}": _keeps(latency["rows"].get(other)) for other in OTHERS},
        "fastest": fastest_of(chosen, latency["rows"]),
        "measured_float_s": measured.get("float_s"),
        "measured_halves_over_float": measured.get("halves_over_float"),
        **{
            f"{side}_{score}": (scores.get(side) or {}).get(score)
            for side in ("float", "chosen")
            for score in (*SHARES, "output_error")
        },
        "photographs": (scores.get("float") or {}).get("images"),
        **{f"{name}_s": times[f"{name}_s"] for name in PLANNING},
        "plan_s": sum(times[f"{name}_s"] for name in PLANNING),
        "plan_cpu_s": sum(times[f"{name}_cpu_s"] for name in PLANNING),
    }


def fastest_of(chosen: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the name of the fastest of what is compared that keeps its limits.

    >>> rows = {"DADS": {"simulated_latency_s": 2.0, "keeps_constraints": True}}
    >>> fastest_of({"simulated_latency_s": 1.0}, rows), fastest_of({}, rows)
    ('auto-split', 'DADS')
    """
    known = {name: rows[name] for name in OTHERS if name in rows}
    seconds = {
        TITLES.get(name, name): row["simulated_latency_s"]
        for name, row in known.items() if row["keeps_constraints"]
    }  # fmt: skip
    if chosen:
        seconds[CHOSEN] = chosen["simulated_latency_s"]
    return min(seconds, key=lambda name: seconds[name])


def _latency_s(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else row["simulated_latency_s"]


def _keeps(row: Mapping[str, Any] | None) -> bool | None:
    return None if row is None else row["keeps_constraints"]


def page_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page in Markdown: three tables and the plot."""
    parts = [
        "# All workloads",
        "Latencies are **simulated** unless a column says measured; seconds of trace, profile and "
        "solve, and the ratio to float, were measured on the machine that ran this.",
        f"![latencies of all workloads]({PLOT})",
        "## Networks and their planning",
        markdown_table([_network_cells(row) for row in rows]),
        "## The chosen split",
        markdown_table([_chosen_cells(row) for row in rows]),
        "## Simulated latency (a star: breaks a limit)",
        markdown_table([_latency_cells(row) for row in rows]),
        f"All columns: [{TABLE}]({TABLE})",
    ]
    if any(row["random_weights"] for row in rows):
        parts.insert(2, RANDOM_NOTE)
    return "\n\n".join(parts) + "\n"


RANDOM_NOTE = (
    "The weights of networks marked *random* were drawn at random: their latencies do not depend "
    "on it, their accuracy means nothing, and agreement and output error say how far the "
    "quantized network is from the same network in float."
)


def _title(row: Mapping[str, Any]) -> str:
    return row["title"] + (" *random*" if row["random_weights"] else "")


def _network_cells(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "network": _title(row),
        "input": row["input"],
        "layers": f"{row['layers']}",
        "MACs (million)": f"{row['macs'] / 1e6:,.0f}",
        "parameters (million)": f"{row['parameters'] / 1e6:.2f}",
        "cuts listed": f"{row['candidates']:,}" + ("" if row["all_cuts_listed"] else " of more"),
        "trace": f"{row['trace_s']:.1f} s",
        "profile": f"{row['profile_s']:.1f} s",
        "solve": f"{row['solve_s']:.1f} s",
        "all three": f"{row['plan_s']:.1f} s",
        "of the processor": f"{row['plan_cpu_s']:.1f} s",
    }


def _chosen_cells(row: Mapping[str, Any]) -> dict[str, str]:
    limit, chosen = row["memory_limit_bytes"], row["chosen"] is not None
    return {
        "network": _title(row),
        "cut": row["cut"] if chosen else "none keeps the limits",
        "edge layers": f"{row['edge_layers']}" if chosen else "–",
        "mean weight bits": f"{row['mean_weight_bits']:.1f}" if row["mean_weight_bits"] else "–",
        "sent": format_size(row["uplink_bytes"]) if chosen else "–",
        "edge memory": (
            format_size(row["edge_memory_bytes"]) + ("" if limit is None else
                                                     f" of {format_size(limit)}")
            if chosen else "–"
        ),
        "float": _score_text(row, "float"),
        "as split": _score_text(row, "chosen"),
        "halves over float here (measured)": (
            f"{row['measured_halves_over_float']:.2f}"
            if row["measured_halves_over_float"] else "–"
        ),
    }  # fmt: skip


def _score_text(row: Mapping[str, Any], side: str) -> str:
    told = [
        f"{name} {format_percent(row[f'{side}_{score}'])}"
        for score, name in SHARES.items()
        if row[f"{side}_{score}"] is not None and not (side == "float" and score == "agreement")
    ]
    error = row[f"{side}_output_error"]
    if side == "chosen" and error is not None:
        told.append(f"error {format_error(float(error))}")
    return ", ".join(told) or "–"


def _latency_cells(row: Mapping[str, Any]) -> dict[str, str]:
    cells = {"network": _title(row), CHOSEN: _ms(row[f"simulated_s {CHOSEN}"], True)}
    for other in OTHERS:
        cells[TITLES.get(other, other)] = _ms(
            row[f"simulated_s {other}"], row[f"keeps_limits {other}"]
        )
    return cells | {"fastest within the limits": row["fastest"]}


def _ms(seconds: float | None, keeps: bool | None) -> str:
    return "–" if seconds is None else format_ms(seconds) + ("" if keeps else " *")


def workloads_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Plots the latency of each way to run each workload over cloud-only with the raw input."""
    with style():
        figure, axes = new_figure(9.6, 1.6 + 0.34 * len(rows))
        for name in (*OTHERS, CHOSEN):
            points = [
                (row[f"simulated_s {name}"] / row[f"simulated_s {RAW}"], place,
                 1.0 if name == CHOSEN or row[f"keeps_limits {name}"] else 0.3)
                for place, row in enumerate(rows)
                if row[f"simulated_s {name}"] is not None and row[f"simulated_s {RAW}"]
            ]  # fmt: skip
            for x, y, alpha in points:
                axes.plot(x, y, linestyle="", marker=MARKERS.get(name, "2"), alpha=alpha,
                          color=COLOURS.get(name, "#56B4E9"), zorder=3,
                          markersize=10 if name == CHOSEN else 6.5)  # fmt: skip
            # The first of the others may be pale.
            axes.plot([], [], linestyle="", marker=MARKERS.get(name, "2"),
                      color=COLOURS.get(name, "#56B4E9"), label=TITLES.get(name, name))  # fmt: skip
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        ticks = [s * 10.0**p for p in range(-4, 3) for s in (1, 2, 5) if low <= s * 10.0**p <= high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(np.arange(len(rows)), [row["title"] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(1.0, color=INK, linewidth=1.0, linestyle=":")
        axes.grid(True)
        axes.set_xlabel("simulated latency over cloud-only with the raw input "
                        "(pale: breaks a limit)")  # fmt: skip
        figure.legend(loc="outside upper center", ncols=4, fontsize=8.5)
        settle_layout(figure)
    return figure
