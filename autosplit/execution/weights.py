"""The arrays of one half: by name, quantized where the plan says so, packed for disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights, LayerWeights
from autosplit.profiling.assignment import Assignment
from autosplit.quant.affine import quantize_weight, weight_qmax, weight_scale
from autosplit.quant.packing import pack, unpack

PACKED_BITS = 8
"""Up to this many bits are packed; what is wider is kept or sent as raw bytes."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["levels", "scale"],
    meta_fields=["bits", "shape", "dtype"],
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PackedWeight:
    """A weight as packed levels with a scale per output channel.

    Attributes:
      levels: u8[packed_bytes], ``level + qmax`` (one bit: 0 and 1 for -1 and 1).
      scale: f32, of the weight's rank with 1 on all axes but the channels'.
      bits: 1 to 8, the most of any channel.
      shape, dtype: of the weight.
    """

    levels: jax.Array
    scale: jax.Array
    bits: int
    shape: tuple[int, ...]
    dtype: str


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class IntegerWeight:
    """A weight as an integer layer reads it (`autosplit.execution.edge_layers`).

    Attributes:
      weight: i8, levels.
      factor: f32, from sums of products to values, broadcastable to the sums.
      correction: i32, what sums lack of the zero point, likewise; None where they lack nothing.
    """

    weight: jax.Array
    factor: jax.Array
    correction: jax.Array | None


def pack_weight(
    weight: jax.Array, axes: tuple[int, ...], clip: ArrayLike, bits: ArrayLike, most_bits: int
) -> PackedWeight:
    """Quantizes a weight symmetrically and packs it.

    Args:
      weight: float, any shape.
      axes: its output channels.
      clip: f32, broadcastable to one number per channel.
      bits: i32, likewise.
      most_bits: the largest of them, static, 1 to 8: all levels take as many.

    Returns:
      The packed weight.
    """
    level = quantize_weight(weight.astype(jnp.float32), clip, bits)
    code = (level + 1) / 2 if most_bits == 1 else level + weight_qmax(most_bits)
    scale = weight_scale(jnp.asarray(clip, jnp.float32), bits)
    return PackedWeight(
        levels=pack(code.astype(jnp.uint8), most_bits),
        scale=jnp.broadcast_to(scale, channel_shape(weight.shape, axes)),
        bits=most_bits,
        shape=tuple(weight.shape),
        dtype=str(weight.dtype),
    )


def unpack_levels(packed: PackedWeight) -> jax.Array:
    """Returns the levels, i8."""
    code = unpack(packed.levels, packed.bits, packed.shape).astype(jnp.int16)
    level = code * 2 - 1 if packed.bits == 1 else code - ((1 << (packed.bits - 1)) - 1)
    return level.astype(jnp.int8)


def unpack_weight(packed: PackedWeight) -> jax.Array:
    """Returns the dequantized weight: ``level * scale``."""
    return (unpack_levels(packed).astype(jnp.float32) * packed.scale).astype(packed.dtype)


def channel_shape(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of one number per output channel.

    >>> channel_shape((3, 3, 8, 16), (3,))
    (1, 1, 1, 16)
    """
    return tuple(n if axis in axes else 1 for axis, n in enumerate(shape))


def packed_bits(
    graph: LayerGraph, weights: GraphWeights, assignment: Assignment, layers: Iterable[int]
) -> dict[int, int]:
    """Finds the weights that are packed, and at how many bits.

    Those that are symmetric, of up to `PACKED_BITS` bits and with one clip and bit-width per
    output channel; others stay float, fake-quantized.

    Args:
      graph: traced function.
      weights: in float.
      assignment: bits and clips, concrete.
      layers: indices of the edge.

    Returns:
      Layer index -> the most bits of any channel.
    """
    found = {}
    for index in layers:
        weight, spec = weights.layers[index].weight, graph.layers[index].weight
        symmetric = assignment.w_low is None or assignment.w_low[index] is None
        clip = assignment.w_high[index]
        if weight is None or spec is None or clip is None or not symmetric:
            continue
        bits = np.asarray(assignment.w_bits[index])
        per_channel = channel_shape(spec.shape, spec.channel_axes)
        shapes = (bits.shape, clip.shape, per_channel)
        if np.broadcast_shapes(*shapes) == per_channel and bits.max(initial=1) <= PACKED_BITS:
            found[index] = int(bits.max(initial=1))
    return found


@functools.partial(jax.jit, static_argnames=("graph", "bits"))
def pack_weights(
    graph: LayerGraph,
    weights: GraphWeights,
    assignment: Assignment,
    bits: tuple[tuple[int, int], ...],
) -> dict[int, PackedWeight]:
    """Packs weights, in one compiled program.

    Args:
      graph: traced function.
      weights: in float.
      assignment: bits and clips.
      bits: items of `packed_bits`.

    Returns:
      Layer index -> packed weight.
    """
    packed = {}
    for index, most_bits in bits:
        weight, spec = weights.layers[index].weight, graph.layers[index].weight
        clip, own_bits = assignment.w_high[index], assignment.w_bits[index]
        if weight is not None and spec is not None and clip is not None and own_bits is not None:
            packed[index] = pack_weight(weight, spec.channel_axes, clip, own_bits, most_bits)
    return packed


def arguments(weights: GraphWeights, layers: Iterable[int], outputs: bool) -> dict[str, Any]:
    """Names the arrays that some layers read.

    Args:
      weights: of the whole graph.
      layers: indices.
      outputs: add the graph outputs that depend on parameters alone.

    Returns:
      ``0003.weight``, ``0003.bias``, ``0003.constant0``, ``output0``, ...
    """
    named: dict[str, Any] = {}
    for index in layers:
        own = weights.layers[index]
        if own.weight is not None:
            named[f"{index:04d}.weight"] = own.weight
        if own.bias is not None:
            named[f"{index:04d}.bias"] = own.bias
        for number, constant in enumerate(own.constants):
            named[f"{index:04d}.constant{number}"] = constant
    if outputs:
        named.update({f"output{n}": value for n, value in enumerate(weights.outputs)})
    return named


def from_arguments(graph: LayerGraph, named: Mapping[str, Any]) -> GraphWeights:
    """Puts named arrays back in place; layers that have none get None."""
    layers = tuple(layer_arguments(graph, named, index) for index in range(len(graph.layers)))
    count = sum(tensor is None for tensor in graph.outputs)
    outputs = tuple(named[f"output{n}"] for n in range(count) if f"output{n}" in named)
    return GraphWeights(layers=layers, outputs=outputs)


def layer_arguments(graph: LayerGraph, named: Mapping[str, Any], index: int) -> LayerWeights:
    """Returns what one layer reads; None for what has no name."""
    prefix = f"{index:04d}."
    constants = (f"{prefix}constant{n}" for n in range(len(graph.layers[index].constants)))
    return LayerWeights(
        weight=named.get(f"{prefix}weight"),
        bias=named.get(f"{prefix}bias"),
        constants=tuple(named[key] for key in constants if key in named),
    )


def digest(named: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of named arrays."""
    total = hashlib.sha256()
    for key in sorted(named):
        array = np.asarray(named[key])
        total.update(f"{key} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).view(np.uint8).data)
    return total.hexdigest()
