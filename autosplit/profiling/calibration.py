"""Calibration data: checked, and cut into calls of the traced shape."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from autosplit.errors import CalibrationError
from autosplit.graph import LayerGraph


def calibration_calls(graph: LayerGraph, calibration: Any) -> list[np.ndarray]:
    """Cuts a calibration batch into calls of the shape that the graph was traced with.

    Args:
      graph: traced with inputs of shape ``[N, ...]``.
      calibration: for a function of one input that input, otherwise the tuple of
        inputs; each leaf has the shape ``[m * N, ...]`` or ``[m, N, ...]`` for m calls.

    Returns:
      For each flat input an array ``[m, *traced shape]``.

    Raises:
      CalibrationError: empty, of another structure or shape, or not finite.
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
        _calls(np.asarray(leaf), graph.tensors[tensor].shape, graph.tensors[tensor].name)
        for leaf, tensor in zip(leaves, graph.inputs, strict=True)
    ]
    counts = {len(c) for c in calls}
    if len(counts) != 1:
        raise CalibrationError(f"The inputs hold {sorted(counts)} calls; expected equal numbers.")
    return calls


def _calls(leaf: np.ndarray, traced: tuple[int, ...], name: str) -> np.ndarray:
    if leaf.size == 0:
        raise CalibrationError(
            f"The calibration batch of {name} is empty (shape {leaf.shape}); expected at least "
            f"one call of shape {traced}."
        )
    if leaf.shape[1:] == traced:
        calls = leaf
    elif traced and leaf.shape[1:] == traced[1:] and leaf.shape[0] % traced[0] == 0:
        calls = leaf.reshape(-1, *traced)
    else:
        raise CalibrationError(
            f"The calibration batch of {name} has the shape {leaf.shape}; the graph was traced "
            f"with {traced}. Expected that shape with a first axis that is a multiple."
        )
    if np.issubdtype(calls.dtype, np.inexact) and not np.isfinite(calls).all():
        bad = int(np.size(calls) - np.isfinite(calls).sum())
        raise CalibrationError(
            f"The calibration batch of {name} holds {bad} values that are NaN or infinite; "
            "expected finite values. Check the preprocessing."
        )
    return calls
