"""Correction of all quantized weights: mean and deviation of each channel as in float.

``W' = xi W_q + xi mu``. The scale goes into levels and clip, so that the weight stays on a
grid of as many bits; the offset, whose product with the sum of the inputs a grid around zero
cannot hold, goes into the bias with the mean of that sum over the calibration calls.

Reference: Banner et al. 2019 (arXiv 1810.05723), section 4.2, see
`autosplit.quant.weight_correction`. Deviation: the mean of the sum for the sum, which leaves
no work for the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax

from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.assignment import Quantized, quantized_weights
from autosplit.profiling.error import channel_axes
from autosplit.ptq.bias_correction import add_mean_of_offsets
from autosplit.quant.weight_correction import weight_correction


def correct_weights(
    graph: LayerGraph, quantized: Quantized, calls: Sequence[jax.Array]
) -> Quantized:
    """Corrects every weight, channel by channel.

    Args:
      graph: traced function.
      quantized: weights in float, which were not moved to a grid, and an assignment.
      calls: flat inputs, each ``[m, *traced shape]``.

    Returns:
      Weights on the grid of the corrected clips, with other biases.
    """
    levels = quantized_weights(quantized.weights, quantized.assignment)
    high, low = list(quantized.assignment.w_high), quantized.assignment.w_low
    lows = None if low is None else list(low)
    layers, offsets = [], []
    pairs = zip(quantized.weights.layers, levels.layers, strict=True)
    for index, (own, level) in enumerate(pairs):
        offset = None
        if own.weight is not None and level.weight is not None:
            axes = channel_axes(graph, index)
            scale, offset = weight_correction(own.weight, level.weight, axes)
            own = dataclasses.replace(own, weight=(level.weight * scale).astype(own.weight.dtype))
            high[index] = _times(high[index], scale)
            if lows is not None:
                lows[index] = _times(lows[index], scale)
        layers.append(own)
        offsets.append(offset)
    assignment = dataclasses.replace(
        quantized.assignment, w_high=tuple(high), w_low=None if lows is None else tuple(lows)
    )
    corrected = GraphWeights(layers=tuple(layers), outputs=quantized.weights.outputs)
    found = Quantized(weights=corrected, assignment=assignment)
    return add_mean_of_offsets(graph, found, offsets, calls)


def _times(clip: jax.Array | None, scale: jax.Array) -> jax.Array | None:
    return None if clip is None else clip * scale
