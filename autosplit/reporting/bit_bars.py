"""The bits plot: how many bits each layer on the edge got."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import FLOAT_BITS, SplitPlan
from autosplit.profiling.table import Profile
from autosplit.reporting.canvas import INK, mute_spines, new_figure, settle_layout, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WEIGHT_COLOUR = "#2B7BBA"
ACTIVATION_COLOUR = "#009E73"
SENT_COLOUR = "#D55E00"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdgeRow:
    """One layer on the edge, or a graph input that it reads.

    Attributes:
      name: of the layer or the input.
      layer: index of the layer; None for a graph input.
      w_bits: of the weight; None where there is none.
      a_bits: of the tensor that it writes; `FLOAT_BITS` where it keeps its own width.
      is_sent: the tensor crosses to the cloud.
    """

    name: str
    layer: int | None
    w_bits: int | None
    a_bits: int
    is_sent: bool


def edge_rows(profile: Profile, plan: SplitPlan) -> tuple[EdgeRow, ...]:
    """Lists the tensors on the edge with the layers that write them, inputs first.

    A layer that writes several tensors has a row for each.
    """
    on_edge = np.asarray(plan.on_edge)
    used = profile.touches[on_edge].any(axis=0) | np.asarray(plan.crosses)
    rows = []
    for tensor in np.flatnonzero(used):
        layer = int(profile.producer[tensor])
        if layer >= 0 and not on_edge[layer]:
            continue
        is_input = layer < 0
        bits = FLOAT_BITS if is_input else plan.w_bits[layer]
        rows.append(EdgeRow(
            name=profile.tensor_names[tensor] if is_input else profile.layer_names[layer],
            layer=None if is_input else layer,
            w_bits=None if bits == FLOAT_BITS else bits,
            a_bits=plan.a_bits[tensor],
            is_sent=plan.crosses[tensor],
        ))
    return tuple(rows)


def bits_figure(profile: Profile, plan: SplitPlan) -> Figure:
    """Plots the bits of weights and of activations, a row per layer on the edge.

    Args:
      profile: of the graph.
      plan: with at least one layer on the edge.

    Returns:
      A figure for `save_figure` or `inline_svg`.

    Raises:
      InputError: no layer is on the edge.
    """
    if not any(plan.on_edge):
        raise InputError(f"Plan {plan.label!r} has no layer on the edge: no bits to plot.")
    rows = edge_rows(profile, plan)
    with style():
        figure, (left, right) = new_figure(9.2, 1.3 + 0.21 * len(rows), ncols=2, sharey=True)
        left.set_title("weight", fontsize=9.5)
        right.set_title("activation that the layer writes", fontsize=9.5)
        for index, row in enumerate(rows):
            _draw_bar(left, index, row.w_bits, WEIGHT_COLOUR, "no weight")
            colour = SENT_COLOUR if row.is_sent else ACTIVATION_COLOUR
            bits = None if row.a_bits == FLOAT_BITS else row.a_bits
            _draw_bar(right, index, bits, colour, "own width", " sent" if row.is_sent else "")
        for axes in (left, right):
            axes.set_xlim(0, int(profile.bits.max()) + 1.2)
            axes.set_xticks([0, *profile.bits.tolist()])
            axes.set_xlabel("bits")
            axes.grid(True, axis="x")
            axes.tick_params(axis="y", length=0)
            mute_spines(axes, "left")
        left.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
        left.set_ylim(len(rows) - 0.4, -0.6)
        settle_layout(figure)
    return figure


def _draw_bar(
    axes: Axes, index: int, bits: int | None, colour: str, absent: str, suffix: str = ""
) -> None:
    if bits is None:
        axes.annotate(absent + suffix, (0, index), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=7.5, alpha=0.6)
        return
    axes.barh(index, bits, height=0.66, color=colour)
    axes.annotate(f"{bits}{suffix}", (bits, index), xytext=(4, 0), textcoords="offset points",
                  va="center", fontsize=8, color=INK)
