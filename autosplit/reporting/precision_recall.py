"""The precision-recall plot: how many boxes are wrong by the time that most are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.reporting.canvas import INK, new_figure, settle_layout, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED_COLOURS = ("#2B7BBA", "#009E73", "#D55E00", "#CC79A7", "#8C6BB1", "#B8860B")
"""One for each class that the legend names."""

OTHER_COLOUR = "#8A8F98"


def precision_recall_figure(
    recalls: ArrayLike, precision: ArrayLike, class_names: Sequence[str], iou: float
) -> Figure:
    """Plots precision against recall, a line per class and their mean.

    With more classes than `NAMED_COLOURS` the best three and the worst three are named,
    the others grey. The area under a line is the class's average precision.

    Args:
      recalls: float[R], ascending.
      precision: float[C, R], 0 to 1; a row of NaN for a class that is not annotated.
      class_names: C.
      iou: threshold above which a box counts as found, 0 to 1.

    Returns:
      A figure for `save_figure` or `inline_svg`.

    Raises:
      InputError: the shapes differ, or no class is annotated.
    """
    recalls, precision = np.asarray(recalls, np.float64), np.asarray(precision, np.float64)
    if precision.shape != (len(class_names), recalls.size) or recalls.ndim != 1:
        raise InputError(
            f"precision has the shape {precision.shape}; expected {len(class_names)} classes by "
            f"{recalls.size} recalls."
        )
    present = np.flatnonzero(~np.isnan(precision).any(axis=1)).tolist()
    if not present:
        raise InputError("No class is annotated; expected one with a known precision to plot.")
    average = precision.mean(axis=1)
    named = _named(present, average)
    with style():
        figure, axes = new_figure(7.6, 4.8)
        for index in (i for i in present if i not in named):
            axes.plot(recalls, precision[index], color=OTHER_COLOUR, alpha=0.35, linewidth=0.8)
        for index, colour in zip(named, NAMED_COLOURS, strict=False):
            axes.plot(recalls, precision[index], color=colour, linewidth=1.5,
                      label=f"{class_names[index]}  {100 * average[index]:.1f}")
        axes.plot(recalls, precision[present].mean(axis=0), color=INK, linewidth=2.6, zorder=4,
                  label=f"mean of {len(present)}  {100 * average[present].mean():.1f}")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(True)
        axes.set_xlabel("recall: share of the annotated boxes that is found")
        axes.set_ylabel("precision: share of the found boxes that is right")
        figure.legend(loc="outside right upper", fontsize=8.5, alignment="left",
                      title=f"AP at IoU {iou:g} (%)", title_fontsize=8.5)
        settle_layout(figure)
    return figure


def _named(present: list[int], average: np.ndarray) -> list[int]:
    """Returns the classes that the legend names, the best one first."""
    ranked = sorted(present, key=lambda index: -average[index])
    if len(ranked) <= len(NAMED_COLOURS):
        return ranked
    half = len(NAMED_COLOURS) // 2
    return ranked[:half] + ranked[-half:]
