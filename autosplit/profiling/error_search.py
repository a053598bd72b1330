"""Clips and errors of every weight and tensor at every bit-width, for any clipping method.

A histogram chooses the clip of each bit-width (`autosplit.quant.clipping`); one
exact pass over the tensor then measures the error at the chosen clips. Calls come in
chunks that fit in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import InputError
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.call_chunks import MEMORY_BYTES, calls_that_fit, chunk_size, place
from autosplit.profiling.error import search_clips, weight_tables
from autosplit.profiling.restart import Progress, load_progress, save_progress, settings_of
from autosplit.profiling.statistics import histograms
from autosplit.profiling.streaming import OnProgress, Stream, gather_statistics, measure_errors
from autosplit.quant.clipping import ClipRule, clip_rule


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorTables:
    """Clips and errors. L layers, T tensors, K bit-widths.

    Attributes:
      weight_ratio, weight_error: f32[L, K]; ratio 1 and error 0 without weight.
      activation_low, activation_high, activation_error: f32[T, K].
      extremes: f32[T, 2], smallest and largest value seen.
    """

    weight_ratio: jax.Array
    weight_error: jax.Array
    activation_low: jax.Array
    activation_high: jax.Array
    activation_error: jax.Array
    extremes: jax.Array


def error_tables(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[Any],
    bits: jax.Array,
    clipping: str,
) -> ErrorTables:
    """Measures quant_mse of every weight and tensor at every bit-width, for one method.

    Args:
      graph: static.
      weights: from `prepare`.
      calls: flat inputs, each ``[m, *traced shape]``.
      bits: i32[K].
      clipping: name of the clipping method.

    Returns:
      The tables.
    """
    return clip_tables(graph, weights, [calls], bits, [clipping])[clipping]


def clip_tables(
    graph: LayerGraph,
    weights: GraphWeights,
    batches: Iterable[Sequence[Any]],
    bits: jax.Array,
    methods: Sequence[str],
    *,
    memory_bytes: int = MEMORY_BYTES,
    devices: Sequence[jax.Device] | None = None,
    statistics_file: str | os.PathLike[str] | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, ErrorTables]:
    """Measures quant_mse for several clipping methods, from the same statistics.

    Args:
      graph: static.
      weights: from `prepare`.
      batches: flat inputs, each ``[m, *traced shape]``, any number of them; read in full
        twice (once if all fit in memory), so an iterable has to begin anew each time.
      bits: i32[K].
      methods: names of clipping methods.
      memory_bytes: what the tensors of the calls that are run at once may take.
      devices: that share the calls; all local ones by default.
      statistics_file: holds how far the run has come, so that one that was interrupted
        goes on; removed at the end.
      on_progress: told ``(calls done, calls to do or None)``; each call counts twice.

    Returns:
      The tables of each method.

    Raises:
      CalibrationError: there is no call, a tensor is not finite, or a second reading
        gives other calls.
      InputError: a weight is not finite, or a method is not known.
      PlanMismatchError, ArtefactError: the file is of another run, or broken.
    """
    names, rules = tuple(methods), tuple(clip_rule(name) for name in methods)
    ratio, weight_errors = weight_tables(graph, weights, bits, rules)
    # Before any tensor: a broken weight breaks the tensors behind it too.
    _check_weights(graph, weight_errors)
    used = tuple(jax.local_devices() if devices is None else devices)
    most = calls_that_fit(graph, memory_bytes, len(used))
    size = chunk_size(batches, most, len(used))
    progress, save = Progress(), None
    if statistics_file is not None:
        path = pathlib.Path(statistics_file)
        settings = settings_of(graph, weights, np.asarray(bits), names, size)
        progress = load_progress(path, settings)
        save = functools.partial(save_progress, path, settings)
    stream = Stream(
        graph=graph,
        weights=place(weights, used, split=False),
        batches=batches,
        size=size,
        calls=sum(len(b[0]) for b in batches) if isinstance(batches, Sequence) else None,
        devices=used,
        save=save,
        on_progress=on_progress,
    )
    low, high, errors, extremes = _tensor_tables(stream, progress, bits, rules)
    if statistics_file is not None:
        pathlib.Path(statistics_file).unlink(missing_ok=True)
    return {
        name: ErrorTables(
            weight_ratio=ratio[:, m],
            weight_error=weight_errors[:, m],
            activation_low=low[:, m],
            activation_high=high[:, m],
            activation_error=errors[:, m],
            extremes=extremes,
        )
        for m, name in enumerate(names)
    }


def _check_weights(graph: LayerGraph, weight_errors: jax.Array) -> None:
    broken = np.flatnonzero(~np.isfinite(np.asarray(weight_errors)).all(axis=(1, 2)))
    if broken.size:
        raise InputError(
            f"The weight of the layer {graph.layers[broken[0]].name!r} holds NaN or infinity; "
            "expected finite parameters."
        )


def _tensor_tables(
    stream: Stream, progress: Progress, bits: jax.Array, rules: tuple[ClipRule, ...]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns low, high and error of all tensors, f32[T, M, K] each, and extremes, f32[T, 2]."""
    tensors, shape = len(stream.graph.tensors), (len(rules), len(bits))
    if not stream.floats:
        empty = jnp.zeros((tensors, *shape))
        return empty, empty, empty, jnp.zeros((tensors, 2))
    progress, last = gather_statistics(stream, progress)
    assert progress.statistics is not None
    low, high = search_clips(rules, histograms(progress.statistics), bits, symmetric=False)
    clips = (
        low.reshape(len(low), -1),
        high.reshape(len(high), -1),
        jnp.tile(jnp.asarray(bits), len(rules)),
    )
    errors = measure_errors(stream, progress, clips, last).reshape(low.shape)
    extremes = np.stack([progress.statistics.low, progress.statistics.high], axis=1)

    def all_rows(found: Any) -> jax.Array:
        rows = np.zeros((tensors, *found.shape[1:]), np.float32)
        rows[stream.floats] = found
        return jnp.asarray(rows)

    return all_rows(low), all_rows(high), all_rows(errors), all_rows(extremes)
