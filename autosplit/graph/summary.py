"""Prints a graph as a table, one layer a line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autosplit.graph.layers import Layer, LayerGraph

_HEADER = ("", "layer", "kind", "reads", "output", "MACs", "weights", "fused")
_RIGHT = frozenset({0, 5, 6})


def summary_table(graph: LayerGraph) -> str:
    """Lists layers with what they read, their output shape, cost and weights.

    Args:
      graph: L layers.

    Returns:
      An aligned table of L lines between a header and the totals. ``reads`` names
      layers by index and graph inputs as ``in``, ``in.1``, ...; ``fused`` lists the
      primitives that run in the layer beside its convolution or product, where
      ``affine`` is a folded chain (bias, batch norm).

    >>> import jax.numpy as jnp
    >>> from autosplit.graph import trace
    >>> graph = trace(lambda w, x: jnp.maximum(x @ w, 0), jnp.ones((3, 4)), jnp.ones((2, 3)))
    >>> print(summary_table(graph))
       layer    kind    reads  output  MACs  weights  fused
    -------------------------------------------------------
    0  matmul   matmul  in     2x4       24       12  max
    -------------------------------------------------------
       1 layer                           24       12
    """
    rows = [_row(graph, index, layer) for index, layer in enumerate(graph.layers)]
    count = len(rows)
    totals = ("", f"{count} layer{'s' if count != 1 else ''}", "", "", "",
              f"{sum(layer.macs for layer in graph.layers):,}",
              f"{sum(layer.weight_elements for layer in graph.layers):,}", "")  # fmt: skip
    widths = [max(map(len, column)) for column in zip(_HEADER, totals, *rows, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_line(row, widths) for row in (_HEADER, *rows, totals)]
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def shorten(text: str, length: int) -> str:
    """Replaces the middle of a long text by an ellipsis; ends of module paths differ most.

    >>> shorten("encoder/layer_11/attention/query", 20)
    'encoder…ention/query'
    """
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 5
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def shape_text(shape: Sequence[int], times: str = "x") -> str:
    """Writes a shape as ``1x56x56x64``, and a scalar as ``scalar``."""
    return times.join(map(str, shape)) or "scalar"


def _row(graph: LayerGraph, index: int, layer: Layer) -> tuple[str, ...]:
    return (
        str(index),
        shorten(layer.name, 40),
        layer.kind,
        shorten(" ".join(_reader(graph, tensor) for tensor in layer.inputs), 16),
        shorten(" ".join(shape_text(graph.tensors[t].shape) for t in layer.outputs), 28),
        f"{layer.macs:,}",
        f"{layer.weight_elements:,}",
        shorten(" ".join(_fused(layer)), 32),
    )


def _reader(graph: LayerGraph, tensor: int) -> str:
    producer = graph.tensors[tensor].producer
    return str(producer) if producer >= 0 else graph.tensors[tensor].name.replace("input", "in")


def _fused(layer: Layer) -> list[str]:
    """Names what is fused, a run of equal primitives once with its length."""
    names = ["affine"] if layer.weight and layer.weight.folds else []
    for primitive, run in itertools.groupby(layer.activation):
        length = len(list(run))
        names.append(f"{primitive}*{length}" if length > 1 else primitive)
    return names


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
