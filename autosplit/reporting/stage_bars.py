"""The latency plot: where the time of a request goes, plan by plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.reporting.canvas import mute_spines, new_figure, settle_layout, style
from autosplit.reporting.families import STAGES
from autosplit.reporting.formats import format_ms
from autosplit.solvers.constraints import known_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def latency_figure(plans: Sequence[SplitPlan]) -> Figure:
    """Plots the predicted stages of each plan as one stacked bar.

    Args:
      plans: from top to bottom; usually from `compared`, the chosen one first.

    Returns:
      A figure for `save_figure` or `inline_svg`.

    Raises:
      InputError: there is no plan.
    """
    if not plans:
        raise InputError("No plans to plot; expected at least one.")
    with style():
        figure, axes = new_figure(9.2, 1.5 + 0.42 * len(plans))
        rows = range(len(plans))
        start = [0.0] * len(plans)
        for field, (title, colour) in STAGES.items():
            width = [getattr(plan, field) * 1e3 for plan in plans]
            bars = axes.barh(rows, width, left=start, height=0.62, color=colour, label=title)
            for bar, plan in zip(bars, plans, strict=True):
                bar.set_alpha(1.0 if plan.feasible else 0.45)
            start = [a + b for a, b in zip(start, width, strict=True)]
        for row, plan in zip(rows, plans, strict=True):
            axes.annotate(format_ms(plan.latency_s), (start[row], row), xytext=(5, 0), va="center",
                          textcoords="offset points", fontweight="normal" if row else "bold")
        axes.set_yticks(rows, [_title(plan, plan is plans[0]) for plan in plans])
        axes.set_xlim(0, max(start) * 1.13 or 1.0)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        mute_spines(axes, "left")
        axes.grid(True, axis="x")
        axes.set_xlabel("latency of one request, predicted for the simulated devices (ms)")
        figure.legend(loc="outside upper left", ncols=len(STAGES), fontsize=8.5,
                      handlelength=1.0, columnspacing=1.2)
        settle_layout(figure)
    return figure


def _title(plan: SplitPlan, is_chosen: bool) -> str:
    title = f"{plan.label} (chosen)" if is_chosen else plan.label
    if known_error(plan) is None:
        return f"{title}\nerror not known"
    return title if plan.feasible else f"{title}\nbreaks a constraint"
