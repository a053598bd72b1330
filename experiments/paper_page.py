"""The results of one workload as files: tables, plots and the page that leads to them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from autosplit.files import write_text
from autosplit.reporting.canvas import save_figure
from autosplit.reporting.formats import format_size
from autosplit.reporting.tables import markdown_table
from experiments.paper_case import Case
from experiments.paper_plans import AUTO, EDGE, JPEG, PNG, PREDICTED, RAW, UNIFORM, Entry
from experiments.paper_plots import (
    comparison_figure,
    energy_figure,
    sweep_figure,
    transmission_figure,
)
from experiments.paper_sweeps import HEURISTIC, error_limit
from experiments.paper_tables import (
    bits_rows,
    comparison_rows,
    csv_text,
    energy_rows,
    exactness_rows,
    row_of,
    sweep_rows,
    transmission_rows,
    value_text,
)

RANDOM_NOTE = (
    "**The weights are random.** Latencies do not depend on what a network has learned; errors "
    "do, and those below say nothing about the accuracy of a trained network. Plans are held "
    "to a sum of local errors instead, which no JPEG has: the one of the best quality is shown."
)
SIMULATED_NOTE = (
    "All latencies and energies are **simulated**: computed by models of the devices and the link. "
    "One part is measured, on the machine that ran this and not on an edge device: the time in "
    "which JPEG and PNG are encoded and decoded. Errors are relative mean squared errors of the "
    "outputs on the photographs that calibrated, measured unless a table says predicted."
)
SERIES_NOTE = (
    f'"{AUTO}" is the fastest split found whose measured output error keeps the limit (if that is '
    f'limited), "{PREDICTED}" the '
    "exact optimum among splits by the error that the solver predicts: it never gets slower when a "
    "limit or the link gets wider, but its measured error can break the limit. One Mbps is the "
    "paper's, 1024 x 1024 bits a second."
)
SERIES = (AUTO, PREDICTED, EDGE, UNIFORM, RAW, PNG, JPEG)
BUDGET_SERIES = (AUTO, PREDICTED, EDGE, UNIFORM, HEURISTIC, RAW, PNG, JPEG)
SWEEPS = {
    "bandwidth": ("Bandwidth", (*SERIES, "DADS")),
    "error": ("Error limit", BUDGET_SERIES),
    "memory": ("Edge memory", BUDGET_SERIES),
}
PAGE = "paper.md"


def write_results(
    case: Case, entries: Mapping[str, Sequence[Entry]], workdir: pathlib.Path
) -> None:
    """Writes the tables, the plots and, last, the page.

    Args:
      case: what was solved.
      entries: from `paper_sweeps.run_all`.
      workdir: for the files.
    """
    for name, found in entries.items():
        write_text(workdir / f"{name}.csv", csv_text([row_of(entry) for entry in found]))
    title = case.title
    save_figure(comparison_figure(title, entries["comparison"]), workdir / "comparison.png")
    for name, (what, series) in SWEEPS.items():
        figure = sweep_figure(f"{title}: {what.lower()}", name, entries[name], series)
        save_figure(figure, workdir / f"{name}.png")
    save_figure(transmission_figure(f"{title}: what packing saves", entries["transmission"]),
                workdir / "transmission.png")  # fmt: skip
    save_figure(energy_figure(f"{title}: energy", entries["energy"]), workdir / "energy.png")
    write_text(workdir / PAGE, page_text(case, entries))


def page_text(case: Case, entries: Mapping[str, Sequence[Entry]]) -> str:
    """Returns the page in Markdown."""
    parts = [f"# {case.title}: Auto-Split's experiments (simulated)", SIMULATED_NOTE]
    parts += [RANDOM_NOTE] if case.random_weights else []
    parts += [_setting(case), SERIES_NOTE]
    parts += _section("Latency and error (simulated latency)", "comparison",
                      comparison_rows(entries["comparison"]))  # fmt: skip
    for name, (what, series) in SWEEPS.items():
        rows = sweep_rows(name, entries[name], series)
        parts += _section(f"{what} (simulated latency)", name, rows)
    parts += _section("Mixed bits against one width (simulated latency)", None, bits_rows(entries))
    parts += _section("Packed against 16-bit transmission (simulated latency)", "transmission",
                      transmission_rows(entries["transmission"]))  # fmt: skip
    parts += _section("Energy of the edge device beside latency (both simulated)", "energy",
                      energy_rows(entries["energy"]))  # fmt: skip
    parts += _section("What exactness buys (simulated latency)", None, exactness_rows(entries))
    return "\n\n".join(parts) + "\n"


def _setting(case: Case) -> str:
    profile, limits = case.profile, case.constraints.limits()
    network = profile.network
    facts = [
        f"edge {profile.edge_name}, cloud {profile.cloud_name}",
        f"uplink {value_text('bandwidth', network.uplink_bits_per_s)}, round trip "
        f"{network.round_trip_s * 1e3:g} ms, an answer of {format_size(profile.response_bytes)}",
        f"bits {', '.join(map(str, profile.bits.tolist()))}",
        f"{case.job.calibration} photographs",
    ]
    facts += [f"{name} at most {limit:g}" for name, limit in limits.items()]
    return f"Setting: {'; '.join(facts)}. Error limits are of `{error_limit(case.constraints)}`."


def _section(title: str, files: str | None, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    links = f"![{title}]({files}.png)\n\nAll columns: [{files}.csv]({files}.csv)" if files else ""
    return [part for part in (f"## {title}", markdown_table(rows), links) if part]
