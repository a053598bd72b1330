"""The error plot: does the predicted output error tell the measured one?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.reporting.canvas import INK, new_figure, settle_layout, style
from autosplit.reporting.families import FAMILIES, family_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def both_errors(plans: Sequence[SplitPlan]) -> tuple[SplitPlan, ...]:
    """Returns the plans whose error is predicted and measured, both above 0."""
    return tuple(
        plan for plan in plans
        if plan.error_is_predicted and plan.predicted_output_error > 0 and plan.output_error
    )


def error_figure(plans: Sequence[SplitPlan]) -> Figure:
    """Plots predicted against measured output error, both logarithmic.

    On the line they are equal; above it the measured error is the larger one.

    Args:
      plans: those without both errors are left out.

    Returns:
      A figure for `save_figure` or `inline_svg`.

    Raises:
      InputError: no plan has both errors.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    points = both_errors(plans)
    if not points:
        raise InputError("No plan has a predicted and a measured error above 0; measure some.")
    values = [e for p in points for e in (p.predicted_output_error, p.output_error or 0.0)]
    limits = (min(values) / 2.5, max(values) * 2.5)
    with style():
        figure, axes = new_figure(6.0, 5.0)
        axes.plot(limits, limits, color=INK, linewidth=1, alpha=0.6, zorder=1)
        for family in dict.fromkeys(family_of(plan.label) for plan in points):
            chosen = [plan for plan in points if family_of(plan.label) == family]
            axes.scatter([plan.predicted_output_error for plan in chosen],
                         [plan.output_error for plan in chosen], s=44, label=family, alpha=0.85,
                         color=FAMILIES[family], zorder=3)
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            # Within a decade or two Matplotlib labels every minor tick, one over the other.
            axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
            axis.set_minor_formatter(NullFormatter())
        axes.annotate("equal", (limits[1], limits[1]), xytext=(-6, -54), ha="right",
                      textcoords="offset points", fontsize=8.5)
        axes.grid(True)
        axes.set_xlabel("predicted output error (first order)")
        axes.set_ylabel("measured output error")
        axes.legend(loc="upper left", fontsize=8.5)
        settle_layout(figure)
    return figure
