"""The Pareto plot: what speed costs in output error and edge memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.reporting.canvas import INK, new_figure, style
from autosplit.reporting.families import FAMILIES, compared, family_of
from autosplit.reporting.formats import format_size
from autosplit.reporting.label_placement import place_labels
from autosplit.solvers.constraints import known_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_AREA, MAX_AREA = 26.0, 190.0
"""Area of the marker of a plan without and with the most edge memory, in square points."""


def pareto_figure(plans: Sequence[SplitPlan], chosen: SplitPlan) -> Figure:
    """Plots latency against output error, a mark per plan.

    Colour is the family, area the edge memory, a circle a measured error and a
    diamond a predicted one, hollow a plan outside the constraints, a ring the chosen
    plan. The error axis is logarithmic; an error of exactly 0 lies on a line of its
    own at the bottom. A plan whose error nobody knows is a dotted line at its latency
    with a question mark.

    Args:
      plans: all plans.
      chosen: one of them.

    Returns:
      A figure for `save_figure` or `inline_svg`.

    Raises:
      InputError: there is no plan.
    """
    if not plans:
        raise InputError("No plans to plot; expected at least one.")
    floor = _zero_line([known_error(plan) for plan in plans])
    with style():
        figure, axes = new_figure(9.2, 5.4)
        known = [plan for plan in plans if known_error(plan) is not None]
        _set_axes(axes, plans, floor, [max(known_error(p) or 0.0, floor) for p in known])
        bottom, top = axes.get_ylim()
        spots = [_spot(plan, floor, top) for plan in plans]
        largest = max(plan.edge_memory_bytes for plan in plans)
        for plan, spot in zip(plans, spots, strict=True):
            _mark(axes, plan, spot, _area(plan, largest))
        axes.scatter(*_spot(chosen, floor, top), s=_area(chosen, largest) + 170, marker="o",
                     facecolor="none", edgecolor=INK, linewidth=1.6, zorder=5)
        _draw_legend(figure, plans, largest)
        lines = [(plan.latency_s * 1e3, y) for plan in plans if known_error(plan) is None
                 for y in np.geomspace(bottom, top, 40)]
        named = compared(plans, chosen)
        place_labels(axes, [_spot(plan, floor, top) for plan in named],
                     [plan.label for plan in named], obstacles=[*spots, *lines])
    return figure


def _zero_line(errors: Sequence[float | None]) -> float:
    """Returns where an error of 0 is drawn: a decade or two below the smallest other."""
    positive = [error for error in errors if error]
    return 10.0 ** (math.floor(math.log10(min(positive))) - 1) if positive else 1e-6


def _spot(plan: SplitPlan, floor: float, top: float) -> tuple[float, float]:
    """Returns where a plan is drawn; one whose error is not known at the top."""
    error = known_error(plan)
    return plan.latency_s * 1e3, top / 1.7 if error is None else max(error, floor)


def _area(plan: SplitPlan, largest_bytes: int) -> float:
    share = plan.edge_memory_bytes / largest_bytes if largest_bytes else 0.0
    return MIN_AREA + (MAX_AREA - MIN_AREA) * share


def _set_axes(axes: Axes, plans: Sequence[SplitPlan], floor: float, errors: list[float]) -> None:
    from matplotlib.ticker import LogLocator

    latencies = [plan.latency_s * 1e3 for plan in plans]
    spread = max(latencies) / max(min(latencies), 1e-9)
    if spread > 12:
        axes.set_xscale("log")
        axes.set_xlim(min(latencies) / 1.35, max(latencies) * 1.5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    else:
        axes.set_xlim(0, max(latencies) * 1.12)
    axes.set_yscale("log")
    top = max([*errors, floor * 10])
    axes.set_ylim(floor / 2.2, top * 8)
    ticks = 10.0 ** np.arange(math.log10(floor) + 1, math.floor(math.log10(top)) + 1)
    step = max(1, math.ceil(len(ticks) / 7))
    axes.set_yticks([floor, *ticks[::step]], ["0", *(f"{tick:.0e}" for tick in ticks[::step])])
    axes.minorticks_off()
    axes.axhspan(floor / 2.2, floor * 2.2, color=INK, alpha=0.05, linewidth=0)
    axes.grid(True)
    axes.set_xlabel("latency of one request, predicted (ms)")
    axes.set_ylabel("output error (relative mean square)")


def _mark(axes: Axes, plan: SplitPlan, spot: tuple[float, float], area: float) -> None:
    colour = FAMILIES[family_of(plan.label)]
    if known_error(plan) is None:
        axes.axvline(spot[0], color=colour, linestyle=":", linewidth=1.4, zorder=1)
        axes.scatter(*spot, s=75, marker="$?$", color=INK, linewidth=0.4, zorder=4)
        return
    face = colour if plan.feasible else "none"
    marker = "D" if plan.output_error is None else "o"
    axes.scatter(*spot, s=area, marker=marker, facecolor=face, edgecolor=colour, linewidth=1.4,
                 alpha=0.85, zorder=3)


def _draw_legend(figure: Figure, plans: Sequence[SplitPlan], largest_bytes: int) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, colour: str, marker: str, area: float = 60.0,
              hollow: bool = False) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=math.sqrt(area), label=label,
                      markerfacecolor="none" if hollow else colour, markeredgecolor=colour)

    present = {family_of(plan.label) for plan in plans}
    entries = [entry(name, FAMILIES[name], "s") for name in FAMILIES if name in present]
    entries.append(entry("error measured", INK, "o", hollow=True))
    entries.append(entry("error predicted", INK, "D", 40.0, hollow=True))
    if any(known_error(plan) is None for plan in plans):
        entries.append(entry("error not known", INK, "$?$"))
    if not all(plan.feasible for plan in plans):
        entries.append(entry("hollow: breaks a constraint", "#8A8F98", "o", hollow=True))
    entries.append(entry("ring: the chosen plan", INK, "o", 150.0, hollow=True))
    if largest_bytes:
        entries.append(entry(f"area: edge memory\n(this is {format_size(largest_bytes)})",
                             "#8A8F98", "o", MAX_AREA))
    figure.legend(handles=entries, loc="outside right upper", labelspacing=0.9, fontsize=8.5)
