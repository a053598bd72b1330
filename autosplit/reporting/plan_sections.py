"""The sections of the report page about the plans: tables, constraints, layers, plots."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

import numpy as np

from autosplit.profiling.plan import FLOAT_BITS, SplitPlan
from autosplit.reporting import summary
from autosplit.reporting.bit_bars import bits_figure, edge_rows
from autosplit.reporting.canvas import inline_svg
from autosplit.reporting.error_scatter import both_errors, error_figure
from autosplit.reporting.families import compared
from autosplit.reporting.formats import (
    format_number,
    format_percent,
    format_size,
)
from autosplit.reporting.pareto import pareto_figure
from autosplit.reporting.report_data import ReportData
from autosplit.reporting.sections import comparison_list, paragraph, section
from autosplit.reporting.stage_bars import latency_figure
from autosplit.reporting.tables import html_table, tag_html
from autosplit.solvers.constraints import costs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINDING = 0.95
"""Share of a limit from which on a constraint counts as binding."""

_COLUMN_TAGS = {
    "latency": "simulated",
    "sent": "counted",
    "edge memory": "counted",
    "edge layers": "counted",
}


def figures(data: ReportData) -> dict[str, Figure]:
    """Draws every plot that the data allows.

    Returns:
      By name: ``pareto``, ``latency``, and where there is something to show ``bits``
      (a layer on the edge) and ``error`` (a plan predicted and measured).
    """
    drawn = {
        "pareto": pareto_figure(data.plans, data.chosen),
        "latency": latency_figure(compared(data.plans, data.chosen)),
    }
    if any(data.chosen.on_edge):
        drawn["bits"] = bits_figure(data.profile, data.chosen)
    if both_errors(data.plans):
        drawn["error"] = error_figure(data.plans)
    return drawn


def plot(figure: Figure, name: str, caption: str, *tags: str) -> str:
    """Writes a plot with its caption and the tags of what it shows."""
    svg = inline_svg(figure, name, caption)
    marks = " ".join(tag_html(tag) for tag in tags)
    return (
        f'<figure><div class="scroll">{svg}</div>'
        f"<figcaption>{marks} {html.escape(caption)}</figcaption></figure>"
    )


def plan_row(data: ReportData, plan: SplitPlan) -> dict[str, str]:
    """Returns the cells of a plan in the tables of plans."""
    return {
        "plan": plan.label,
        "cut": plan.cut_name,
        "latency": f"{format_number(plan.latency_s * 1e3)} ms",
        "sent": format_size(plan.uplink_bytes),
        "edge memory": format_size(plan.edge_memory_bytes),
        "edge layers": str(sum(plan.on_edge)),
        "output error": summary.error_in_words(plan),
        "feasible": summary.standing(data, plan),
    }


def baselines(data: ReportData, drawn: dict[str, Figure]) -> str:
    """Writes the chosen plan against the baselines: in words, as a table, as bars."""
    shown = compared(data.plans, data.chosen)
    rows = []
    for plan in shown:
        accuracy = data.accuracy(plan.label)
        right = "–" if accuracy is None else f"{accuracy.correct} of {accuracy.images}"
        rows.append({**plan_row(data, plan), "right answers": right})
    caption = ("Predicted time of one request, by stage. Packing stands for image compression "
               "where the picture itself is sent; pale bars break a constraint.")
    return section(
        "The chosen plan against the alternatives",
        f"<p>All times {tag_html('simulated')}. Everybody pays for packing or image compression, "
        "every byte sent, both message headers, the round trip and the answer.</p>",
        comparison_list(data),
        html_table(rows, _COLUMN_TAGS | {"right answers": "measured"}, highlight=0),
        plot(drawn["latency"], "latency", caption, "simulated"),
    )


def choice(data: ReportData, drawn: dict[str, Figure]) -> str:
    """Writes all plans: the Pareto plot, and the table folded away."""
    rows = [{**plan_row(data, plan), "why": plan.reason or "–"} for plan in data.plans]
    table = html_table(rows, _COLUMN_TAGS, highlight=data.plans.index(data.chosen))
    caption = ("Every plan: further left is faster, further down is closer to the network as it "
               "was trained.")
    return section(
        "All plans",
        plot(drawn["pareto"], "pareto", caption, "simulated", *_error_tags(data)),
        f"<details><summary>all {len(rows)} plans as a table</summary>{table}</details>",
    )


def _error_tags(data: ReportData) -> tuple[str, ...]:
    return ("measured",) if any(p.output_error is not None for p in data.plans) else ()


def budget(data: ReportData) -> str:
    """Writes constraints, how much of each is used, and the certificate."""
    spent = costs(data.chosen)
    rows = [_budget_row(name, spent[name], limit, _origin(data.chosen, name))
            for name, limit in data.constraints.limits().items()]
    return section(
        "Constraints, and how good the plan can be at best",
        html_table(rows) if rows else paragraph("No constraint was set."),
        paragraph(f"A constraint binds from {BINDING * 100:.0f} % of its limit on: bits come in "
                  "steps, so the last few per cent can rarely be used.", "note") if rows else "",
        paragraph(summary.certificate(data)),
        paragraph(f"The solver says: {data.chosen.reason}", "note") if data.chosen.reason else "",
    )


def _origin(plan: SplitPlan, name: str) -> str:
    if name == "memory_bytes":
        return "counted"
    return "measured" if name == "output_error" and plan.output_error is not None else "simulated"


def _budget_row(name: str, value: float | None, limit: float, origin: str) -> dict[str, str]:
    title, show = summary.CONSTRAINTS[name]
    if value is None:
        used, state = "–", "not known"
    elif limit == 0:
        used, state = "–", "binds" if value == 0 else "broken"
    else:
        share = value / limit
        used = format_percent(share)
        state = "broken" if share > 1 + 1e-9 else "binds" if share >= BINDING else "has room"
    return {
        "constraint": title,
        "plan": "not known" if value is None else show(value),
        "limit": show(limit),
        "used": used,
        "state": state,
        "the plan's figure is": origin,
    }


def layers(data: ReportData, drawn: dict[str, Figure]) -> str:
    """Writes the bits of every layer on the edge, as bars and as a table."""
    if "bits" not in drawn:
        return section("Bits on the edge", paragraph("No layer runs on the edge."))
    caption = ("Bits of each layer on the edge, in the order in which they run. Orange activations "
               "are sent to the cloud; inputs are pixels of 8 bits.")
    share = format_percent(summary.edge_macs_share(data))
    table = html_table(_layer_rows(data))
    return section(
        "Bits on the edge",
        f"<p>The edge does {share} of the multiply-accumulates {tag_html('counted')}.</p>",
        plot(drawn["bits"], "bits", caption, "counted"),
        f"<details><summary>the same as a table</summary>{table}</details>",
    )


def _layer_rows(data: ReportData) -> list[dict[str, str]]:
    profile = data.profile
    rows = []
    for row in edge_rows(profile, data.chosen):
        macs, size = "–", "–"
        if row.layer is not None:
            macs = f"{int(profile.macs[row.layer]):,}"
        if row.layer is not None and row.w_bits is not None:
            index = int(np.searchsorted(profile.bits, row.w_bits))
            size = format_size(int(profile.weight_bytes[row.layer, index]))
        rows.append({
            "layer": row.name,
            "MACs": macs,
            "weight bits": "–" if row.w_bits is None else str(row.w_bits),
            "weight size": size,
            "activation bits": "own width" if row.a_bits == FLOAT_BITS else str(row.a_bits),
            "sent": "yes" if row.is_sent else "no",
        })
    return rows


def errors(drawn: dict[str, Figure]) -> str:
    """Writes the plot of predicted against measured errors, where there is one."""
    if "error" not in drawn:
        return ""
    caption = ("Each mark is a plan. On the line the first-order prediction is exact; above it the "
               "measured error is larger than predicted.")
    content = plot(drawn["error"], "error", caption, "simulated", "measured")
    return section("Is the predicted error right?", content.replace('"plot"', '"plot narrow"', 1))


def graph(data: ReportData) -> str:
    """Writes the drawing of the graph with its cut, isolated from the page's own style."""
    if not data.graph_svg:
        return ""
    source = base64.b64encode(data.graph_svg.encode()).decode()
    return section(
        "The network and its cut",
        '<div class="graph"><img alt="layers of the network, those on the edge marked" '
        f'src="data:image/svg+xml;base64,{source}"></div>',
    )
