"""Cross-layer equalization: moves range from one layer's weight to the next one's.

Where layer A is followed by layer B alone and ``f(s x) = s f(x)`` holds between them for
every ``s > 0`` (a ReLU, or nothing), ``B f(A x) = (B S) f(S^-1 A x)`` for any positive
diagonal S. With ``s_c = sqrt(r1_c r2_c) / r2_c``, where ``r1_c`` is the largest magnitude of
output channel c of A and ``r2_c`` that of input channel c of B, both weights have the same
range in every channel. A ReLU6 does not commute with S, and the pair stays as it is.

Reference: Nagel et al. 2019 (arXiv 1906.04721), equations 5 to 11. Deviations: ReLU6 is not
replaced by ReLU, so the function is unchanged in float; high biases are not absorbed; ranges
are those of magnitudes, which leaves s as it is.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from autosplit.graph import Layer, LayerGraph
from autosplit.graph.inlining import Equation, Literal
from autosplit.graph.running import GraphWeights

MAX_ROUNDS = 40
"""Of passes over all pairs: a chain of pairs settles in some ten."""

TOLERANCE = 1e-3
"""The pairs have settled where no channel's scale is further from 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two weighted layers with nothing else between them.

    Attributes:
      first, second: layer indices.
      axis: channel axis of the tensor between them.
    """

    first: int
    second: int
    axis: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Equalized:
    """Equalized weights.

    Attributes:
      weights: of the same function.
      pairs: the pairs that were equalized.
      skipped: names of layers whose pair could not be, as what is fused into the first
        layer (a ReLU6, a sigmoid) does not commute with a scale.
    """

    weights: GraphWeights
    pairs: tuple[Pair, ...]
    skipped: tuple[str, ...]


def equalize(graph: LayerGraph, weights: GraphWeights) -> Equalized:
    """Equalizes the channel ranges of all pairs, in rounds until none changes.

    Args:
      graph: traced function.
      weights: from `prepare`, in float.

    Returns:
      Weights of the same function, and what was found.
    """
    pairs, skipped = find_pairs(graph)
    matrices = {
        i: np.array(own.weight) for i, own in enumerate(weights.layers) if own.weight is not None
    }
    biases = {i: own.bias for i, own in enumerate(weights.layers) if own.bias is not None}
    for _ in range(MAX_ROUNDS if pairs else 0):
        furthest = 1.0
        for pair in pairs:
            scale = _equalize_pair(graph, pair, matrices, biases)
            furthest = max(furthest, float(np.exp(np.abs(np.log(scale)).max(initial=0.0))))
        if furthest < 1 + TOLERANCE:
            break
    changed = {i for pair in pairs for i in (pair.first, pair.second)}
    layers = tuple(
        dataclasses.replace(own, weight=jnp.asarray(matrices[i]), bias=biases.get(i))
        if i in changed
        else own
        for i, own in enumerate(weights.layers)
    )
    new = dataclasses.replace(weights, layers=layers)
    return Equalized(weights=new, pairs=pairs, skipped=skipped)


def find_pairs(graph: LayerGraph) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Finds the pairs from the structure alone.

    Args:
      graph: traced function.

    Returns:
      The pairs that can be equalized, and the names of the first layers of those whose
      activation does not allow it.
    """
    pairs, skipped = [], []
    for index, layer in enumerate(graph.layers):
        second = _only_reader(graph, index)
        if second is None or not _has_own_weight(graph, index, second):
            continue
        axis = _input_axis(graph.layers[second])
        if axis is None or layer.weight is None or layer.weight.output_axes != (axis,):
            continue
        if _is_homogeneous(layer):
            pairs.append(Pair(first=index, second=second, axis=axis))
        else:
            skipped.append(layer.name)
    return tuple(pairs), tuple(skipped)


def _only_reader(graph: LayerGraph, index: int) -> int | None:
    """Returns the layer that reads all that a weighted layer writes, and nothing else."""
    layer = graph.layers[index]
    if layer.weight is None or len(layer.outputs) != 1:
        return None
    tensor = graph.tensors[layer.outputs[0]]
    if tensor.is_output or len(tensor.consumers) != 1:
        return None
    second = graph.layers[tensor.consumers[0]]
    return tensor.consumers[0] if second.inputs == layer.outputs else None


def _has_own_weight(graph: LayerGraph, *indices: int) -> bool:
    """Tells whether no other layer reads the weights of some layers."""
    groups = [layer.weight.group for layer in graph.layers if layer.weight is not None]
    weights = [graph.layers[i].weight for i in indices]
    return all(w is not None and groups.count(w.group) == 1 for w in weights)


def _is_homogeneous(layer: Layer) -> bool:
    """Tells whether all that follows the anchor is ``max(x, 0)``, or nothing."""
    return all(e is layer.anchor or _is_relu(e) for e in layer.equations)


def _is_relu(equation: Equation) -> bool:
    literals = [o for o in equation.inputs if isinstance(o, Literal)]
    return (
        equation.primitive == "max"
        and len(literals) == 1
        and bool(np.all(np.asarray(literals[0].value) == 0))
    )


def _input_axis(layer: Layer) -> int | None:
    """Returns the axis of a layer's only input that its weight's input channels contract."""
    anchor, spec = layer.anchor, layer.weight
    if anchor is None or spec is None or len(layer.input_values) != 1:
        return None
    readers = [e for e in layer.equations if layer.input_values[0] in e.values]
    if len(readers) != 1 or readers[0] is not anchor:
        return None
    if anchor.primitive == "conv_general_dilated" and anchor.params["batch_group_count"] == 1:
        return int(anchor.params["dimension_numbers"].lhs_spec[1])
    if anchor.primitive == "dot_general":
        contract, batch = anchor.params["dimension_numbers"]
        axes = contract[1 - spec.position]
        return int(axes[0]) if len(axes) == 1 and not batch[0] else None
    return None


def _equalize_pair(
    graph: LayerGraph, pair: Pair, matrices: dict[int, np.ndarray], biases: dict[int, jnp.ndarray]
) -> np.ndarray:
    """Scales one pair in place and returns S, f32[channels]."""
    before, after = matrices[pair.first], matrices[pair.second]
    spec = graph.layers[pair.first].weight
    assert spec is not None
    (axis,) = spec.channel_axes
    rest = tuple(a for a in range(before.ndim) if a != axis)
    first = np.abs(before).max(axis=rest, initial=0.0)
    second = _input_reach(graph.layers[pair.second], after, len(first))
    usable = (first > 0) & (second > 0)
    scale = np.sqrt(np.where(usable, first, 1) / np.where(usable, second, 1)).astype(before.dtype)
    matrices[pair.first] = before / _along(scale, axis, before.ndim)
    matrices[pair.second] = after * _input_factor(graph.layers[pair.second], after, scale)
    if pair.first in biases:
        bias = biases[pair.first]
        biases[pair.first] = bias / jnp.asarray(_along(scale, pair.axis, bias.ndim))
    return scale


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if a == axis else 1 for a in range(rank)])


def _input_channels(layer: Layer, weight: np.ndarray, channels: int) -> np.ndarray:
    """Returns which input channel each element of a weight multiplies, broadcastable to it.

    In a convolution of several groups (each channel is one where it is depthwise) row i of
    output channel o multiplies channel i of the group of o.
    """
    anchor, spec = layer.anchor, layer.weight
    assert anchor is not None
    assert spec is not None
    if anchor.primitive == "dot_general":
        contract, _ = anchor.params["dimension_numbers"]
        return _along(np.arange(channels), contract[spec.position][0], weight.ndim)
    out_axis, in_axis = anchor.params["dimension_numbers"].rhs_spec[:2]
    groups = anchor.params["feature_group_count"]
    group = np.arange(weight.shape[out_axis]) // (weight.shape[out_axis] // groups)
    start = _along(group * (channels // groups), out_axis, weight.ndim)
    return start + _along(np.arange(weight.shape[in_axis]), in_axis, weight.ndim)


def _input_reach(layer: Layer, weight: np.ndarray, channels: int) -> np.ndarray:
    """Returns the largest magnitude by input channel, f32[channels]."""
    index = np.broadcast_to(_input_channels(layer, weight, channels), weight.shape)
    reach = np.zeros(channels, weight.dtype)
    np.maximum.at(reach, index.reshape(-1), np.abs(weight).reshape(-1))
    return reach


def _input_factor(layer: Layer, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return scale[_input_channels(layer, weight, len(scale))]
