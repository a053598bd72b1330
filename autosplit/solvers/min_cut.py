"""Minimum cut: the cheapest closed set of layers for given prices.

Every closed set S (the layers on the edge, closed under predecessors) costs

    sum over S of edge_cost + sum over the rest of cloud_cost
    + sum over the tensors that cross of tensor_cost,

where a tensor crosses from S, and is paid once, if it is a graph input or made in S
and some layer outside S reads it or it is an output of the graph. The least of all
closed sets is a minimum cut (Picard 1976; Hu et al. 2019 for this use).

The constants of "some proper split" (round trip, response, overhead of a message) are the
caller's, and so are the two sets that are none: cloud-only, where nothing is made on
the edge, and edge-only, where nothing is sent, not even the outputs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from autosplit.profiling.table import Profile

UNITS = 2**28
"""Of the most that is left to flow, in one round of whole numbers (int32 holds 8 times that)."""

ROUNDS = 6
TOLERANCE = 1e-12
"""Relative to what is paid: where cost and bound agree so far, no round follows."""
ROUNDING = 1e-14
"""Relative rounding of a sum, taken off the bound so that it stays one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedSet:
    """The cheapest closed set.

    Attributes:
      on_edge: bool[L]; None where no closed set is allowed and of finite cost.
      cost: of it, else infinity.
      lower_bound: proven for every closed set that is allowed; equal to the cost up to
        about `TOLERANCE` of the sum of what is paid.
    """

    on_edge: np.ndarray | None
    cost: float
    lower_bound: float


NONE_ALLOWED = ClosedSet(on_edge=None, cost=math.inf, lower_bound=math.inf)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Which layer makes and which layers read each tensor.

    Attributes:
      producer: i64[T], -1 for graph inputs.
      reads: bool[L, T].
      is_output: bool[T].
    """

    producer: np.ndarray
    reads: np.ndarray
    is_output: np.ndarray

    @classmethod
    def of(cls, profile: Profile) -> Topology:
        return cls(producer=profile.producer, reads=profile.reads, is_output=profile.is_output)

    @functools.cached_property
    def ancestors(self) -> np.ndarray:
        """bool[L, L]: layer i needs layer j (itself included)."""
        needs = np.eye(len(self.reads), dtype=bool)
        for layer, row in enumerate(self.reads):
            makers = self.producer[row]
            needs[layer] |= needs[makers[makers >= 0]].any(axis=0)
        return needs

    def crosses(self, on_edge: np.ndarray) -> np.ndarray:
        """Returns bool[..., T] for sets bool[..., L], as a profile lists it.

        Nothing is sent by the set of all layers.
        """
        made = (self.producer < 0) | on_edge[..., self.producer]
        reader, tensor, starts = self._readers
        wanted = np.broadcast_to(self.is_output, made.shape).copy()
        if len(starts):
            outside = np.logical_or.reduceat(~on_edge[..., reader], starts, axis=-1)
            wanted[..., tensor] |= outside
        return made & wanted & ~on_edge.all(axis=-1, keepdims=True)

    @functools.cached_property
    def _readers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Readers by tensor i64[N], the tensors that have some, and each one's first reader."""
        tensor, reader = np.nonzero(self.reads.T)
        tensor, starts = np.unique(tensor, return_index=True)
        return reader, tensor, starts

    @functools.cached_property
    def _arcs(self) -> _Arcs:
        return _Arcs.of(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Arcs:
    """The arcs of the flow, as a sparse pattern that holds every arc's opposite too.

    An arc is paid where it leaves the side of the source. Beside the layers there is a
    vertex for each tensor with several readers.

    Attributes:
      size: number of vertices; the last two are the source (edge) and the sink (cloud).
      rows, indices, indptr: of the N entries, sorted (compressed rows).
      shut: bool[N], infinite, because sets are closed and a tensor needs all readers.
      priced: i64[P], tensors that cross or do not; priced_at: i64[P], their entries.
      to_sink, from_source: i64[L], entries of the layers' prices.
    """

    size: int
    rows: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    shut: np.ndarray
    priced: np.ndarray
    priced_at: np.ndarray
    to_sink: np.ndarray
    from_source: np.ndarray

    @classmethod
    def of(cls, topology: Topology) -> _Arcs:
        reads, producer = topology.reads, topology.producer
        layers, readers = len(reads), reads.sum(axis=0)
        priced = np.flatnonzero((readers > 0) & ~topology.is_output)
        several = priced[readers[priced] > 1]
        source, sink = layers + len(several), layers + len(several) + 1
        head = np.where(producer < 0, source, producer)
        vertex = reads.argmax(axis=0)
        vertex[several] = layers + np.arange(len(several))
        layer, tensor = np.nonzero(reads & (producer >= 0))
        tail, which = np.nonzero(reads[:, several])
        every = np.arange(layers)
        parts = [(layer, producer[tensor]), (vertex[several][which], tail),
                 (head[priced], vertex[priced]), (every, np.full(layers, sink)),
                 (np.full(layers, source), every)]
        size = sink + 1
        keys = [heads * size + tails for heads, tails in parts]
        flat = np.concatenate(keys)
        pattern = np.union1d(flat, flat % size * size + flat // size)
        at = [np.searchsorted(pattern, key) for key in keys]
        shut = np.zeros(len(pattern), dtype=bool)
        shut[np.concatenate(at[:2])] = True
        rows, columns = pattern // size, pattern % size
        return cls(size=size, rows=rows, indices=columns.astype(np.int32),
                   indptr=np.searchsorted(rows, np.arange(size + 1)).astype(np.int32),
                   shut=shut, priced=priced, priced_at=at[2], to_sink=at[3], from_source=at[4])


def minimum_closed_set(
    topology: Topology, edge_cost: np.ndarray, cloud_cost: np.ndarray, tensor_cost: np.ndarray,
    on_edge: np.ndarray | None = None, in_cloud: np.ndarray | None = None,
) -> ClosedSet:
    """Finds the closed set of least cost, the empty and the full one included.

    A maximum flow in whole numbers (SciPy's, of 32 bits), refined: what a round could
    not send for want of digits is sent by the next one, whose unit is a 2**-28 of what is left.
    The flow itself is the bound, so that it holds whatever the rounding.

    Args:
      topology: L layers, T tensors.
      edge_cost, cloud_cost: f64[L], of any sign; infinity forbids.
      tensor_cost: f64[T], 0 or more; infinity forbids that the tensor crosses.
      on_edge, in_cloud: bool[L], layers that are forced there.

    Returns:
      The set, its cost and a lower bound on the cost of all that are allowed.

    >>> chain = Topology(producer=np.array([-1, 0, 1]), is_output=np.array([False, False, True]),
    ...                  reads=np.array([[True, False, False], [False, True, False]]))
    >>> found = minimum_closed_set(chain, np.array([1.0, 9.0]), np.zeros(2),
    ...                            np.array([5.0, 2.0, 0.0]))
    >>> found.on_edge.tolist(), found.cost
    ([True, False], 3.0)

    Reference: Picard 1976, "Maximal closure of a graph"; a tensor with several readers is
    a vertex between them and its maker, as in Hu et al. 2019 (DADS).
    """
    capacity, constant, paid = _capacities(topology, edge_cost, cloud_cost, tensor_cost,
                                           on_edge, in_cloud)
    if math.isinf(constant):
        return NONE_ALLOWED
    arcs = topology._arcs
    residual = capacity.copy()
    flow, least, best = 0.0, math.inf, None
    left = float(capacity[np.isfinite(capacity)].sum()) or 1.0
    for _ in range(ROUNDS):
        sent, side = _push(arcs, residual, left)
        flow += sent
        leaves = side[arcs.rows] & ~side[arcs.indices]
        value = float(capacity[leaves].sum())
        if value < least:
            least, best = value, side
        if math.isinf(least):
            return NONE_ALLOWED
        left = least - flow
        if left <= TOLERANCE * max(least, np.finfo(float).tiny):
            break
    assert best is not None
    bound = constant + flow - ROUNDING * (paid + flow)
    cost = constant + least
    return ClosedSet(on_edge=best[: len(topology.reads)], cost=cost,
                     lower_bound=min(bound, cost))


def _capacities(
    topology: Topology, edge_cost: np.ndarray, cloud_cost: np.ndarray, tensor_cost: np.ndarray,
    on_edge: np.ndarray | None, in_cloud: np.ndarray | None,
) -> tuple[np.ndarray, float, float]:
    """Returns f64[N] of the arcs, the cost that every set pays, and the sum of its parts."""
    arcs = topology._arcs
    outputs = topology.is_output & (topology.producer >= 0)
    inputs = topology.is_output & (topology.producer < 0)
    edge = np.array(edge_cost, dtype=np.float64)
    np.add.at(edge, topology.producer[outputs], tensor_cost[outputs])
    cloud = np.array(cloud_cost, dtype=np.float64)
    if on_edge is not None:
        cloud[on_edge] = np.inf
    if in_cloud is not None:
        edge[in_cloud] = np.inf
    both = np.minimum(edge, cloud)
    common = np.where(np.isfinite(both), both, 0.0)
    always = np.concatenate([common, tensor_cost[inputs]])  # an input that is an output
    capacity = np.where(arcs.shut, np.inf, 0.0)
    np.add.at(capacity, arcs.to_sink, edge - common)
    np.add.at(capacity, arcs.from_source, cloud - common)
    np.add.at(capacity, arcs.priced_at, tensor_cost[arcs.priced])
    return capacity, float(always.sum()), float(np.abs(always).sum())


def _push(arcs: _Arcs, residual: np.ndarray, left: float) -> tuple[float, np.ndarray]:
    """Sends what whole multiples of a unit allow; ``residual`` is reduced by it.

    Returns the flow sent and bool[vertices], the side of the source that it leaves.
    """
    from scipy.sparse import csr_array  # slow to import, seldom needed
    from scipy.sparse.csgraph import maximum_flow

    unit = left / UNITS
    whole = np.minimum(np.maximum(residual, 0.0) / unit, 2 * UNITS).astype(np.int32)
    shape = (arcs.size, arcs.size)
    graph = csr_array((whole, arcs.indices, arcs.indptr), shape=shape)
    source, sink = arcs.size - 2, arcs.size - 1
    result = maximum_flow(graph, source, sink)
    flow: Any = result.flow
    moved = flow.data.astype(np.int64)
    residual -= moved * unit
    return result.flow_value * unit, _reachable(arcs, whole > moved, source)


def _reachable(arcs: _Arcs, open_arcs: np.ndarray, source: int) -> np.ndarray:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    indptr = np.concatenate([[0], np.cumsum(open_arcs)])[arcs.indptr]
    ones = np.ones(int(indptr[-1]), dtype=np.int8)
    graph = csr_array((ones, arcs.indices[open_arcs], indptr), shape=(arcs.size, arcs.size))
    side = np.zeros(arcs.size, dtype=bool)
    side[breadth_first_order(graph, source, return_predecessors=False)] = True
    return side
