"""The report page: one HTML file that needs nothing else."""

from __future__ import annotations

import html
import os
import pathlib
from typing import TYPE_CHECKING

from autosplit.files import write_json, write_text
from autosplit.reporting import plan_sections, sections
from autosplit.reporting.canvas import save_figure
from autosplit.reporting.page_style import CSS
from autosplit.reporting.report_data import ReportData

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render_report(data: ReportData) -> str:
    """Renders the report as one HTML page.

    Style, plots and pictures are inside; the page loads nothing and runs no script.
    Every figure is marked as simulated, measured or counted.

    Args:
      data: what to show.

    Returns:
      The whole page.
    """
    return _render(data, plan_sections.figures(data))


def write_report(data: ReportData, workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the page, and beside it its plots and the run record as files.

    ``report.html``, ``run.json``, ``graph.svg`` if there is a drawing, and ``.png`` and
    ``.svg`` of ``pareto``, ``latency``, ``bits`` and ``error`` as far as the data allows.
    Each file is whole or absent; the page comes last.

    Args:
      data: what to show.
      workdir: folder; made where it is missing.

    Returns:
      The path of the page.
    """
    folder = pathlib.Path(workdir)
    drawn = plan_sections.figures(data)
    for name, figure in drawn.items():
        for suffix in (".png", ".svg"):
            save_figure(figure, folder / f"{name}{suffix}")
    if data.graph_svg:
        write_text(folder / "graph.svg", data.graph_svg)
    write_json(folder / "run.json", data.record)
    page = folder / "report.html"
    write_text(page, _render(data, drawn))
    return page


def _render(data: ReportData, drawn: dict[str, Figure]) -> str:
    body = "\n".join([
        sections.opening(data),
        plan_sections.baselines(data, drawn),
        sections.photographs(data),
        sections.accuracy_table(data),
        sections.stage_times(data),
        plan_sections.choice(data, drawn),
        plan_sections.layers(data, drawn),
        plan_sections.graph(data),
        plan_sections.budget(data),
        plan_sections.errors(drawn),
        sections.glossary(),
        sections.run_record_list(data.record),
    ])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(data.title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
