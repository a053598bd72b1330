"""How far outputs are from those of the float network: sums on the device, scores on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.assignment import float_outputs
from autosplit.profiling.call_chunks import chunks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """How far each of N assignments is from the float network.

    The arrays may have another shape than [N], the same for all.

    Attributes:
      output_error: f64[N], ``sum ||y - f||^2 / sum ||f||^2`` over all float outputs and calls.
      divergence: f64[N], mean Kullback-Leibler divergence ``KL(softmax(f) || softmax(y))``
        in nats; NaN where no output has classes.
      agreement: f64[N], share of rows with the class of float; NaN likewise.
      accuracy: f64[N], share of rows with the right class; None without labels.
    """

    output_error: np.ndarray
    divergence: np.ndarray
    agreement: np.ndarray
    accuracy: np.ndarray | None

    def __len__(self) -> int:
        return len(self.output_error)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceChunk:
    """Some calls, always as many, with the float network's answers.

    Attributes:
      calls: flat inputs, each ``[C, *traced shape]``.
      outputs: flat outputs in float, each ``[C, *shape]``.
      labels: i32[C, rows of the logits]; -1 without labels.
      valid: how many of the calls count; the others repeat the last of these.
      labelled: there are labels.
    """

    calls: list[jax.Array]
    outputs: list[jax.Array]
    labels: jax.Array
    valid: int
    labelled: bool

    @property
    def rows(self) -> int:
        """Rows of the logits in a call; 0 where no output has classes."""
        return self.labels.shape[1]


def logits_output(graph: LayerGraph) -> int | None:
    """Returns which flat output has classes: the first float one with a last axis above 1."""
    for index, (shape, dtype) in enumerate(graph.output_shapes):
        if shape and shape[-1] > 1 and jnp.issubdtype(dtype, jnp.floating):
            return index
    return None


def reference_chunks(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[np.ndarray | jax.Array],
    labels: ArrayLike | None,
    size: int,
) -> list[ReferenceChunk]:
    """Cuts calls and labels into chunks of one size and runs them in float."""
    known = label_rows(graph, labels, len(calls[0]))
    rows = known.shape[1]
    parts, begin = [], 0
    for part in chunks([[np.asarray(call) for call in calls]], size):
        device_calls = [jnp.asarray(call) for call in part.calls]
        own = np.full((size, rows), -1, np.int32)
        own[: part.valid] = known[begin : begin + part.valid]
        begin += part.valid
        parts.append(
            ReferenceChunk(
                calls=device_calls,
                outputs=float_outputs(graph, weights, device_calls),
                labels=jnp.asarray(own),
                valid=part.valid,
                labelled=labels is not None,
            )
        )
    return parts


def label_rows(graph: LayerGraph, labels: ArrayLike | None, calls: int) -> np.ndarray:
    """Arranges labels as the calls are.

    Args:
      graph: traced function.
      labels: int, the class of each row of the logits, in order; or None.
      calls: number of calls.

    Returns:
      i32[calls, rows of the logits in a call]; -1 without labels.

    Raises:
      InputError: there are no logits, not as many whole numbers as rows, or one is no class.
    """
    logits = logits_output(graph)
    rows = 0 if logits is None else int(np.prod(graph.output_shapes[logits][0][:-1]))
    if labels is None:
        return np.full((calls, rows), -1, np.int32)
    if logits is None:
        raise InputError(
            "Labels are given, but no output of the graph is float with a last axis of classes; "
            "trace a function that returns logits."
        )
    found = np.asarray(labels)
    if found.size != calls * rows or not np.issubdtype(found.dtype, np.integer):
        raise InputError(
            f"The labels are {found.dtype}{list(found.shape)}; expected {calls * rows} whole "
            "numbers, one for each row of the logits."
        )
    count = graph.output_shapes[logits][0][-1]
    if found.size and (found.min() < 0 or found.max() >= count):
        raise InputError(
            f"The labels run from {found.min()} to {found.max()}; expected 0 to {count - 1}."
        )
    return found.reshape(calls, rows).astype(np.int32)


def compare(graph: LayerGraph, found: Sequence[jax.Array], part: ReferenceChunk) -> jax.Array:
    """Compares the outputs of some calls with those in float.

    Returns:
      f32[C, 4]: by call ``sum (y - f)^2``, the sum of the divergences of its rows, how many
      rows agree with float, and how many are right.
    """
    size = len(part.labels)
    distance = jnp.zeros(size)
    for y, f in zip(found, part.outputs, strict=True):
        if jnp.issubdtype(f.dtype, jnp.floating):
            difference = (y - f).astype(jnp.float32).reshape(size, -1)
            distance += jnp.square(difference).sum(1)
    classes = logits_output(graph)
    if classes is None:
        return jnp.stack([distance, *[jnp.zeros(size)] * 3], 1)
    y, f = (
        side[classes].astype(jnp.float32).reshape(size, part.rows, -1)
        for side in (found, part.outputs)
    )
    ours, floats = jax.nn.log_softmax(y), jax.nn.log_softmax(f)
    divergence = (jnp.exp(floats) * (floats - ours)).sum((1, 2))
    answer = y.argmax(-1)
    agreed = (answer == f.argmax(-1)).sum(1)
    right = (answer == part.labels).sum(1)
    return jnp.stack([distance, divergence, agreed, right], 1)


def add_calls(found: Sequence[jax.Array], parts: Sequence[ReferenceChunk]) -> np.ndarray:
    """Adds what `compare` found, f32[..., C, 4] of each chunk, over the calls that count."""
    each = [
        np.asarray(sums, np.float64)[..., : part.valid, :].sum(-2)
        for sums, part in zip(found, parts, strict=True)
    ]
    return np.sum(each, axis=0)


def scores_of(totals: np.ndarray, parts: Sequence[ReferenceChunk]) -> Scores:
    """Returns the scores of f64[..., 4], from `add_calls`."""
    norm = sum(
        float(np.square(np.asarray(f, np.float64)[: part.valid]).sum())
        for part in parts
        for f in part.outputs
        if jnp.issubdtype(f.dtype, jnp.floating)
    )
    distance, divergence, agreed, right = np.moveaxis(totals, -1, 0)
    rows = sum(part.valid for part in parts) * parts[0].rows or np.nan
    return Scores(
        output_error=distance / norm if norm else (distance > 0).astype(np.float64),
        divergence=divergence / rows,
        agreement=agreed / rows,
        accuracy=right / rows if parts[0].labelled else None,
    )
