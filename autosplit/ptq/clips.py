"""From a recipe's bits and clipping rules to an `Assignment`, over histograms taken once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import InputError
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.assignment import Assignment
from autosplit.profiling.call_chunks import MEMORY_BYTES, calls_that_fit, chunk_size, place
from autosplit.profiling.error import channel_axes, channel_reach
from autosplit.profiling.restart import Progress
from autosplit.profiling.statistics import histograms
from autosplit.profiling.streaming import Stream, gather_statistics
from autosplit.ptq.recipe import Bits, Recipe
from autosplit.quant.affine import symmetric_range
from autosplit.quant.clipping import Histogram, histogram
from autosplit.quant.clipping.minmax import minmax_clip
from autosplit.workload import FLOAT_BITS

Rule = Callable[..., tuple[jax.Array, jax.Array]]
"""A `ClipRule`, which may take more arguments behind ``symmetric``."""

_TOGETHER = 32
"""Histograms that are searched at once: more do not fit the cache."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """Histograms of all that is quantized.

    Attributes:
      weights: stacked, one for each scale of each weight, layer after layer.
      layers: stacked, one for each weight, whose channels are brought to one range; None
        where they were not asked for.
      reaches: by layer with a weight, the largest magnitudes, in the shape of its clips
        (which broadcasts to it).
      tensors: stacked, one for each tensor of floats.
      floats: the tensors of floats.
    """

    weights: Histogram | None
    layers: Histogram | None
    reaches: dict[int, jax.Array]
    tensors: Histogram | None
    floats: tuple[int, ...]


def collect_shapes(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[jax.Array],
    granularity: str,
    *,
    by_layer: bool = True,
) -> Shapes:
    """Takes the histograms of all weights, and of all tensors over the calibration calls.

    Args:
      graph: traced function.
      weights: from `prepare`.
      calls: flat inputs, each ``[m, *traced shape]``.
      granularity: ``"channel"`` or ``"tensor"``.
      by_layer: take ``layers`` too, which `clip_layers` needs.

    Returns:
      The histograms.

    Raises:
      InputError: a weight is not finite.
      CalibrationError: a tensor is not finite.
    """
    matrices = {i: own.weight for i, own in enumerate(weights.layers) if own.weight is not None}
    _check_finite(graph, matrices)
    axes = {i: channel_axes(graph, i) if granularity == "channel" else () for i in matrices}
    reaches = {i: channel_reach(w, axes[i]).astype(jnp.float32) for i, w in matrices.items()}
    rows = [_weight_histograms(w, axes[i]) for i, w in matrices.items()]
    layers = [_scaled_histogram(w, reaches[i]) for i, w in matrices.items() if by_layer]
    floats = tuple(t for t, tensor in enumerate(graph.tensors) if tensor.is_float)
    return Shapes(
        weights=_joined(rows, jnp.concatenate),
        layers=_joined(layers, jnp.stack),
        reaches=reaches,
        tensors=_tensor_histograms(graph, weights, calls) if floats else None,
        floats=floats,
    )


def assignment_for(graph: LayerGraph, recipe: Recipe, shapes: Shapes) -> Assignment:
    """Returns the bits of a recipe, with empty clips.

    Args:
      graph: traced function.
      recipe: its bits, exceptions and edge.
      shapes: from `collect_shapes`.
    """
    w_bits, a_bits, flags = given_bits(graph, recipe)
    if recipe.first_last_bits is not None:
        layers, tensors = first_and_last(graph)
        w_bits[layers] = np.maximum(w_bits[layers], recipe.first_last_bits)
        a_bits[tensors] = np.maximum(a_bits[tensors], recipe.first_last_bits)
    if recipe.fused_sums:
        a_bits[only_summed(graph)] = FLOAT_BITS
    zeros = jnp.zeros(len(graph.tensors))
    clips = tuple(
        jnp.zeros_like(shapes.reaches[i]) if i in shapes.reaches else None
        for i in range(len(graph.layers))
    )
    return Assignment(
        on_edge=jnp.asarray(flags),
        w_bits=jnp.asarray(w_bits),
        w_high=clips,
        w_low=None if recipe.symmetric_weights else clips,
        a_bits=jnp.asarray(a_bits),
        a_low=zeros,
        a_high=zeros,
    )


def given_bits(graph: LayerGraph, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the bits and the edge of a recipe: i32[L], i32[T] and bool[L].

    Raises:
      InputError: they are given for another number of layers or tensors.
    """
    layers, tensors = len(graph.layers), len(graph.tensors)
    flags = (True,) * layers if recipe.on_edge is None else recipe.on_edge
    if len(flags) != layers:
        raise InputError(
            f"on_edge has {len(flags)} flags; the graph has {layers} layers. Give one for each."
        )
    return (
        _entries("w_bits", recipe.w_bits, layers, "layers"),
        _entries("a_bits", recipe.a_bits, tensors, "tensors"),
        np.array(flags, bool),
    )


def first_and_last(graph: LayerGraph) -> tuple[list[int], list[int]]:
    """Returns the first and the last layer with a weight, and the tensors at the two ends.

    These are what the two layers read, and the outputs of the graph.
    """
    weighted = [i for i, layer in enumerate(graph.layers) if layer.weight is not None]
    ends = sorted({weighted[0], weighted[-1]}) if weighted else []
    read = {t for i in ends for t in graph.layers[i].inputs}
    return ends, sorted(read | {t for t in graph.outputs if t is not None})


def only_summed(graph: LayerGraph) -> list[int]:
    """Returns the tensors that an addition reads and nothing else does."""
    return [
        t
        for t, tensor in enumerate(graph.tensors)
        if tensor.producer >= 0
        and not tensor.is_output
        and len(tensor.consumers) == 1
        and graph.layers[tensor.consumers[0]].kind == "add"
    ]


def bits_at(assignment: Assignment, layer: int) -> jax.Array:
    """Returns the bits of a weight: one for all of it, or an array in the shape of its clips."""
    bits = assignment.w_bits[layer]
    assert bits is not None, f"layer {layer} has no weight"
    return bits


def clip_weights(
    shapes: Shapes, assignment: Assignment, rule: Rule, *options: jax.Array
) -> Assignment:
    """Chooses the clip of every weight at its own bits.

    Args:
      shapes: from `collect_shapes`.
      assignment: its bits, and whether ``w_low`` is None (symmetric), stay.
      rule: called with histogram, bits, symmetric and ``options``.
      *options: arrays; other values do not compile again.

    Returns:
      The assignment with other clips.
    """
    if shapes.weights is None:
        return assignment
    bits = [
        jnp.broadcast_to(bits_at(assignment, i), reach.shape).reshape(-1)
        for i, reach in shapes.reaches.items()
    ]
    symmetric = assignment.w_low is None
    found = _search(shapes.weights, jnp.concatenate(bits), rule, symmetric, options)
    ends = np.cumsum([reach.size for reach in shapes.reaches.values()])[:-1]
    low, high = (dict(zip(shapes.reaches, jnp.split(side, ends), strict=True)) for side in found)

    def by_layer(side: dict[int, jax.Array]) -> tuple[jax.Array | None, ...]:
        return tuple(
            side[i].reshape(shapes.reaches[i].shape) if i in side else None
            for i in range(len(assignment.w_high))
        )

    return dataclasses.replace(
        assignment, w_high=by_layer(high), w_low=None if symmetric else by_layer(low)
    )


def clip_layers(
    shapes: Shapes, assignment: Assignment, rule: Rule, *options: jax.Array
) -> Assignment:
    """Chooses one part of the range for all channels of each weight, as `clip_weights` does.

    One search for each layer in place of one for each channel: for rules that are slow.
    Ends of asymmetric weights keep the part of their own.
    """
    if shapes.layers is None:
        return assignment
    means = jnp.stack([jnp.mean(bits_at(assignment, i)) for i in shapes.reaches])
    bits = jnp.round(means).astype(jnp.int32)
    _, found = _search(shapes.layers, bits, rule, True, options)
    ratio = dict(zip(shapes.reaches, found, strict=True))
    whole = clip_weights(shapes, assignment, minmax_clip)

    def scaled(side: tuple[jax.Array | None, ...]) -> tuple[jax.Array | None, ...]:
        return tuple(None if end is None else end * ratio[i] for i, end in enumerate(side))

    low = None if whole.w_low is None else scaled(whole.w_low)
    return dataclasses.replace(whole, w_high=scaled(whole.w_high), w_low=low)


def clip_tensors(
    shapes: Shapes, assignment: Assignment, rule: Rule, symmetric: bool, *options: jax.Array
) -> Assignment:
    """Chooses the clip of every tensor of floats at its own bits.

    Args:
      shapes: from `collect_shapes`.
      assignment: its bits stay.
      rule, *options: as for `clip_weights`.
      symmetric: centre the grids of tensors with negative values on zero.

    Returns:
      The assignment with other clips.
    """
    if shapes.tensors is None:
        return assignment
    rows = jnp.array(shapes.floats)
    bits = assignment.a_bits[rows]
    low, high = _search(shapes.tensors, bits, rule, False, options)
    if symmetric:
        # Without negative values all levels of a centred grid below zero would lie idle.
        ends = symmetric_range(low, high, bits)
        low, high = jnp.where(low < 0, ends[0], low), jnp.where(low < 0, ends[1], high)
    return dataclasses.replace(
        assignment,
        a_low=assignment.a_low.at[rows].set(low),
        a_high=assignment.a_high.at[rows].set(high),
    )


def _entries(name: str, bits: Bits, count: int, of: str) -> np.ndarray:
    if isinstance(bits, int):
        return np.full(count, bits, np.int32)
    if len(bits) != count:
        raise InputError(
            f"{name} has {len(bits)} entries; the graph has {count} {of}. Give one number for "
            "all, or one for each."
        )
    return np.array(bits, np.int32)


def _check_finite(graph: LayerGraph, matrices: Mapping[int, jax.Array]) -> None:
    for index, weight in matrices.items():
        if not bool(jnp.isfinite(weight).all()):
            raise InputError(
                f"The weight of the layer {graph.layers[index].name!r} holds NaN or infinity; "
                "expected finite parameters."
            )


def _tensor_histograms(
    graph: LayerGraph, weights: GraphWeights, calls: Sequence[jax.Array]
) -> Histogram:
    """Counts in chunks of calls that fit in memory."""
    devices = tuple(jax.local_devices())
    most = calls_that_fit(graph, MEMORY_BYTES, len(devices))
    stream = Stream(
        graph=graph,
        weights=place(weights, devices, split=False),
        batches=[calls],
        size=chunk_size([calls], most, len(devices)),
        calls=len(calls[0]),
        devices=devices,
        save=None,
        on_progress=lambda done, total: None,
    )
    statistics = gather_statistics(stream, Progress())[0].statistics
    assert statistics is not None
    return histograms(statistics)


@jax.jit
def _scaled_histogram(weight: jax.Array, reach: jax.Array) -> Histogram:
    """Brings the channels to one range and weights them by its square."""
    smallest = jnp.finfo(jnp.float32).tiny
    share = reach / jnp.maximum(reach.max(initial=0.0), smallest)
    return histogram(weight / jnp.maximum(reach, smallest), sample_weight=share**2)


@functools.partial(jax.jit, static_argnames=("axes",))
def _weight_histograms(weight: jax.Array, axes: tuple[int, ...]) -> Histogram:
    """Returns one histogram for each index along ``axes``, stacked."""
    front = jnp.moveaxis(weight, axes, range(len(axes)))
    count = int(np.prod([weight.shape[a] for a in axes]))
    return jax.vmap(histogram)(front.reshape(count, -1))


def _joined(
    rows: Sequence[Histogram], join: Callable[[Sequence[jax.Array]], jax.Array]
) -> Histogram | None:
    return jax.tree.map(lambda *leaves: join(leaves), *rows) if rows else None


@functools.partial(jax.jit, static_argnames=("rule", "symmetric"))
def _search(
    values: Histogram,
    bits: jax.Array,
    rule: Rule,
    symmetric: bool,
    options: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array]:
    def one(pair: tuple[Histogram, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return rule(pair[0], pair[1], symmetric, *options)

    return jax.lax.map(one, (values, bits), batch_size=_TOGETHER)
