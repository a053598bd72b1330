"""Two passes over a stream of calls: statistics of all tensors, then errors at chosen clips.

Programs stay apart, and loops over chunks are Python's: in one program XLA would fuse layers
into the statistics and compute them again for each (5 times slower, 4 times longer to compile),
and within `jax.lax.map` XLA:CPU runs convolutions some 10 times slower. The second pass begins
with the chunk that the first one ended with, whose tensors are still there: where all calls
fit in one chunk, the network runs once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from autosplit.errors import CalibrationError
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.call_chunks import Chunk, calls_mesh, chunks, place
from autosplit.profiling.error import all_tensors, squared_errors
from autosplit.profiling.restart import Progress
from autosplit.profiling.statistics import (
    TensorStatistics,
    chunk_statistics,
    count_chunk,
    merge,
)

OnProgress = Callable[[int, int | None], None]
"""``on_progress(done, total)`` in calls, each of which is seen twice; the total may be unknown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Calls and what runs them.

    Attributes:
      graph: traced function.
      weights: from `prepare`, on all devices.
      batches: flat inputs, each ``[m, *traced shape]``; can be iterated again.
      size: calls of a chunk.
      calls: how many there are; None if unknown.
      devices: that share each chunk.
      save: writes how far the run has come; None where no file is kept.
      on_progress: is told.
    """

    graph: LayerGraph
    weights: GraphWeights
    batches: Iterable[Sequence[Any]]
    size: int
    calls: int | None
    devices: tuple[jax.Device, ...]
    save: Callable[[Progress], None] | None
    on_progress: OnProgress

    @property
    def floats(self) -> list[int]:
        """Indices of the F tensors that can be quantized."""
        return [t for t, tensor in enumerate(self.graph.tensors) if tensor.is_float]


def gather_statistics(stream: Stream, progress: Progress) -> tuple[Progress, list[jax.Array]]:
    """Runs the first pass, or what is left of it.

    Args:
      stream: the calls.
      progress: how far an earlier run has come.

    Returns:
      Progress with the statistics of all calls, and the float tensors of the last chunk;
      none if an earlier run had that chunk.

    Raises:
      CalibrationError: a tensor is not finite, or an earlier run has read other calls.
    """
    tensors: list[jax.Array] = []
    mesh = calls_mesh(stream.devices)
    for number, chunk, digest in _read(stream, progress):
        if number < progress.chunks:
            continue
        tensors = []  # the next ones need their memory
        tensors = _float_tensors(stream, chunk)
        mask = place(chunk.mask, stream.devices, split=True)
        found = chunk_statistics(count_chunk(tensors, mask, mesh), chunk.valid)
        before = progress.statistics
        _check_finite(stream, found, 0 if before is None else before.calls)
        progress = Progress(
            statistics=found if before is None else merge(before, found),
            chunks=number + 1,
            digest=digest,
        )
        _report(stream, progress)
    return progress, tensors


def measure_errors(
    stream: Stream,
    progress: Progress,
    clips: tuple[jax.Array, jax.Array, jax.Array],
    last: list[jax.Array],
) -> np.ndarray:
    """Runs the second pass, or what is left of it.

    Args:
      stream: the calls.
      progress: the statistics of all of them, and perhaps the errors of some.
      clips: low and high, f32[F, C], and bits, i32[C].
      last: float tensors of the last chunk, if they are still there; emptied.

    Returns:
      quant_mse, f64[F, C].

    Raises:
      CalibrationError: the second reading gives other calls than the first.
    """
    statistics, count = progress.statistics, progress.chunks
    assert statistics is not None
    if progress.measured is None:
        progress = dataclasses.replace(
            progress, squares=np.zeros(clips[0].shape), measured=np.zeros(count, bool)
        )
    valid = np.full(count, stream.size)
    valid[-1] = statistics.calls - (count - 1) * stream.size
    whole = place(clips, stream.devices, split=False)

    def add(progress: Progress, number: int, tensors: Sequence[jax.Array]) -> Progress:
        found = squared_errors(tensors, whole, calls_mesh(stream.devices))
        squares = np.asarray(found, np.float64)[: valid[number]].sum(axis=0)
        measured = progress.measured | (np.arange(count) == number)
        progress = dataclasses.replace(
            progress, squares=progress.squares + squares, measured=measured
        )
        _report(stream, progress, int(valid[measured].sum()))
        return progress

    if last:
        progress = add(progress, count - 1, last)
        last.clear()
    if progress.measured is not None and not progress.measured.all():
        for number, chunk, _ in _read(stream, progress):
            if number >= count or chunk.valid != valid[number]:
                raise _other_calls(f"gives more or fewer calls than {statistics.calls}")
            if not progress.measured[number]:
                progress = add(progress, number, _float_tensors(stream, chunk))
    sizes = np.array([max(stream.graph.tensors[t].size, 1) for t in stream.floats])
    assert progress.squares is not None
    return progress.squares / (statistics.calls * sizes[:, None])


def _read(stream: Stream, progress: Progress) -> Iterator[tuple[int, Chunk, str]]:
    """Yields number, chunk and SHA-256 so far; checks that it is what was read before."""
    digest = hashlib.sha256()
    number = -1
    for number, chunk in enumerate(chunks(stream.batches, stream.size)):
        if stream.save is not None:
            for leaf in chunk.calls:
                digest.update(leaf.tobytes())
            if number + 1 == progress.chunks and digest.hexdigest() != progress.digest:
                raise _other_calls(f"differs in its first {progress.chunks * stream.size} calls")
        yield number, chunk, digest.hexdigest()
    if number + 1 < progress.chunks:
        raise _other_calls(f"ends before the {progress.chunks} chunks that were read")


def _other_calls(found: str) -> CalibrationError:
    return CalibrationError(
        f"The calibration stream {found} when it is read again; expected the same batches in "
        "the same order each time. Do not shuffle anew, and remove the statistics file of "
        "another stream."
    )


def _report(stream: Stream, progress: Progress, measured: int | None = None) -> None:
    assert progress.statistics is not None
    if stream.save is not None:
        stream.save(progress)
    calls = progress.statistics.calls
    total = stream.calls if measured is None else calls
    stream.on_progress(calls + (measured or 0), None if total is None else 2 * total)


def _check_finite(stream: Stream, found: TensorStatistics, before: int) -> None:
    bad = np.flatnonzero(~np.isfinite(found.low) | ~np.isfinite(found.high))
    if bad.size:
        name = stream.graph.tensors[stream.floats[bad[0]]].name
        raise CalibrationError(
            f"In the calibration calls {before} to {before + found.calls - 1} the tensor {name!r} "
            "holds NaN or infinity although the inputs are finite; the function or its "
            "parameters overflow."
        )


def _float_tensors(stream: Stream, chunk: Chunk) -> list[jax.Array]:
    calls = place(chunk.calls, stream.devices, split=True)
    found = all_tensors(stream.graph, stream.weights, calls, calls_mesh(stream.devices))
    return [found[t] for t in stream.floats]
