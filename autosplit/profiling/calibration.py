"""Calibration data, one batch or a stream of them: checked, and cut into calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import CalibrationError
from autosplit.graph import LayerGraph, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationStream:
    """Batches that are checked when they are read, again each time.

    Attributes:
      graph: traced function.
      source: an iterable of batches; each ``iter(source)`` begins anew.
    """

    graph: LayerGraph
    source: Iterable[Any]

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """Yields the calls of each batch; raises `CalibrationError` with its number."""
        for number, batch in enumerate(self.source):
            try:
                yield calibration_calls(self.graph, batch)
            except CalibrationError as error:
                raise CalibrationError(f"Batch {number} of the stream: {error}") from error


def calibration_batches(graph: LayerGraph, calibration: Any) -> Iterable[list[np.ndarray]]:
    """Returns the calls of one batch or of a stream of batches, in a form to iterate again.

    Args:
      graph: traced with inputs of shape ``[N, ...]``.
      calibration: what `calibration_calls` takes, or an iterable of that: a list, or an
        object whose ``__iter__`` begins anew each time.

    Returns:
      By batch, for each flat input an array ``[m, *traced shape]``; a list if there is one
      batch. Those of a stream are checked when they are read.

    Raises:
      CalibrationError: as `calibration_calls`, or the iterable can be read only once.
    """
    if not _is_stream(graph, calibration):
        return [calibration_calls(graph, calibration)]
    if iter(calibration) is calibration:
        raise CalibrationError(
            f"The calibration data is a {type(calibration).__name__}, which can be read once; "
            "expected a list of batches or an object whose __iter__ begins anew: the batches "
            "are read several times."
        )
    return CalibrationStream(graph=graph, source=calibration)


def _is_stream(graph: LayerGraph, calibration: Any) -> bool:
    if isinstance(calibration, (tuple, dict, str, bytes)) or not isinstance(calibration, Iterable):
        return False
    if hasattr(calibration, "__array__") or hasattr(calibration, "shape"):
        return False
    if not isinstance(calibration, list):
        return True
    # A list may be what the function takes.
    return graph.in_tree not in (
        jax.tree.structure((calibration,)),
        jax.tree.structure(calibration),
    )


def first_calls(batches: Iterable[Sequence[np.ndarray]], count: int) -> list[np.ndarray]:
    """Returns the first calls of a stream, no more than ``count``, reading no further.

    Raises:
      CalibrationError: there is no call.
    """
    parts: list[Sequence[np.ndarray]] = []
    for batch in batches:
        parts.append(batch)
        if sum(len(part[0]) for part in parts) >= count:
            break
    if not parts:
        raise CalibrationError("The calibration stream is empty; expected at least one batch.")
    return [np.concatenate(leaves)[:count] for leaves in zip(*parts, strict=True)]


def calibration_calls(graph: LayerGraph, calibration: Any) -> list[np.ndarray]:
    """Cuts a calibration batch into calls of the shape that the graph was traced with.

    Args:
      graph: traced with inputs of shape ``[N, ...]``.
      calibration: for a function of one input that input, otherwise the tuple of
        inputs; each leaf has the shape ``[m * N, ...]`` or ``[m, N, ...]`` for m calls.

    Returns:
      For each flat input an array ``[m, *traced shape]`` of the traced dtype.

    Raises:
      CalibrationError: empty, of another structure, shape or kind of numbers, or not finite.
    """
    leaves, tree = jax.tree.flatten((calibration,))
    if tree != graph.in_tree:
        leaves, tree = jax.tree.flatten(calibration)
    if tree != graph.in_tree:
        raise CalibrationError(
            f"The calibration batch has the structure {tree}; expected {graph.in_tree}: one "
            "input, or the tuple of all inputs of the traced function."
        )
    calls = [
        _calls(np.asarray(leaf), graph.tensors[tensor])
        for leaf, tensor in zip(leaves, graph.inputs, strict=True)
    ]
    counts = {len(c) for c in calls}
    if len(counts) != 1:
        raise CalibrationError(f"The inputs hold {sorted(counts)} calls; expected equal numbers.")
    return calls


def _calls(leaf: np.ndarray, tensor: Tensor) -> np.ndarray:
    name, traced = tensor.name, tensor.shape
    if _kind(leaf.dtype) != _kind(tensor.dtype):
        raise CalibrationError(
            f"The calibration batch of {name} has the dtype {leaf.dtype}; the graph was traced "
            f"with {tensor.dtype}. Convert it as for a call of the traced function."
        )
    if leaf.size == 0:
        raise CalibrationError(
            f"The calibration batch of {name} is empty (shape {leaf.shape}); expected at least "
            f"one call of shape {traced}."
        )
    if leaf.ndim and leaf.shape[1:] == traced:
        calls = leaf
    elif traced and leaf.shape[1:] == traced[1:] and leaf.shape[0] % traced[0] == 0:
        calls = leaf.reshape(-1, *traced)
    else:
        raise CalibrationError(
            f"The calibration batch of {name} has the shape {leaf.shape}; the graph was traced "
            f"with {traced}. Expected that shape with a first axis that is a multiple."
        )
    if tensor.is_float and not np.isfinite(calls).all():
        bad = int(np.size(calls) - np.isfinite(calls).sum())
        raise CalibrationError(
            f"The calibration batch of {name} holds {bad} values that are NaN or infinite; "
            "expected finite values. Check the preprocessing."
        )
    return calls.astype(tensor.dtype)


def _kind(dtype: Any) -> Any:
    kinds = (jnp.bool_, jnp.integer, jnp.floating)
    return next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), dtype)
