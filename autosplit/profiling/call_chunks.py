"""Cuts a stream of calls into chunks that fit in memory, and shares them among devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from autosplit.errors import CalibrationError, InputError
from autosplit.graph import LayerGraph

# What the tensors of one chunk may take by default: one that is larger is not faster.
MEMORY_BYTES = 2**30

# Counts of one chunk are 32-bit.
_MOST_ELEMENTS = 2**31 - 1

CALLS = "calls"  # the mesh axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some calls of a stream, always as many.

    Attributes:
      calls: flat inputs, each ``[size, *traced shape]``.
      valid: how many of them are the stream's; the others repeat the last of these.
    """

    calls: list[np.ndarray]
    valid: int

    @property
    def mask(self) -> np.ndarray:
        """i32[size], 1 for the stream's calls and 0 for their copies."""
        return (np.arange(len(self.calls[0])) < self.valid).astype(np.int32)


def call_bytes(graph: LayerGraph) -> int:
    """Returns the memory that all tensors of one call take, with the work space of a layer.

    All tensors are alive at once, because statistics look at each of them. Beside them the
    largest is there twice more: padded or transposed for a convolution, or as places of bins.
    """
    sizes = [t.size * np.dtype(t.dtype).itemsize for t in graph.tensors]
    return sum(sizes) + 2 * 4 * max((t.size for t in graph.tensors), default=0)


def calls_that_fit(graph: LayerGraph, memory_bytes: int, devices: int = 1) -> int:
    """Returns how many calls of a graph fit in a memory: at least one for each device.

    Args:
      graph: traced function.
      memory_bytes: of all devices together.
      devices: that share the calls equally.
    """
    if memory_bytes <= 0:
        raise InputError(f"memory_bytes is {memory_bytes}; expected a positive number of bytes.")
    largest = max((t.size for t in graph.tensors), default=1)
    by_memory = memory_bytes // devices // max(call_bytes(graph), 1)
    return devices * max(min(by_memory, _MOST_ELEMENTS // max(largest, 1)), 1)


def chunk_size(batches: Iterable[Sequence[Any]], most: int, devices: int = 1) -> int:
    """Chooses one size for all chunks of a stream.

    Args:
      batches: flat inputs, each ``[m, *traced shape]``; read up to ``most`` calls.
      most: calls of a chunk at most.
      devices: the size is a multiple of these.

    Returns:
      ``most``; less if the stream is shorter, or can be cut into equal parts because
      its length is known.

    Raises:
      CalibrationError: there is no call.
    """
    total = 0
    for batch in batches:
        total += len(batch[0])
        if total >= most and not isinstance(batches, Sequence):
            return most
    if not total:
        raise CalibrationError(
            "The calibration stream holds no batch; expected at least one call. A stream is "
            "read several times: its __iter__ has to begin anew."
        )
    size = -(-total // -(-total // most))
    return devices * -(-size // devices)


def chunks(batches: Iterable[Sequence[Any]], size: int) -> Iterator[Chunk]:
    """Cuts and joins batches into chunks of ``size`` calls; the last repeats its last call.

    Args:
      batches: flat inputs, each ``[m, *traced shape]``.
      size: calls of a chunk: one size, so that programs compile once.
    """
    parts: list[list[np.ndarray]] = []
    count = 0
    for batch in batches:
        parts.append([np.asarray(leaf) for leaf in batch])
        count += len(parts[-1][0])
        if count < size:
            continue
        whole = _joined(parts)
        full = count - count % size
        for begin in range(0, full, size):
            yield Chunk(calls=[leaf[begin : begin + size] for leaf in whole], valid=size)
        parts, count = [[leaf[full:] for leaf in whole]], count - full
    if count:
        rest = [
            np.concatenate([leaf, np.repeat(leaf[-1:], size - count, axis=0)])
            for leaf in _joined(parts)
        ]
        yield Chunk(calls=rest, valid=count)


def _joined(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    if len(parts) == 1:
        return list(parts[0])
    return [np.concatenate(leaves) for leaves in zip(*parts, strict=True)]


def calls_mesh(devices: Sequence[jax.Device]) -> Mesh | None:
    """Returns the mesh of several devices; None for one, which needs none."""
    return Mesh(np.array(devices), (CALLS,)) if len(devices) > 1 else None


def place(value: Any, devices: Sequence[jax.Device], *, split: bool) -> Any:
    """Puts a pytree on devices, split along the first axis or whole on each of them."""
    mesh = calls_mesh(devices)
    if mesh is None:
        return jax.device_put(value, devices[0])
    return jax.device_put(value, NamedSharding(mesh, PartitionSpec(CALLS if split else None)))


def split_by_calls(fn: Callable[[Any, Any], Any], mesh: Mesh | None) -> Callable[[Any, Any], Any]:
    """Returns ``fn(whole, split)`` run by each device on its part of the calls.

    Args:
      fn: of what each device has whole, and of what is split along the first axis, as
        its results are.
      mesh: from `calls_mesh`; without one this is ``fn``.
    """
    if mesh is None:
        return fn
    specs = (PartitionSpec(), PartitionSpec(CALLS))
    # Parts do not talk to each other, so there is nothing to check, and loops stay as they are.
    return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=specs[1], check_vma=False)
