"""Scores many assignments of bits with one compilation, in chunks that fit in memory.

The weights are quantized once for each assignment, by one program; another runs the calls,
a chunk at a time, and returns sums alone: outputs are never kept.

On XLA:CPU one assignment runs at a time. `jax.vmap` over weights makes grouped convolutions,
of which XLA's own are slow there: on ResNet-18 two to four assignments at once took 5 to 8
times as long as one after the other, on MobileNet-v2, whose 1x1 convolutions become batched
products, 1.2 to 1.6 times. Calls run best a few at a time (4 or 8 photographs, while the
largest tensor is in the cache); 1 to 16 were within 40 % of each other.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.assignment import (
    Assignment,
    quantized_weights,
    run_assignment,
)
from autosplit.profiling.output_scores import (
    ReferenceChunk,
    Scores,
    add_calls,
    compare,
    reference_chunks,
    scores_of,
)

Progress = Callable[[int], None]
"""Called with the number of assignments that are done."""

# Bytes of the largest tensor of a chunk of calls: about what the caches of a CPU hold.
_CACHE_BYTES = 32 << 20

# Of the memory that is there, where no budget is given.
_SHARE = 0.25

# The compiler's time grows with a chunk; so many fill a device where one call is small.
_MOST_ASSIGNMENTS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssignmentChunk:
    """How much runs at a time.

    Attributes:
      assignments: vmapped, 1 or more; with 1 nothing is vmapped over assignments.
      calls: of the batch, 1 or more.
    """

    assignments: int
    calls: int

    def __post_init__(self) -> None:
        if self.assignments < 1 or self.calls < 1:
            raise InputError(f"{self} is empty; expected at least 1 assignment and 1 call.")


def evaluate_assignments(
    graph: LayerGraph,
    weights: GraphWeights,
    assignments: Assignment | Iterable[Assignment],
    calls: Sequence[np.ndarray | jax.Array],
    *,
    labels: ArrayLike | None = None,
    chunk: AssignmentChunk | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Measures the outputs of many assignments against those of the float network.

    Args:
      graph: traced function.
      weights: from `prepare`, in float.
      assignments: one whose leaves have a first axis N, or any number of single ones (a
        generator is read as it is needed).
      calls: flat inputs, each ``[m, *traced shape]``.
      labels: int, the class of each row of the logits, in order. Logits are the first
        float output with a last axis of at least two.
      chunk: from `assignment_chunk` by default. Bits, clips, and another number of
        assignments compile nothing anew; another chunk does.
      progress: called after each chunk.

    Returns:
      The scores, in the order of the assignments.

    Raises:
      InputError: the labels do not fit, or there are no calls.
    """
    count = len(calls[0]) if calls else 0
    if not count:
        raise InputError("There are no calls; expected at least one to evaluate on.")
    chunk = chunk or assignment_chunk(graph, count)
    parts = reference_chunks(graph, weights, calls, labels, chunk.calls)
    totals: list[np.ndarray] = []
    done = 0
    for together, valid in _assignment_chunks(assignments, chunk.assignments):
        quantized = _quantize(weights, together)
        found = [_sums(graph, weights, quantized, together, part) for part in parts]
        totals.append(add_calls(found, parts)[:valid])
        done += valid
        if progress:
            progress(done)
    return scores_of(np.concatenate(totals) if totals else np.zeros((0, 4)), parts)


def assignment_chunk(
    graph: LayerGraph,
    calls: int,
    *,
    budget_bytes: float | None = None,
    backend: str | None = None,
) -> AssignmentChunk:
    """Chooses how many assignments and calls to run at a time.

    On a CPU one assignment, and calls while the largest tensor stays in the cache (see
    above). Elsewhere all calls that the budget allows, then as many assignments as it has
    room for beside them, which is to fill a device where the calls are few; that this is
    the fastest on a GPU or TPU has not been measured.

    Args:
      graph: traced function.
      calls: number of calls to evaluate on.
      budget_bytes: memory for quantized weights and tensors; by default a quarter of the
        device's (of a CPU: of the machine's).
      backend: ``"cpu"``, ``"gpu"`` or ``"tpu"``; by default the one in use.

    Returns:
      At least one of each, though a single one exceed the budget.
    """
    backend = backend or jax.default_backend()
    budget = _memory_bytes() * _SHARE if budget_bytes is None else budget_bytes
    # Beside the float weights, which are there anyway.
    own = sum(4 * layer.weight_elements for layer in graph.layers)
    each = max(live_bytes(graph), 1)
    at_once = int(max(budget - own, 0) // each)
    if backend == "cpu":
        largest = max((_tensor_bytes(graph, t) for t in range(len(graph.tensors))), default=1)
        at_once = min(at_once, _CACHE_BYTES // max(largest, 1))
    at_once = min(max(at_once, 1), calls)
    # Equal parts: five and five of ten, not eight and two that six copies join.
    at_once = -(-calls // -(-calls // at_once))
    together = 1 if backend == "cpu" else int(budget // (own + at_once * each))
    return AssignmentChunk(
        assignments=min(max(together, 1), _MOST_ASSIGNMENTS), calls=max(at_once, 1)
    )


def live_bytes(graph: LayerGraph) -> int:
    """Returns the most memory that the tensors of one call take at any time.

    A tensor lives until its last reader has run. What a layer writes counts twice: before
    and after fake quantization.
    """
    last = [
        len(graph.layers) if tensor.is_output else max(tensor.consumers, default=-1)
        for tensor in graph.tensors
    ]
    most, alive = 0, sum(_tensor_bytes(graph, t) for t in graph.inputs)
    for index, layer in enumerate(graph.layers):
        written = sum(_tensor_bytes(graph, t) for t in layer.outputs)
        alive += written
        most = max(most, alive + written)
        ended = {t for t in (*layer.inputs, *layer.outputs) if last[t] <= index}
        alive -= sum(_tensor_bytes(graph, t) for t in ended)
    return most


def _tensor_bytes(graph: LayerGraph, tensor: int) -> int:
    described = graph.tensors[tensor]
    return described.size * np.dtype(described.dtype).itemsize


def _memory_bytes() -> float:
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _assignment_chunks(
    assignments: Assignment | Iterable[Assignment], size: int
) -> Iterator[tuple[Assignment, int]]:
    """Yields stacked assignments, always ``size`` of them, and how many count."""
    singles = _single(assignments) if isinstance(assignments, Assignment) else iter(assignments)
    while together := list(itertools.islice(singles, size)):
        padded = together + together[-1:] * (size - len(together))
        yield jax.tree.map(lambda *leaves: np.stack(leaves), *padded), len(together)


def _single(assignments: Assignment) -> Iterator[Assignment]:
    # On the host: a slice on the device is a program of its own for each place.
    stacked = jax.tree.map(np.asarray, assignments)
    for index in range(len(stacked.on_edge)):
        yield jax.tree.map(lambda leaf, index=index: leaf[index], stacked)


def _over_assignments(fn: Callable[..., Any], *stacked: Any) -> Any:
    """Returns ``vmap(fn)(*stacked)``; for one assignment without a batch axis."""
    if len(jax.tree.leaves(stacked)[0]) > 1:
        return jax.vmap(fn)(*stacked)
    single = jax.tree.map(lambda leaf: leaf[0], stacked)
    return jax.tree.map(lambda leaf: leaf[None], fn(*single))


@jax.jit
def _quantize(weights: GraphWeights, assignments: Assignment) -> list[jax.Array | None]:
    """Returns L weights ``[A, *shape]``, None without a weight."""

    def one(assignment: Assignment) -> list[jax.Array | None]:
        return [own.weight for own in quantized_weights(weights, assignment).layers]

    return _over_assignments(one, assignments)


def with_weights(weights: GraphWeights, values: Sequence[jax.Array | None]) -> GraphWeights:
    """Returns what a graph reads, with other weights."""
    layers = [
        dataclasses.replace(own, weight=value)
        for own, value in zip(weights.layers, values, strict=True)
    ]
    return dataclasses.replace(weights, layers=tuple(layers))


@functools.partial(jax.jit, static_argnames=("graph",))
def _sums(
    graph: LayerGraph,
    weights: GraphWeights,
    quantized: Sequence[jax.Array | None],
    assignments: Assignment,
    part: ReferenceChunk,
) -> jax.Array:
    """Returns `compare` of each assignment, f32[A, C, 4]."""

    def one(values: Sequence[jax.Array | None], assignment: Assignment) -> jax.Array:
        own = with_weights(weights, values)
        found = jax.vmap(lambda leaves: run_assignment(graph, own, assignment, leaves))(part.calls)
        return compare(graph, found, part)

    return _over_assignments(one, list(quantized), assignments)
