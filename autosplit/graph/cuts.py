"""Cuts: closed sets of layers on the edge, and how candidates are found."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from autosplit.errors import CutError

if TYPE_CHECKING:
    from autosplit.graph.layers import LayerGraph


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """A set of layers closed under predecessors, and what crosses from it.

    Attributes:
      name: in words.
      on_edge: a flag per layer.
      crossing: indices of the tensors that are sent, each once.
    """

    name: str
    on_edge: tuple[bool, ...]
    crossing: tuple[int, ...]


def make_cut(graph: LayerGraph, on_edge: tuple[bool, ...], name: str = "") -> Cut:
    """Checks that a set of layers is closed and finds what crosses from it."""
    if len(on_edge) != len(graph.layers):
        raise CutError(f"A cut needs {len(graph.layers)} flags, one per layer; got {len(on_edge)}.")
    flags = np.array(on_edge, bool)
    missing = np.flatnonzero(graph.ancestors[flags].any(axis=0) & ~flags)
    if missing.size:
        follower = np.flatnonzero(graph.ancestors[:, missing[0]] & flags)[0]
        raise CutError(
            f"The cut is not closed: layer {graph.layers[follower].name!r} is on the edge but "
            f"{graph.layers[missing[0]].name!r}, which it depends on, is in the cloud. "
            "Put every predecessor on the edge, or use graph.cut_after(name)."
        )
    edge_only = bool(flags.all())
    crossing = tuple(
        index
        for index, tensor in enumerate(graph.tensors)
        if (tensor.producer < 0 or flags[tensor.producer])
        and (
            any(not flags[c] for c in tensor.consumers)
            or (tensor.is_output and not edge_only)
        )
    )
    if not name:
        name = cut_name(graph, flags)
    return Cut(name=name, on_edge=tuple(bool(f) for f in flags), crossing=crossing)


def cut_name(graph: LayerGraph, flags: np.ndarray) -> str:
    """Names a cut by the edge layers whose results leave the edge."""
    if not flags.any():
        return "cloud-only"
    if flags.all():
        return "edge-only"
    last = [
        layer.name
        for index, layer in enumerate(graph.layers)
        if flags[index]
        and any(
            any(not flags[c] for c in graph.tensors[t].consumers) or graph.tensors[t].is_output
            for t in layer.outputs
        )
    ]
    return "after " + " + ".join(last)


def enumerate_cuts(graph: LayerGraph, limit: int = 4096) -> tuple[tuple[Cut, ...], bool]:
    """Lists candidate cuts, cloud-only first and edge-only last.

    All closed sets are listed where there are at most ``limit``, otherwise the
    topological prefixes: a solver finds the other sets by minimum cuts of its own,
    which know what a layer and a tensor cost.

    Args:
      graph: L layers.
      limit: largest number of closed sets to list.

    Returns:
      Distinct cuts, by number of layers on the edge, and whether these are all.
    """
    count = len(graph.layers)
    closed = _closed_sets(graph, limit)
    masks = closed or {(1 << size) - 1 for size in range(count + 1)}
    ordered = sorted(masks, key=lambda mask: (mask.bit_count(), mask))
    listed = tuple(
        make_cut(graph, tuple(bool(mask >> index & 1) for index in range(count)))
        for mask in ordered
    )
    return listed, closed is not None


def _closed_sets(graph: LayerGraph, limit: int) -> set[int] | None:
    """Returns all closed sets as bit masks, or None where there are more than ``limit``."""
    needs = []
    for layer in graph.layers:
        producers = {graph.tensors[t].producer for t in layer.inputs} - {-1}
        needs.append(sum(1 << p for p in producers))
    found = {0}
    frontier = [0]
    while frontier:
        mask = frontier.pop()
        for index, need in enumerate(needs):
            if mask >> index & 1 or need & ~mask:
                continue
            grown = mask | 1 << index
            if grown in found:
                continue
            if len(found) >= limit:
                return None
            found.add(grown)
            frontier.append(grown)
    return found
