"""Quantization error of every tensor at every bit-width, all in one compiled program.

A histogram chooses the clip of each bit-width (`autosplit.quant.clipping`); one
exact pass over the tensor then measures the error at the chosen clips. Bit-widths
are an array argument and are vmapped, so changing them does not recompile.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights, run_layers
from autosplit.quant.affine import fake_quant, fake_quant_weight
from autosplit.quant.clipping import ClipRule, Histogram, clip_rule, histogram


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
    calls: Sequence[jax.Array],
    bits: jax.Array,
    clipping: str,
) -> ErrorTables:
    """Measures quant_mse of every weight and tensor at every bit-width.

    Args:
      graph: static.
      weights: from `prepare`.
      calls: flat inputs, each ``[m, *traced shape]``.
      bits: i32[K].
      clipping: name of the clipping method, static.

    Returns:
      The tables.
    """
    # Two programs: in one, XLA would fuse layers into the statistics and compute
    # them again for each (5 times slower, 4 times longer to compile).
    return _tables(graph, weights, all_tensors(graph, weights, calls), bits, clipping)


@functools.partial(jax.jit, static_argnames=("graph", "clipping"))
def _tables(
    graph: LayerGraph,
    weights: GraphWeights,
    tensors: Mapping[int, jax.Array],
    bits: jax.Array,
    clipping: str,
) -> ErrorTables:
    rule = clip_rule(clipping)
    weight_ratio, weight_errors = _weight_tables(graph, weights, bits, rule)
    low, high, errors, extremes = _tensor_tables(graph, tensors, bits, rule)
    return ErrorTables(
        weight_ratio=weight_ratio,
        weight_error=weight_errors,
        activation_low=low,
        activation_high=high,
        activation_error=errors,
        extremes=extremes,
    )


def _weight_tables(
    graph: LayerGraph, weights: GraphWeights, bits: jax.Array, rule: ClipRule
) -> tuple[jax.Array, jax.Array]:
    """Returns ratios and errors of all weights, f32[L, K] each."""
    ratio = jnp.ones((len(graph.layers), bits.shape[0]))
    matrices = {i: own.weight for i, own in enumerate(weights.layers) if own.weight is not None}
    if not matrices:
        return ratio, jnp.zeros_like(ratio)
    reaches = {i: channel_reach(w, channel_axes(graph, i)) for i, w in matrices.items()}
    # The channels are scaled to 1: the clip is the part of the range that is kept.
    _, found = _search(
        rule, [_scaled_histogram(w, reaches[i]) for i, w in matrices.items()], bits, symmetric=True
    )
    errors = [
        weight_error(w, reaches[i], r, bits)
        for (i, w), r in zip(matrices.items(), found, strict=True)
    ]
    rows = jnp.array(list(matrices))
    return ratio.at[rows].set(found), jnp.zeros_like(ratio).at[rows].set(jnp.stack(errors))


def _scaled_histogram(weight: jax.Array, reach: jax.Array) -> Histogram:
    """Brings the channels to one range and weights them by its square.

    So one histogram holds the error of all channels together, up to a factor.
    """
    smallest = jnp.finfo(jnp.float32).tiny
    share = reach.astype(jnp.float32) / jnp.maximum(reach.max(initial=0.0), smallest)
    return histogram(weight / jnp.maximum(reach, smallest), sample_weight=share**2)


def _tensor_tables(
    graph: LayerGraph, tensors: Mapping[int, jax.Array], bits: jax.Array, rule: ClipRule
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns low, high and error of all tensors, f32[T, K] each, and extremes, f32[T, 2]."""
    empty = jnp.zeros((len(graph.tensors), bits.shape[0]))
    extremes = jnp.zeros((len(graph.tensors), 2))
    floats = [t for t, tensor in enumerate(graph.tensors) if tensor.is_float]
    if not floats:
        return empty, empty, empty, extremes
    shapes = [histogram(tensors[t]) for t in floats]
    ends = jnp.array([[h.low, h.high] for h in shapes])
    low, high = _search(rule, shapes, bits, symmetric=False)
    errors = [activation_error(tensors[t], low[n], high[n], bits) for n, t in enumerate(floats)]
    rows = jnp.array(floats)
    return (
        empty.at[rows].set(low),
        empty.at[rows].set(high),
        empty.at[rows].set(jnp.stack(errors)),
        extremes.at[rows].set(ends),
    )


def _search(
    rule: ClipRule, shapes: Sequence[Histogram], bits: jax.Array, *, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Chooses the clips: low and high, f32[tensors, K] each."""

    def one(values: Histogram) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(lambda b: rule(values, b, symmetric))(bits)

    # One program for all tensors, run tensor by tensor: all at once would need
    # tensors x bits x ratios x bins of memory.
    return jax.lax.map(one, jax.tree.map(lambda *leaves: jnp.stack(leaves), *shapes))


@functools.partial(jax.jit, static_argnames=("graph",))
def all_tensors(
    graph: LayerGraph, weights: GraphWeights, calls: Sequence[jax.Array]
) -> dict[int, jax.Array]:
    """Runs the graph in float on every call: tensor index -> ``[m, *shape]``."""

    def one(leaves: Sequence[jax.Array]) -> dict[int, jax.Array]:
        known = dict(zip(graph.inputs, leaves, strict=True))
        return run_layers(graph, weights, known, range(len(graph.layers)))

    return jax.vmap(one)(list(calls))


def channel_axes(graph: LayerGraph, layer: int) -> tuple[int, ...]:
    """Returns the output-channel axes of a layer's weight."""
    spec = graph.layers[layer].weight
    return spec.channel_axes if spec else ()


def channel_reach(weight: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns the largest magnitude of each output channel, broadcastable to the weight."""
    others = tuple(a for a in range(weight.ndim) if a not in axes)
    return jnp.max(jnp.abs(weight), axis=others, keepdims=True, initial=0.0)


def weight_error(
    weight: jax.Array, reach: jax.Array, ratio: jax.Array, bits: jax.Array
) -> jax.Array:
    """Returns the quant_mse of a weight at each pair of ratio and bits, f32[K]."""

    def at(choice: tuple[jax.Array, jax.Array]) -> jax.Array:
        r, b = choice
        return mean_square(weight - fake_quant_weight(weight, r * reach, b))

    return jax.lax.map(at, (ratio, bits))


def activation_error(x: jax.Array, low: jax.Array, high: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns the quant_mse of a tensor at each clip and bits, f32[K]."""
    # A loop, not a vmap: K copies of the tensor do not fit the cache (3 times slower).
    return jax.lax.map(lambda clip: mean_square(x - fake_quant(x, *clip)), (low, high, bits))


def mean_square(x: jax.Array) -> jax.Array:
    """Returns the mean of squares, 0 for an empty array."""
    return jnp.sum(jnp.square(x.astype(jnp.float32))) / max(x.size, 1)
