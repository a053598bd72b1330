"""Blocks of layers whose outputs are reconstructed together.

A tensor through which everything passes cuts the graph in two: nothing behind it reads anything
else from before it. What lies between two such tensors is a residual or inception block. In a
plain chain every tensor is one; there, layers are taken together until one has no activation
(the linear end of an inverted residual) or until there are three.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from autosplit.errors import InputError
from autosplit.graph import LayerGraph
from autosplit.graph.primitives import is_differentiable

_CHAIN_WEIGHTS = 3  # of an inverted residual: expand, depthwise, project


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """Layers that are reconstructed together.

    Attributes:
      layers: indices, in topological order.
      inputs: tensors that they read and others write (or graph inputs).
      outputs: tensors that they write and others read (or graph outputs).
    """

    layers: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def find_blocks(graph: LayerGraph, max_weights: int = 8) -> tuple[Block, ...]:
    """Cuts a graph into blocks: every layer is in one, and what it depends on is not behind it.

    Args:
      graph: traced function.
      max_weights: most layers with a weight in a block; longer ones are split.

    Returns:
      The blocks in topological order. Each has a weight, unless it is a loop that no gradient
      passes, or the graph has none.

    Raises:
      InputError: ``max_weights`` is below 1.

    Reference: Li et al. 2021 (arXiv 2102.05426), section 3.2. Deviation: they name the blocks
    of each network; here they follow from its structure.
    """
    if max_weights < 1:
        raise InputError(f"max_weights is {max_weights}; expected 1 or more.")
    pieces = _with_weights(graph, _between_cuts(graph))
    pieces = _joined_chains(graph, pieces, min(_CHAIN_WEIGHTS, max_weights))
    parts = [part for piece in pieces for part in _split(graph, piece, max_weights)]
    return tuple(block_of(graph, part) for part in parts)


def block_of(graph: LayerGraph, layers: Iterable[int]) -> Block:
    """Returns a set of layers with the tensors that pass in and out."""
    inside = tuple(sorted(layers))
    read = {t for i in inside for t in graph.layers[i].inputs}
    written = [t for i in inside for t in graph.layers[i].outputs]
    outputs = [
        t
        for t in written
        if graph.tensors[t].is_output or not set(graph.tensors[t].consumers) <= set(inside)
    ]
    return Block(
        layers=inside, inputs=tuple(sorted(read - set(written))), outputs=tuple(outputs)
    )


def _between_cuts(graph: LayerGraph) -> list[list[int]]:
    """Splits the layers at every tensor through which everything passes."""
    before = np.zeros(len(graph.layers), bool)
    pieces = []
    for index in range(len(graph.layers)):
        inside = graph.ancestors[index].copy()
        inside[index] = True
        # Nested sets only; layers in topological order make the next one larger.
        if not before[~inside].any() and _passes_one(graph, inside):
            pieces.append([int(i) for i in np.flatnonzero(inside & ~before)])
            before = inside
    rest = [int(i) for i in np.flatnonzero(~before)]
    return [*pieces, rest] if rest else pieces


def _passes_one(graph: LayerGraph, inside: np.ndarray) -> bool:
    """Tells whether the other layers read a single tensor of a set and of the graph inputs."""
    crossing = [
        t
        for t, tensor in enumerate(graph.tensors)
        if (tensor.producer < 0 or inside[tensor.producer])
        and any(not inside[c] for c in tensor.consumers)
    ]
    return len(crossing) == 1 and graph.tensors[crossing[0]].producer >= 0


def _weights(graph: LayerGraph, layers: Iterable[int]) -> int:
    return sum(graph.layers[i].weight is not None for i in layers)


def _with_weights(graph: LayerGraph, pieces: list[list[int]]) -> list[list[int]]:
    """Adds pieces without weight to the next one; the last of them to the one before."""
    joined: list[list[int]] = []
    waiting: list[int] = []
    for piece in pieces:
        waiting = waiting + piece
        if _weights(graph, waiting):
            joined.append(waiting)
            waiting = []
    if waiting:
        joined = [*joined[:-1], joined[-1] + waiting] if joined else [waiting]
    return joined


def _joined_chains(graph: LayerGraph, pieces: list[list[int]], limit: int) -> list[list[int]]:
    """Joins neighbours of one weight each, up to one without activation or up to the limit."""
    joined: list[list[int]] = []
    is_open = False
    for piece in pieces:
        single = _weights(graph, piece) == 1
        if single and is_open and _weights(graph, joined[-1]) < limit:
            joined[-1] = joined[-1] + piece
        else:
            joined.append(piece)
        is_open = single and bool(graph.layers[piece[-1]].activation)
    return joined


def _split(graph: LayerGraph, piece: list[int], max_weights: int) -> list[list[int]]:
    """Splits a piece in topological order into parts of almost equally many weights.

    A loop that no gradient passes is a part of its own.
    """
    total = _weights(graph, piece)
    count = max(-(-total // max_weights), 1)
    ends = {(part + 1) * total // count for part in range(count)}
    parts: list[list[int]] = [[]]
    seen = 0
    for index in piece:
        layer = graph.layers[index]
        passes = all(is_differentiable(equation) for equation in layer.equations)
        if not passes or (layer.weight is not None and seen in ends):
            parts.append([])
        seen += layer.weight is not None
        parts[-1].append(index)
        if not passes:
            parts.append([])
    return [part for part in parts if part]
