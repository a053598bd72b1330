"""Bit-widths by channel for all weights of a network."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.assignment import Assignment
from autosplit.profiling.error import channel_axes
from autosplit.ptq.clips import bits_at
from autosplit.quant.channel_bits import channel_bits
from autosplit.workload import FLOAT_BITS

_allot = jax.jit(channel_bits)


def allocate_bits(graph: LayerGraph, weights: GraphWeights, assignment: Assignment) -> Assignment:
    """Allots the bits of each weight to its channels, with the same mean.

    Args:
      graph: traced function.
      weights: from `prepare`.
      assignment: with one bit-width for each layer, and a clip for each channel.

    Returns:
      The assignment with ``w_bits`` as arrays in the shape of the clips.

    Reference: Banner et al. 2019, section 4.1, see `autosplit.quant.channel_bits`.
    """
    allotted: list[jax.Array | None] = []
    for index, own in enumerate(weights.layers):
        clip = assignment.w_high[index]
        if own.weight is None or clip is None:
            allotted.append(None)
            continue
        bits = bits_at(assignment, index)
        if int(bits) == FLOAT_BITS:
            allotted.append(jnp.broadcast_to(bits, clip.shape))
            continue
        axes = channel_axes(graph, index)
        others = tuple(a for a in range(own.weight.ndim) if a not in axes)
        spread = jnp.std(own.weight.astype(jnp.float32), axis=others).reshape(-1)
        allotted.append(_allot(spread, bits).reshape(clip.shape))
    return dataclasses.replace(assignment, w_bits=tuple(allotted))
