"""Tables and plots of a server under load and of a split on its link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autosplit.reporting.canvas import mute_spines, new_figure, settle_layout, style
from autosplit.reporting.tables import markdown_table
from experiments.speed_report import csv_text

__all__ = ["batching_gain", "csv_text", "load_figure", "markdown_text"]

COLOURS = ("#9aa3ad", "#2f6fde", "#d9822b", "#3d9a5f")
STAGES = {
    "edge": ("edge_s",),
    "pack, unpack": ("pack_s", "unpack_s"),
    "link": ("uplink_s", "downlink_s", "round_trip_s"),
    "queue": ("queue_s",),
    "cloud": ("cloud_s",),
}
"""Parts of a latency. One clock cannot tell the directions of a link apart: they are one."""


def markdown_text(document: Mapping[str, Any]) -> str:
    """Writes the tables and how they were measured."""
    record = document["record"]
    settings = record["config"]
    load = [
        {"split": row["split"], "batch up to": str(row["max_batch"]),
         "clients": str(row["clients"]), "requests/s": f"{row['requests_per_s']:.0f}",
         "p50": _ms(row["p50_s"]), "p95": _ms(row["p95_s"]), "p99": _ms(row["p99_s"]),
         "queue": _ms(row["queue_s"]), "cloud": _ms(row["cloud_s"]),
         "batch": f"{row['mean_batch']:.1f}"}
        for row in document["load"]
    ]  # fmt: skip
    gains = [
        {"split": split, "clients": str(clients), "gain": f"{gain:.2f}"}
        for (split, clients), gain in batching_gain(document["load"]).items()
    ]
    overhead = [
        {"split": row["split"], "p50": _ms(row["p50_s"]), "p95": _ms(row["p95_s"]),
         "p99": _ms(row["p99_s"])}
        for row in document["overhead"]
    ]  # fmt: skip
    return f"""# {document["title"]}

## Load

{markdown_table(load)}

Each client has a connection of its own and sends its next request when the answer is there;
clients and server share the machine. Servers with and without batches take turns. Queue and
cloud are medians; the time in the cloud is that of the batch. What batches gain, requests per
second over those of batches of 1:

{markdown_table(gains)}

## What serving adds

{markdown_table(overhead)}

Everything between an input and its outputs but the layers: packing, checks, gRPC over loopback
and the queue, with one client.

## On the link

{_link_text(document["link"])}

What the same device file predicts for sending photographs instead; whether JPEG keeps the
accuracy is not judged here (`make demo` does that):

{markdown_table(_cloud_only(document["plans"]))}

{settings["load"]["rounds"]} times {settings["load"]["seconds"]:g} s for each number of clients,
{settings["requests"]} requests one after the other for the rest. Load of the machine before and
after: {record["load_before"][0]:.1f} and {record["load_after"][0]:.1f}.
jax {record["packages"]["jax"]}; commit {record["git"]["commit"]}\
{" with changes" if record["git"]["dirty"] else ""}, {record["device"]["cpu"]} with
{record["device"]["cpu_cores"]} cores, {record["started_utc"]}.
"""


def batching_gain(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], float]:
    """Returns what batches gain, by split and clients.

    ``gain = requests_per_s of the largest max_batch / requests_per_s of the smallest``
    """
    by_case: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_case.setdefault((row["split"], row["clients"]), []).append(row)
    gains = {}
    for case, found in by_case.items():
        few, *_, many = sorted(found, key=lambda row: row["max_batch"])
        gains[case] = many["requests_per_s"] / few["requests_per_s"]
    return gains


def parts_of(stages: Mapping[str, float], total_s: float) -> dict[str, float]:
    """Returns seconds by the names of `STAGES`, and what they leave of a total.

    >>> parts_of({"edge_s": 1.0, "uplink_s": 2.0, "downlink_s": 3.0}, 7.0)["link"]
    5.0
    """
    parts = {name: sum(stages.get(one, 0.0) for one in fields) for name, fields in STAGES.items()}
    return parts | {"between": max(total_s - sum(parts.values()), 0.0)}


def _link_bars(row: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        "measured": parts_of(row["stages"], row["p50_s"]),
        "halves alone": parts_of(row["alone"], row["alone"]["latency_s"]),
        "plan": parts_of(row["plan"], row["plan"]["latency_s"]),
    }


def _link_text(row: Mapping[str, Any]) -> str:
    bars = _link_bars(row)
    table = [
        {"": name, **{part: _ms(taken_s) for part, taken_s in parts.items()},
         "total": _ms(sum(parts.values()))}
        for name, parts in bars.items()
    ]  # fmt: skip
    return f"""{row["split"]}, cut {row["cut"]}: {_ms(row["p50_s"])} (p95 {_ms(row["p95_s"])}),
which is {row["over_plan"]:.3f} of the plan's prediction from the layer times of the device file,
and {row["over_alone"]:.3f} of that from the halves timed without a server. An empty request takes
{_ms(row["round_trip_s"])} beside its bytes where the link alone would take
{_ms(row["plan"]["round_trip_s"])}; with that in the plan, the latency is
{row["over_plan_and_round_trip"]:.3f} of the prediction.

{markdown_table(table)}"""


def _cloud_only(plans: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [
        {"plan": plan["label"], "predicted": _ms(plan["latency_s"])}
        for plan in plans
        if plan["label"].startswith("cloud-only")
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def load_figure(document: Mapping[str, Any]) -> Any:
    """Plots latency over clients, a panel for each split, and the stages on the link."""
    rows = document["load"]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    with style():
        figure, axes = new_figure(4.2 * (len(splits) + 1), 3.4, ncols=len(splits) + 1)
        for panel, split in zip(axes, splits, strict=False):
            _plot_load(panel, [row for row in rows if row["split"] == split])
            panel.set_title(split)
        _plot_stages(axes[-1], document["link"])
        settle_layout(figure)
    return figure


def _plot_load(panel: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for most, colour in zip(sorted({row["max_batch"] for row in rows}), COLOURS, strict=False):
        found = [row for row in rows if row["max_batch"] == most]
        clients = [row["clients"] for row in found]
        median, high = ([row[name] * 1e3 for row in found] for name in ("p50_s", "p99_s"))
        panel.fill_between(clients, median, high, color=colour, alpha=0.15, linewidth=0)
        panel.plot(clients, median, marker="o", color=colour, label=f"batches up to {most}")
        last = found[-1]
        panel.annotate(
            f" {last['requests_per_s']:.0f}/s", (last["clients"], median[-1]), fontsize="small",
            color=colour, va="center",
        )  # fmt: skip
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(clients, [str(one) for one in clients])
    panel.minorticks_off()
    panel.margins(x=0.2)
    panel.set_xlabel("clients at the same time")
    panel.set_ylabel("latency, p50 to p99, ms")
    panel.legend(frameon=False, fontsize="small", loc="upper left")
    mute_spines(panel, "top", "right")


def _plot_stages(panel: Any, row: Mapping[str, Any]) -> None:
    bars = _link_bars(row)
    parts = list(next(iter(bars.values())))
    colours = dict(zip(parts, (*COLOURS[1:], "#c8506a", "#7a5ea8", "#9aa3ad"), strict=False))
    for place, found in enumerate(bars.values()):
        left = 0.0
        for part, taken_s in found.items():
            label = part if place == 0 else None
            panel.barh(place, taken_s * 1e3, left=left, color=colours[part], label=label)
            left += taken_s * 1e3
        panel.text(left, place, f" {left:.1f} ms", va="center", fontsize="small")
    panel.set_yticks(range(len(bars)), list(bars))
    panel.invert_yaxis()
    panel.margins(x=0.2)
    panel.set_title(f"{row['split']} on its link")
    panel.set_xlabel("latency, ms")
    panel.legend(frameon=False, fontsize="x-small", ncols=3, loc="upper center",
                 bbox_to_anchor=(0.5, -0.2))  # fmt: skip
    mute_spines(panel, "top", "right")
