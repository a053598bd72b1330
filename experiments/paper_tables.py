"""The tables of the paper's experiments: rows in full for CSV, in few words for Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autosplit.reporting.formats import (
    format_error,
    format_ms,
    format_number,
    format_percent,
    format_rate,
    format_size,
)
from autosplit.solvers.constraints import known_error
from autosplit.workload import FLOAT_BITS
from experiments.paper_plans import AUTO, EDGE, JPEG, PNG, PREDICTED, RAW, UNIFORM, Entry
from experiments.paper_sweeps import BEST_PLAIN, HEURISTIC, LEAST_ENERGY, SAME_PLAN

Row = dict[str, Any]

STAGE_FIELDS = ("edge_s", "pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s",
                "round_trip_s")  # fmt: skip

PAPER_MBPS = 1024**2

TITLES = {
    "bandwidth": "uplink",
    "error": "error limit",
    "memory": "edge memory budget",
    "transmission": "uplink",
    "energy": "network",
}
"""What each sweep varies."""


def value_text(sweep: str, value: Any) -> str:
    """Writes a value of a sweep.

    >>> [value_text(*pair) for pair in (("memory", 1 << 20), ("error", 0.02), ("energy", "4g"))]
    ['1.00 MiB', '0.02', '4g']
    >>> value_text("bandwidth", 3.0 * 1024**2), value_text("bandwidth", 1e5)
    ('3 Mbps', '100 kbit/s')
    """
    if sweep in ("bandwidth", "transmission"):
        # The paper's megabit has 1024 * 1024 bits.
        whole = value % PAPER_MBPS == 0
        return f"{value / PAPER_MBPS:g} Mbps" if whole else format_rate(value)
    return format_size(value) if sweep == "memory" else f"{value}"


def row_of(entry: Entry) -> Row:
    """Returns all that is known of an entry; what was simulated says so in its name."""
    plan = entry.plan
    weights = [b for b, on in zip(plan.w_bits, plan.on_edge, strict=True) if on and b < FLOAT_BITS]
    stages = {f"simulated_{name}": getattr(plan, name) for name in STAGE_FIELDS}
    return {
        "value": entry.value,
        "plan": entry.series,
        "label": plan.label,
        "cut": plan.cut_name,
        "encoding": plan.encoding,
        "edge_layers": sum(plan.on_edge),
        "mean_weight_bits": sum(weights) / len(weights) if weights else None,
        "simulated_latency_s": plan.latency_s,
        "simulated_over_cloud_only": plan.latency_s / entry.cloud_only_s,
        **stages,
        "simulated_energy_j": plan.energy_j,
        "uplink_bytes": plan.uplink_bytes,
        "edge_memory_bytes": plan.edge_memory_bytes,
        "predicted_output_error": plan.predicted_output_error if plan.error_is_predicted else None,
        "measured_output_error": plan.output_error,
        "keeps_predicted": entry.keeps_predicted,
        "keeps_constraints": plan.feasible,
        "reason": plan.reason,
    }


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes rows with the same keys as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def comparison_rows(entries: Sequence[Entry]) -> list[Row]:
    """Returns a row for each way to run the network, the fastest first."""
    ranked = sorted(entries, key=lambda entry: entry.plan.latency_s)
    return [
        {
            "plan": entry.series,
            "cut": entry.plan.cut_name,
            "latency (simulated)": format_ms(entry.plan.latency_s),
            "over cloud-only raw (simulated)": ratio(entry.plan.latency_s, entry.cloud_only_s),
            "sent": format_size(entry.plan.uplink_bytes),
            "edge memory": format_size(entry.plan.edge_memory_bytes),
            "output error": error_text(entry),
            "breaks": ", ".join(broken(entry)) or "–",
        }
        for entry in ranked
    ]


def broken(entry: Entry) -> list[str]:
    """Returns the names of the constraints that a plan breaks."""
    reasons = [] if entry.plan.feasible else entry.plan.reason.split("; ")
    return [reason.partition(":")[0].replace("_bytes", "").replace("_", " ") for reason in reasons]


def error_text(entry: Entry) -> str:
    """Writes the error and whether it was measured."""
    measured = entry.plan.output_error is not None
    return f"{format_error(known_error(entry.plan))} {'measured' if measured else 'predicted'}"


def ratio(value: float, base: float) -> str:
    """Writes how many times ``base`` a value is.

    >>> ratio(1.0, 3.0)
    '0.333'
    """
    return f"{value / base:.3f}"


def by_value(entries: Sequence[Entry]) -> dict[Any, dict[str, Entry]]:
    """Returns the entries by value, then by series, in the order in which they came."""
    table: dict[Any, dict[str, Entry]] = {}
    for entry in entries:
        table.setdefault(entry.value, {})[entry.series] = entry
    return table


def sweep_rows(sweep: str, entries: Sequence[Entry], series: Sequence[str]) -> list[Row]:
    """Returns a row for each value, with the latency of each series."""
    rows = []
    for value, found in by_value(entries).items():
        cells = {f"{name} (simulated)": _latency(found.get(name)) for name in series}
        best, predicted = found.get(AUTO), found.get(PREDICTED)
        rows.append(
            {TITLES[sweep]: value_text(sweep, value)}
            | cells
            | {"cut of auto-split": best.plan.cut_name if best else "–",
               "its output error": error_text(best) if best else "–",
               "error of the optimum": error_text(predicted) if predicted else "–"}
        )  # fmt: skip
    return rows


def _latency(entry: Entry | None) -> str:
    if entry is None:
        return "none fits"
    mark = "" if entry.plan.feasible else " (breaks a limit)"
    return f"{format_ms(entry.plan.latency_s)}{mark}"


def optimum(found: Mapping[str, Entry]) -> Entry:
    """Returns the exact optimum of what the original searches: splits, edge-only, raw."""
    candidates = [found[name] for name in (PREDICTED, EDGE, RAW) if name in found]
    return min((e for e in candidates if e.keeps_predicted), key=lambda e: e.plan.latency_s)


def best_mixed(found: Mapping[str, Entry]) -> Entry | None:
    """Returns the fastest plan of mixed bits whose measured error keeps the limit, if any."""
    fitting = [found[n] for n in (AUTO, EDGE) if n in found and found[n].plan.feasible]
    return min(fitting, key=lambda entry: entry.plan.latency_s, default=None)


def exactness_rows(sweeps: Mapping[str, Sequence[Entry]]) -> list[Row]:
    """Compares the original's search with the optimum under the same limits and charging."""

    def row(name: str, value: Any, found: Mapping[str, Entry]) -> Row:
        best, other = optimum(found), found[HEURISTIC]
        return {
            "limit": f"{TITLES[name]} {value_text(name, value)}",
            "optimum (simulated)": format_ms(best.plan.latency_s),
            "it is": best.plan.label,
            "heuristic (simulated)": format_ms(other.plan.latency_s),
            "heuristic's cut": other.plan.cut_name,
            "heuristic over optimum": ratio(other.plan.latency_s, best.plan.latency_s),
        }

    return _budget_rows(sweeps, row)


def bits_rows(sweeps: Mapping[str, Sequence[Entry]]) -> list[Row]:
    """Compares mixed bits with one width everywhere, under the same measured limits."""

    def cells(title: str, entry: Entry | None) -> Row:
        return {
            f"{title} (simulated)": format_ms(entry.plan.latency_s) if entry else "none fits",
            f"{title}: memory": format_size(entry.plan.edge_memory_bytes) if entry else "–",
            f"{title}: error": error_text(entry) if entry else "–",
        }

    def row(name: str, value: Any, found: Mapping[str, Entry]) -> Row:
        best, other = best_mixed(found), found.get(UNIFORM)
        return {
            "limit": f"{TITLES[name]} {value_text(name, value)}",
            **cells("mixed bits", best),
            **cells("one width", other),
            "width": other.plan.label.removeprefix("uniform ") if other else "–",
            "one width over mixed": (
                ratio(other.plan.latency_s, best.plan.latency_s) if best and other else "–"
            ),
        }

    return _budget_rows(sweeps, row)


def _budget_rows(
    sweeps: Mapping[str, Sequence[Entry]], row: Callable[[str, Any, Mapping[str, Entry]], Row]
) -> list[Row]:
    return [
        row(name, value, found)
        for name in ("error", "memory")
        for value, found in by_value(sweeps[name]).items()
    ]


def transmission_rows(entries: Sequence[Entry]) -> list[Row]:
    """Compares packed transmission with sending 16-bit numbers."""
    shown = {"packed": PREDICTED, SAME_PLAN: SAME_PLAN, BEST_PLAIN: BEST_PLAIN}
    rows = []
    for value, found in by_value(entries).items():
        row = {TITLES["transmission"]: value_text("transmission", value)}
        for title, name in shown.items():
            entry = found.get(name)
            row |= {
                f"{title} (simulated)": format_ms(entry.plan.latency_s) if entry else "none fits",
                f"{title}: bytes": format_size(entry.plan.uplink_bytes) if entry else "–",
                f"{title}: cut": entry.plan.cut_name if entry else "–",
            }
        rows.append(row)
    return rows


def energy_rows(entries: Sequence[Entry]) -> list[Row]:
    """Puts the energy of the edge device beside the latency."""
    return [
        {
            "network": value_text("energy", entry.value),
            "plan": name,
            "cut": entry.plan.cut_name,
            "latency (simulated)": format_ms(entry.plan.latency_s),
            "energy (simulated)": joules_text(entry.plan.energy_j),
            "radio's part (simulated)": radio_text(entry),
            "output error": error_text(entry),
            "breaks": ", ".join(broken(entry)) or "–",
        }
        for found in by_value(entries).values()
        for name in (PREDICTED, LEAST_ENERGY, EDGE, RAW, PNG, JPEG)
        if (entry := found.get(name)) is not None
    ]


def joules_text(joules: float | None) -> str:
    """Writes an energy.

    >>> joules_text(0.0123), joules_text(None)
    ('12.3 mJ', 'not known')
    """
    return "not known" if joules is None else f"{format_number(joules * 1e3)} mJ"


def radio_text(entry: Entry) -> str:
    """Writes which part of the energy the radio takes."""
    plan = entry.plan
    if plan.energy_j is None or plan.uplink_j is None or plan.downlink_j is None:
        return "not known"
    radio_j = plan.uplink_j + plan.downlink_j
    return format_percent(radio_j / plan.energy_j) if plan.energy_j else "–"
