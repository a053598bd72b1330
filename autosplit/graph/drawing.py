"""Shows a graph to people: a table, and a picture with the cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autosplit.graph.layers import LayerGraph


def summary_table(graph):
    return ""


def draw_svg(graph, on_edge, bits):
    return ""
