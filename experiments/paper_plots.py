"""The plots of the paper's experiments; every axis says what is simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autosplit.reporting.canvas import INK, mute_spines, new_figure, settle_layout, style
from autosplit.reporting.families import STAGES
from autosplit.reporting.formats import format_number
from autosplit.solvers.constraints import known_error
from experiments.paper_plans import AUTO, EDGE, JPEG, PNG, PREDICTED, RAW, UNIFORM, Entry
from experiments.paper_sweeps import BEST_PLAIN, HEURISTIC, LEAST_ENERGY, SAME_PLAN
from experiments.paper_tables import TITLES, by_value, value_text

# Colours of Okabe and Ito, told apart with every kind of colour blindness.
COLOURS = {
    AUTO: "#2B7BBA",
    PREDICTED: "#1f2a37",
    EDGE: "#009E73",
    UNIFORM: "#CC79A7",
    HEURISTIC: "#56B4E9",
    RAW: "#8A8F98",
    PNG: "#D8C62E",
    JPEG: "#E69F00",
    "DADS": "#D55E00",
    SAME_PLAN: "#CC79A7",
    BEST_PLAIN: "#D55E00",
    LEAST_ENERGY: "#56B4E9",
}
MARKERS = {AUTO: "o", PREDICTED: ".", EDGE: "s", UNIFORM: "D", HEURISTIC: "x", RAW: "v", PNG: "^",
           JPEG: "P", "DADS": "1"}  # fmt: skip
SPREAD = 12.0
"""Largest over smallest value from which on an axis is logarithmic."""


def comparison_figure(title: str, entries: Sequence[Entry]) -> Any:
    """Plots the stages of each plan as one stacked bar, over cloud-only with the raw input."""
    ranked = sorted(entries, key=lambda entry: entry.plan.latency_s)
    with style():
        figure, axes = new_figure(10.0, 1.6 + 0.36 * len(ranked))
        rows, start = range(len(ranked)), np.zeros(len(ranked))
        for field, (_, colour) in STAGES.items():
            width = np.array([getattr(e.plan, field) / e.cloud_only_s for e in ranked])
            bars = axes.barh(rows, width, left=start, height=0.62, color=colour)
            for bar, entry in zip(bars, ranked, strict=True):
                bar.set_alpha(1.0 if entry.plan.feasible else 0.4)
            start = start + width
        for row, entry in enumerate(ranked):
            error = known_error(entry.plan)
            text = f"{start[row]:.2f}" + ("" if error is None else f"   error {error:.1e}")
            axes.annotate(text, (start[row], row), xytext=(5, 0), va="center", fontsize=8.5,
                          textcoords="offset points",
                          fontweight="bold" if entry.series == AUTO else "normal")
        axes.set_yticks(rows, [entry.series for entry in ranked])
        axes.set_xlim(0, start.max() * 1.2)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        mute_spines(axes, "left")
        axes.grid(True, axis="x")
        axes.axvline(1.0, color=INK, linewidth=1.0, linestyle=":")
        axes.set_title(title)
        axes.set_xlabel("simulated latency over cloud-only raw (pale: breaks a limit)")
        # Of bars without a length: the first of the others may be pale.
        for name, colour in STAGES.values():
            axes.barh(0, 0.0, color=colour, label=name)
        figure.legend(loc="outside upper left", ncols=len(STAGES), fontsize=8.5,
                      handlelength=1.0, columnspacing=1.2)
        settle_layout(figure)
    return figure


def sweep_figure(title: str, sweep: str, entries: Sequence[Entry], series: Sequence[str]) -> Any:
    """Plots the latency of each series over what was varied; pale where a limit is broken."""
    table = by_value(entries)
    with style():
        figure, axes = new_figure(8.6, 4.6)
        for name in series:
            points = [(v, e.plan) for v, found in table.items() if (e := found.get(name))]
            if not points:
                continue
            xs, plans = zip(*points, strict=True)
            ys = [plan.latency_s * 1e3 for plan in plans]
            axes.plot(xs, ys, color=COLOURS[name], linewidth=2.4 if name == AUTO else 1.4,
                      linestyle=":" if name == PREDICTED else "-", label=name,
                      zorder=3 if name == AUTO else 2)
            for x, y, plan in zip(xs, ys, plans, strict=True):
                axes.plot(x, y, marker=MARKERS[name], color=COLOURS[name], markersize=6,
                          alpha=1.0 if plan.feasible else 0.35, zorder=4)
        _set_sweep_axes(axes, sweep, table)
        axes.set_title(title)
        figure.legend(loc="outside right upper", fontsize=8.5)
        settle_layout(figure)
    return figure


def _set_sweep_axes(axes: Any, sweep: str, table: Mapping[Any, Mapping[str, Entry]]) -> None:
    drawn = [e.plan.latency_s for found in table.values() for n, e in found.items() if n in MARKERS]
    if max(drawn) / min(drawn) > SPREAD:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        steps = [step * 10.0**power for power in range(-3, 7) for step in (1, 2, 5)]
        ticks = [step for step in steps if low <= step <= high]
        axes.set_yticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.set_ylim(low, high)
    else:
        axes.set_ylim(0, max(drawn) * 1.05e3)
    axes.set_xscale("log")
    axes.set_xticks(list(table), [value_text(sweep, value) for value in table], fontsize=8.5)
    axes.minorticks_off()
    axes.grid(True)
    axes.set_xlabel(f"{TITLES[sweep]} (pale: the measured error or the memory breaks a limit)")
    axes.set_ylabel("simulated latency (ms)")


def grouped_figure(
    title: str, groups: Mapping[str, Mapping[str, float | None]], colours: Mapping[str, str],
    axis: str, line_at: float | None = None, logarithmic: bool = False,
) -> Any:
    """Plots bars side by side, a group for each key.

    Args:
      title: of the plot.
      groups: by group and bar: the value, None for none.
      colours: by bar; their order is that of the bars.
      axis: what the values are.
      line_at: a value to draw a line at.
      logarithmic: of the axis.
    """
    with style():
        figure, axes = new_figure(max(8.0, 0.36 * len(groups) * len(colours) + 1.5), 4.4)
        width = 0.84 / len(colours)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        for index, (bar, colour) in enumerate(colours.items()):
            places = np.arange(len(groups)) + (index - (len(colours) - 1) / 2) * width
            values = [found.get(bar) for found in groups.values()]
            heights = [0.0 if value is None else value for value in values]
            axes.bar(places, heights, width * 0.92, color=colour, label=bar)
            for place, value in zip(places, values, strict=True):
                text = "none" if value is None else format_number(value)
                # A bar of none stands on the axis, which on a logarithmic scale has no 0.
                height = value or axes.get_ylim()[0]
                axes.annotate(text, (place, height), xytext=(0, 3), textcoords="offset points",
                              ha="center", fontsize=6.5, rotation=90)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.tick_params(axis="x", length=0)
        axes.margins(y=0.14)
        axes.set_xlim(-0.55, len(groups) - 0.45)
        if line_at is not None:
            axes.axhline(line_at, color=INK, linewidth=1.0, linestyle=":")
        axes.grid(True, axis="y")
        axes.set_title(title)
        axes.set_ylabel(axis)
        figure.legend(loc="outside lower center", ncols=min(len(colours), 4), fontsize=8.5)
        settle_layout(figure)
    return figure


def transmission_figure(title: str, entries: Sequence[Entry]) -> Any:
    """Plots the latency of packed and of 16-bit transmission at each bandwidth."""
    names = (PREDICTED, SAME_PLAN, BEST_PLAIN)
    groups = {
        value_text("transmission", value): {
            name: found[name].plan.latency_s / found[RAW].plan.latency_s if name in found else None
            for name in names
        }
        for value, found in by_value(entries).items()
    }
    return grouped_figure(title, groups, {name: COLOURS[name] for name in names},
                          "simulated latency over\ncloud-only with the raw input", line_at=1.0)


def energy_figure(title: str, entries: Sequence[Entry]) -> Any:
    """Plots the edge device's energy for each network that states the energy of a bit."""
    names = (PREDICTED, LEAST_ENERGY, EDGE, RAW, JPEG)
    groups = {
        str(value): {
            name: 1e3 * joules
            if name in found and (joules := found[name].plan.energy_j) is not None else None
            for name in names
        }
        for value, found in by_value(entries).items()
    }
    return grouped_figure(title, groups, {name: COLOURS[name] for name in names},
                          "simulated energy of the edge device (mJ)", logarithmic=True)
