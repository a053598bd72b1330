"""Calibration data: checked, and cut into calls of the traced shape."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import CalibrationError
from autosplit.graph import LayerGraph, Tensor


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
