"""Programs that quantize tensors and weights at many clips and bit-widths, and measure the error.

Bit-widths and clips are array arguments, so changing them does not recompile.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights, run_layers
from autosplit.profiling.call_chunks import split_by_calls
from autosplit.quant.affine import fake_quant, fake_quant_weight
from autosplit.quant.clipping import ClipRule, Histogram, histogram


@functools.partial(jax.jit, static_argnames=("graph", "mesh"))
def all_tensors(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[jax.Array],
    mesh: Mesh | None = None,
) -> dict[int, jax.Array]:
    """Runs the graph in float on every call: tensor index -> ``[m, *shape]``.

    Args:
      graph: static.
      weights: from `prepare`.
      calls: flat inputs, each ``[m, *traced shape]``.
      mesh: devices that share the calls; static.
    """

    def run(weights: GraphWeights, calls: list[jax.Array]) -> dict[int, jax.Array]:
        def one(leaves: Sequence[jax.Array]) -> dict[int, jax.Array]:
            known = dict(zip(graph.inputs, leaves, strict=True))
            return run_layers(graph, weights, known, range(len(graph.layers)))

        return jax.vmap(one)(calls)

    return split_by_calls(run, mesh)(weights, list(calls))


@functools.partial(jax.jit, static_argnames=("mesh",))
def squared_errors(
    tensors: Sequence[jax.Array],
    clips: tuple[jax.Array, jax.Array, jax.Array],
    mesh: Mesh | None = None,
) -> jax.Array:
    """Returns the sums of squared errors of tensors in each call, f32[m, F, C].

    Args:
      tensors: F float tensors, each ``[m, *shape]``.
      clips: low and high, f32[F, C], and bits, i32[C].
      mesh: devices that share the calls; static.
    """

    def measure(
        clips: tuple[jax.Array, jax.Array, jax.Array], tensors: list[jax.Array]
    ) -> jax.Array:
        low, high, bits = clips
        rows = [_squares(x, (low[n], high[n], bits)) for n, x in enumerate(tensors)]
        return jnp.stack(rows).transpose(2, 0, 1)

    return split_by_calls(measure, mesh)(clips, list(tensors))


def _squares(x: jax.Array, clips: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    """Returns sums over all elements of each call, f32[C, m]."""
    inner = tuple(range(1, x.ndim))

    def at(clip: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return jnp.sum(jnp.square((x - fake_quant(x, *clip)).astype(jnp.float32)), axis=inner)

    # A loop, not a vmap: C copies of the tensor do not fit the cache (3 times slower).
    return jax.lax.map(at, clips)


@functools.partial(jax.jit, static_argnames=("rules", "symmetric"))
def search_clips(
    rules: tuple[ClipRule, ...], shapes: Histogram, bits: jax.Array, *, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Chooses the clips by M methods: low and high, f32[tensors, M, K] each."""

    def one(values: Histogram) -> tuple[jax.Array, jax.Array]:
        found = [jax.vmap(lambda b, r=rule: r(values, b, symmetric))(bits) for rule in rules]
        return jax.tree.map(lambda *parts: jnp.stack(parts), *found)

    # One program for all tensors, run tensor by tensor: all at once would need
    # tensors x bits x ratios x bins of memory.
    return jax.lax.map(one, shapes)


def weight_tables(
    graph: LayerGraph, weights: GraphWeights, bits: jax.Array, rules: tuple[ClipRule, ...]
) -> tuple[jax.Array, jax.Array]:
    """Returns ratios and errors of all weights by M methods, f32[L, M, K] each."""
    ratio = np.ones((len(graph.layers), len(rules), len(bits)), np.float32)
    error = np.zeros_like(ratio)
    matrices = {i: own.weight for i, own in enumerate(weights.layers) if own.weight is not None}
    if matrices:
        # One program for each shape, as for the counts of tensors.
        shapes = [_scaled_histogram(w, channel_axes(graph, i)) for i, w in matrices.items()]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *shapes)
        # The channels are scaled to 1: the clip is the part of the range that is kept.
        kept = np.asarray(search_clips(rules, stacked, bits, symmetric=True)[1])
        every = jnp.tile(jnp.asarray(bits), len(rules))
        errors = [
            _weight_error(w, kept[n].reshape(-1), every, channel_axes(graph, i))
            for n, (i, w) in enumerate(matrices.items())
        ]
        rows = list(matrices)
        ratio[rows], error[rows] = kept, np.reshape(jax.device_get(errors), kept.shape)
    return jnp.asarray(ratio), jnp.asarray(error)


@functools.partial(jax.jit, static_argnames=("axes",))
def _scaled_histogram(weight: jax.Array, axes: tuple[int, ...]) -> Histogram:
    """Brings the channels to one range and weights them by its square.

    So one histogram holds the error of all channels together, up to a factor.
    """
    smallest = jnp.finfo(jnp.float32).tiny
    reach = channel_reach(weight, axes)
    share = reach.astype(jnp.float32) / jnp.maximum(reach.max(initial=0.0), smallest)
    return histogram(weight / jnp.maximum(reach, smallest), sample_weight=share**2)


@functools.partial(jax.jit, static_argnames=("axes",))
def _weight_error(
    weight: jax.Array, ratio: jax.Array, bits: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """Returns the quant_mse of a weight at each pair of ratio and bits, f32[C]."""
    reach = channel_reach(weight, axes)

    def at(choice: tuple[jax.Array, jax.Array]) -> jax.Array:
        kept, b = choice
        error = weight - fake_quant_weight(weight, kept * reach, b)
        return jnp.sum(jnp.square(error.astype(jnp.float32))) / max(weight.size, 1)

    return jax.lax.map(at, (ratio, bits))


def channel_axes(graph: LayerGraph, layer: int) -> tuple[int, ...]:
    """Returns the output-channel axes of a layer's weight."""
    spec = graph.layers[layer].weight
    return spec.channel_axes if spec else ()


def channel_reach(weight: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns the largest magnitude of each output channel, broadcastable to the weight."""
    others = tuple(a for a in range(weight.ndim) if a not in axes)
    return jnp.max(jnp.abs(weight), axis=others, keepdims=True, initial=0.0)
