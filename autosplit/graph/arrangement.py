"""Places the layers of a graph on a page, and the wires between them.

Layers stand in rows by depth and in lanes side by side; long graphs are wrapped
into columns. Where there is a cut, every cloud layer stands below every edge
layer, so that one line separates the parts.

Reference: Sugiyama et al. 1981 ("Methods for visual understanding of hierarchical
system structures"). Deviation: lanes follow the predecessors instead of
minimising crossings, since networks are nearly chains.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autosplit.graph.layers import LayerGraph


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wire:
    """A tensor on its way from where it is made to one reader.

    Attributes:
      tensor: index in the graph.
      source, target: vertices.
    """

    tensor: int
    source: int
    target: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Where everything stands, in rows, lanes and columns.

    Vertices are numbered: L layers, then the graph's inputs, then its outputs.

    Attributes:
      rows: row of each vertex; a wire always goes to a later row.
      lanes: lane of each vertex within its row, 0 is the spine.
      columns: for each column its first row and the row after its last.
      wires: one for each pair of tensor and reader.
      last_edge_row: the cut is below this row; None where nothing is cut.
    """

    rows: tuple[int, ...]
    lanes: tuple[int, ...]
    columns: tuple[tuple[int, int], ...]
    wires: tuple[Wire, ...]
    last_edge_row: int | None

    def column(self, row: int) -> int:
        """Returns the column that a row stands in."""
        return next(c for c, (start, stop) in enumerate(self.columns) if start <= row < stop)

    def crosses(self, wire: Wire) -> bool:
        """Tells whether a wire leads from the edge to the cloud."""
        last = self.last_edge_row
        return last is not None and self.rows[wire.source] <= last < self.rows[wire.target]


def arrange(graph: LayerGraph, on_edge: Sequence[bool], row_aspect: float) -> Arrangement:
    """Places layers, inputs and outputs.

    Args:
      graph: L layers.
      on_edge: a flag per layer; empty where there is no cut.
      row_aspect: width of a column over height of a row; the page becomes about
        as wide as it is high.

    Returns:
      The arrangement.
    """
    wires = _wires(graph)
    sources: dict[int, list[int]] = defaultdict(list)
    targets: dict[int, list[int]] = defaultdict(list)
    for wire in wires:
        sources[wire.target].append(wire.source)
        targets[wire.source].append(wire.target)
    rows, last_edge_row = _rows(graph, on_edge, sources)
    lanes = _lanes(rows, sources, targets)
    columns = _columns(rows, lanes, wires, last_edge_row, row_aspect)
    return Arrangement(
        rows=tuple(rows), lanes=tuple(lanes), columns=columns, wires=wires,
        last_edge_row=last_edge_row,
    )  # fmt: skip


def _wires(graph: LayerGraph) -> tuple[Wire, ...]:
    first_input = len(graph.layers)
    first_output = first_input + len(graph.inputs)
    found = []
    for number, tensor in enumerate(graph.tensors):
        source = tensor.producer if tensor.producer >= 0 else first_input + number
        readers = list(tensor.consumers)
        readers += [first_output + o for o, value in enumerate(graph.outputs) if value == number]
        found += [Wire(tensor=number, source=source, target=reader) for reader in readers]
    return tuple(found)


def _rows(
    graph: LayerGraph, on_edge: Sequence[bool], sources: Mapping[int, Sequence[int]]
) -> tuple[list[int], int | None]:
    """Gives every vertex its depth, and pushes the cloud's below the edge's."""
    layers, inputs, outputs = len(graph.layers), len(graph.inputs), len(graph.outputs)
    rows = [0] * (layers + inputs + outputs)
    edge = [i for i in range(layers) if on_edge and on_edge[i]]
    cloud = [i for i in range(layers) if not (on_edge and on_edge[i])]
    for index in edge:
        rows[index] = 1 + max((rows[s] for s in sources[index]), default=0)
    cut = bool(on_edge) and bool(cloud)
    last_edge_row = max((rows[i] for i in edge), default=0) if cut else None
    lowest = 0 if last_edge_row is None else last_edge_row
    for index in (*cloud, *range(layers + inputs, len(rows))):
        rows[index] = 1 + max([*(rows[s] for s in sources[index]), lowest])
    return rows, last_edge_row


def _heights(rows: Sequence[int], targets: Mapping[int, Sequence[int]]) -> list[int]:
    """Returns for each vertex the number of steps that follow it."""
    heights = [0] * len(rows)
    for vertex in sorted(range(len(rows)), key=lambda v: -rows[v]):
        heights[vertex] = 1 + max((heights[t] for t in targets[vertex]), default=-1)
    return heights


def _lanes(
    rows: Sequence[int],
    sources: Mapping[int, Sequence[int]],
    targets: Mapping[int, Sequence[int]],
) -> list[int]:
    """Puts each vertex below a predecessor; the one with the longest way to go first.

    The others stand to the right, in lanes that no wire is using.
    """
    lanes = [0] * len(rows)
    heights = _heights(rows, targets)
    last = [max((rows[t] for t in targets[v]), default=0) for v in range(len(rows))]
    members: dict[int, list[int]] = defaultdict(list)
    for vertex, row in enumerate(rows):
        members[row].append(vertex)
    passing: set[int] = set()
    for row in sorted(members):
        passing = {v for v in passing if last[v] > row}
        wish = {v: min((lanes[s] for s in sources[v]), default=0) for v in members[row]}
        taken: set[int] = set()
        late = []
        for vertex in sorted(members[row], key=lambda v: (-heights[v], v)):
            if wish[vertex] in taken:
                late.append(vertex)
            lanes[vertex] = wish[vertex]
            taken.add(wish[vertex])
        taken |= {lanes[v] for v in passing}
        for vertex in late:
            lanes[vertex] = next(n for n in itertools.count(wish[vertex]) if n not in taken)
            taken.add(lanes[vertex])
        passing.update(members[row])
    return lanes


def _columns(
    rows: Sequence[int],
    lanes: Sequence[int],
    wires: Sequence[Wire],
    last_edge_row: int | None,
    row_aspect: float,
) -> tuple[tuple[int, int], ...]:
    """Breaks the rows into columns, where few wires are broken and never at the cut."""
    count, width = 1 + max(rows), 1 + max(lanes)
    number = max(1, round(math.sqrt(count / (row_aspect * width))))
    broken = [0] * (count + 1)
    for wire in wires:
        for row in range(rows[wire.source] + 1, rows[wire.target] + 1):
            broken[row] += 1
    if last_edge_row is not None:
        broken[last_edge_row + 1] += count
    breaks = [0]
    for column in range(1, number):
        ideal = round(column * count / number)
        near = [r for r in range(ideal - 2, ideal + 3) if breaks[-1] < r < count]
        if near:
            breaks.append(min(near, key=lambda r: (2 * broken[r] + abs(r - ideal), r)))
    return tuple(zip(breaks, [*breaks[1:], count], strict=True))
