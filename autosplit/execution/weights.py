"""The arrays of one half: by name, quantized where the plan says so, packed for disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights, LayerWeights
from autosplit.profiling.error import channel_axes, channel_reach
from autosplit.profiling.plan import FLOAT_BITS, SplitPlan
from autosplit.quant.affine import quantize_weight, weight_qmax, weight_scale
from autosplit.quant.packing import pack, unpack

PACKED_BITS = 8
"""Up to this many bits are packed; what is wider is kept or sent as raw bytes."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["levels", "clip"],
    meta_fields=["bits", "shape", "dtype"],
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PackedWeight:
    """A weight as packed levels with a clip per output channel.

    Attributes:
      levels: u8[packed_bytes], ``level + qmax`` (one bit: 0 and 1 for -1 and 1).
      clip: f32, of the weight's rank with 1 on all axes but the channels'.
      bits: 1 to 8.
      shape, dtype: of the weight.
    """

    levels: jax.Array
    clip: jax.Array
    bits: int
    shape: tuple[int, ...]
    dtype: str


def pack_weight(
    weight: jax.Array, axes: tuple[int, ...], ratio: jax.Array, bits: int
) -> PackedWeight:
    """Quantizes a weight per output channel and packs it.

    Args:
      weight: float, any shape.
      axes: its output channels.
      ratio: clip over the largest magnitude of a channel.
      bits: 1 to 8.

    Returns:
      The packed weight.
    """
    clip = ratio * channel_reach(weight, axes).astype(jnp.float32)
    level = quantize_weight(weight.astype(jnp.float32), clip, bits)
    code = (level + 1) / 2 if bits == 1 else level + weight_qmax(bits)
    return PackedWeight(
        levels=pack(code.astype(jnp.uint8), bits),
        clip=clip,
        bits=bits,
        shape=tuple(weight.shape),
        dtype=str(weight.dtype),
    )


def unpack_weight(packed: PackedWeight) -> jax.Array:
    """Returns the dequantized weight: ``level * clip / qmax``."""
    code = unpack(packed.levels, packed.bits, packed.shape).astype(jnp.float32)
    level = code * 2 - 1 if packed.bits == 1 else code - weight_qmax(packed.bits)
    return (level * weight_scale(packed.clip, packed.bits)).astype(packed.dtype)


@jax.jit
def unpack_weights(packed: Mapping[str, PackedWeight]) -> dict[str, jax.Array]:
    """Returns the dequantized weights by name, in one compiled program."""
    return {key: unpack_weight(weight) for key, weight in packed.items()}


def pack_edge_weights(
    graph: LayerGraph, weights: GraphWeights, plan: SplitPlan
) -> dict[str, PackedWeight]:
    """Packs the weights of all edge layers that the plan quantizes, by argument name."""
    bits = tuple(
        b if edge else FLOAT_BITS for b, edge in zip(plan.w_bits, plan.on_edge, strict=True)
    )
    return _pack_weights(graph, weights, jnp.array(plan.weight_ratio, jnp.float32), bits)


@functools.partial(jax.jit, static_argnames=("graph", "bits"))
def _pack_weights(
    graph: LayerGraph, weights: GraphWeights, ratio: jax.Array, bits: tuple[int, ...]
) -> dict[str, PackedWeight]:
    return {
        f"{index:04d}.weight": pack_weight(
            own.weight, channel_axes(graph, index), ratio[index], bits[index]
        )
        for index, own in enumerate(weights.layers)
        if bits[index] <= PACKED_BITS and own.weight is not None
    }


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
    layers = []
    for index, layer in enumerate(graph.layers):
        prefix = f"{index:04d}."
        constants = [
            named[f"{prefix}constant{n}"]
            for n in range(len(layer.constants))
            if f"{prefix}constant{n}" in named
        ]
        layers.append(
            LayerWeights(
                weight=named.get(f"{prefix}weight"),
                bias=named.get(f"{prefix}bias"),
                constants=tuple(constants),
            )
        )
    count = sum(tensor is None for tensor in graph.outputs)
    outputs = tuple(named[f"output{n}"] for n in range(count) if f"output{n}" in named)
    return GraphWeights(layers=tuple(layers), outputs=outputs)


def digest(named: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of named arrays."""
    total = hashlib.sha256()
    for key in sorted(named):
        array = np.asarray(named[key])
        total.update(f"{key} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).view(np.uint8).data)
    return total.hexdigest()
