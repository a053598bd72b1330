"""Programs that quantize tensors and weights at many clips and bit-widths, and measure the error.

Bit-widths and clips are array arguments, so changing them does not recompile.
"""

from __future__ import annotations

import dataclasses
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
    matrices = {
        i: flat_weight(own.weight, channel_axes(graph, i))
        for i, own in enumerate(weights.layers)
        if own.weight is not None
    }
    if matrices:
        shapes = [_scaled_histogram(w) for w in matrices.values()]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *shapes)
        # The channels are scaled to 1: the clip is the part of the range that is kept.
        kept = np.asarray(search_clips(rules, stacked, bits, symmetric=True)[1])
        every = jnp.tile(jnp.asarray(bits), len(rules))
        errors = [
            _weight_error(w, kept[n].reshape(-1), every) for n, w in enumerate(matrices.values())
        ]
        rows = list(matrices)
        ratio[rows], error[rows] = kept, np.reshape(jax.device_get(errors), kept.shape)
    return jnp.asarray(ratio), jnp.asarray(error)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatWeight:
    """A weight of any shape in one of few sizes, so that few programs serve a network.

    Attributes:
      values: [size], NaN behind the last element.
      reach: [size], the largest magnitude of the channel of each element.
      count: i32[], elements.
    """

    values: jax.Array
    reach: jax.Array
    count: jax.Array


def flat_weight(weight: jax.Array, axes: tuple[int, ...]) -> FlatWeight:
    """Flattens a weight on the host, where its shape costs no compilation.

    Args:
      weight: any shape, float.
      axes: of its output channels.

    >>> flat_weight(jnp.array([[1.0, -2.0], [3.0, 0.0]]), (1,)).reach[:4].tolist()
    [3.0, 2.0, 3.0, 2.0]
    """
    values = np.asarray(weight)
    others = tuple(a for a in range(values.ndim) if a not in axes)
    reach = np.max(np.abs(values), axis=others, keepdims=True, initial=0)
    size = _padded_size(values.size)
    flat = np.full(size, np.nan, values.dtype)
    flat[: values.size] = values.reshape(-1)
    spread = np.zeros(size, values.dtype)
    spread[: values.size] = np.broadcast_to(reach, values.shape).reshape(-1)
    return FlatWeight(
        values=jnp.asarray(flat), reach=jnp.asarray(spread), count=jnp.int32(values.size)
    )


def _padded_size(count: int) -> int:
    """Returns the next power of two, or three quarters of it."""
    power = 1 << max(count - 1, 1023).bit_length()
    return 3 * power // 4 if count <= 3 * power // 4 else power


@jax.jit
def _scaled_histogram(weight: FlatWeight) -> Histogram:
    """Brings the channels to one range and weights them by its square.

    So one histogram holds the error of all channels together, up to a factor.
    """
    smallest = jnp.finfo(jnp.float32).tiny
    reach = weight.reach
    share = reach.astype(jnp.float32) / jnp.maximum(reach.max(), smallest)
    return histogram(weight.values / jnp.maximum(reach, smallest), sample_weight=share**2)


@jax.jit
def _weight_error(weight: FlatWeight, ratio: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns the quant_mse of a weight at each pair of ratio and bits, f32[C]."""
    known = jnp.arange(weight.values.size) < weight.count

    def at(choice: tuple[jax.Array, jax.Array]) -> jax.Array:
        kept, b = choice
        error = weight.values - fake_quant_weight(weight.values, kept * weight.reach, b)
        squares = jnp.where(known, jnp.square(error.astype(jnp.float32)), 0.0)
        return jnp.sum(squares) / jnp.maximum(weight.count, 1)

    return jax.lax.map(at, (ratio, bits))


def channel_axes(graph: LayerGraph, layer: int) -> tuple[int, ...]:
    """Returns the output-channel axes of a layer's weight."""
    spec = graph.layers[layer].weight
    return spec.channel_axes if spec else ()


def channel_reach(weight: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns the largest magnitude of each output channel, broadcastable to the weight."""
    others = tuple(a for a in range(weight.ndim) if a not in axes)
    return jnp.max(jnp.abs(weight), axis=others, keepdims=True, initial=0.0)
