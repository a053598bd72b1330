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


def enumerate_cuts(graph: LayerGraph, limit: int = 4096) -> tuple[Cut, ...]:
    """Lists candidate cuts, cloud-only first and edge-only last.

    All closed sets are listed where there are at most ``limit``. Otherwise the
    topological prefixes and the min-cut family: for a ladder of prices, the
    closed set that minimises crossing elements plus price times MACs on the
    edge, where a tensor is paid once however many layers read it.

    Args:
      graph: L layers.
      limit: largest number of closed sets to list.

    Returns:
      Distinct cuts, by number of layers on the edge.
    """
    count = len(graph.layers)
    masks = _closed_sets(graph, limit)
    if masks is None:
        masks = {(1 << size) - 1 for size in range(count + 1)} | _min_cut_family(graph)
    ordered = sorted(masks, key=lambda mask: (mask.bit_count(), mask))
    return tuple(
        make_cut(graph, tuple(bool(mask >> index & 1) for index in range(count)))
        for mask in ordered
    )


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


def _min_cut_family(graph: LayerGraph, steps: int = 64) -> set[int]:
    """Returns the minimisers of crossing elements + price x edge MACs for a ladder of prices."""
    macs = sum(layer.macs for layer in graph.layers)
    elements = sum(tensor.size for tensor in graph.tensors)
    if not macs or not elements:
        return set()
    prices = np.concatenate([[0.0], np.geomspace(1e-6, 1e3, steps) * elements / macs])
    return {_min_cut(graph, float(price)) for price in prices}


def _min_cut(graph: LayerGraph, price: float) -> int:
    """Solves one minimum closed set as a maximum flow.

    Source side = edge. Layer -> sink costs the layer's price on the edge; a
    tensor is a pair (producer -> tensor: its size; tensor -> consumer: infinite),
    so it is paid once if any consumer is in the cloud. Consumer -> producer is
    infinite, which closes the set. The source holds the graph inputs, which
    would otherwise all go to the cloud: they are paid where a cloud layer reads them.
    """
    layers, tensors = graph.layers, graph.tensors
    source, sink = len(layers) + len(tensors), len(layers) + len(tensors) + 1
    infinite = sum(t.size for t in tensors) + price * sum(x.macs for x in layers) + 1.0
    edges: list[tuple[int, int, float]] = []
    for index, layer in enumerate(layers):
        edges.append((index, sink, price * layer.macs))
        for producer in {tensors[t].producer for t in layer.inputs}:
            if producer >= 0:
                edges.append((index, producer, infinite))
    for number, tensor in enumerate(tensors):
        head = tensor.producer if tensor.producer >= 0 else source
        vertex = len(layers) + number
        edges.append((head, vertex, float(tensor.size)))
        edges.extend((vertex, consumer, infinite) for consumer in tensor.consumers)
        if tensor.is_output:
            edges.append((vertex, sink, infinite))
    reachable = _source_side(edges, source, sink)
    return sum(1 << index for index in range(len(layers)) if index in reachable)


def _source_side(edges: list[tuple[int, int, float]], source: int, sink: int) -> set[int]:
    """Returns the source side of a minimum cut (SciPy's maximum flow on scaled integers)."""
    from scipy.sparse import csr_array  # slow to import, seldom needed
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    heads, tails, capacities = (np.array(column) for column in zip(*edges, strict=True))
    scale = (2**30 - 1) / capacities.max()
    integers = np.ceil(capacities * scale).astype(np.int32)
    size = sink + 1
    matrix = csr_array((integers, (heads, tails)), shape=(size, size))
    matrix.sum_duplicates()
    flow = maximum_flow(matrix, source, sink).flow
    residual = csr_array(matrix - flow)
    residual.data = np.maximum(residual.data, 0)
    residual.eliminate_zeros()
    order = breadth_first_order(residual, source, return_predecessors=False)
    return set(order.tolist())
