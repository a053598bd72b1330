"""The edge half of a split: its layers on codes, its weights unpacked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autosplit.errors import PlanMismatchError
from autosplit.execution import weights as arrays
from autosplit.execution.edge_layers import EdgeLayer, edge_layer, integer_weight, run_edge_layer
from autosplit.execution.grids import Grid, decode, encode, make_grid, to_levels
from autosplit.execution.weights import PACKED_BITS, IntegerWeight, PackedWeight
from autosplit.graph import Cut, LayerGraph
from autosplit.graph.running import GraphWeights, flat_outputs
from autosplit.profiling.assignment import Assignment, Quantized, quantized_weights
from autosplit.quant.affine import fake_quant
from autosplit.workload import FLOAT_BITS

_PARTS = ("levels", "scale")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorGrids:
    """The grids of all tensors of a graph.

    Attributes:
      codes: T grids, None where a tensor is float or no number.
      wide: clips of the tensors of more bits than a code has, ``(low, high, bits)``:
        they stay float and are fake-quantized.
    """

    codes: tuple[Grid | None, ...]
    wide: Mapping[int, tuple[float, float, int]]


def tensor_grids(graph: LayerGraph, assignment: Assignment | None) -> TensorGrids:
    """Returns the grids of an assignment; without one all is float."""
    if assignment is None:
        return TensorGrids(codes=(None,) * len(graph.tensors), wide={})
    bits, low, high = (
        np.asarray(values).tolist()
        for values in (assignment.a_bits, assignment.a_low, assignment.a_high)
    )
    codes = tuple(
        make_grid(low[t], high[t], bits[t]) if tensor.is_float and bits[t] <= PACKED_BITS else None
        for t, tensor in enumerate(graph.tensors)
    )
    wide = {
        t: (low[t], high[t], bits[t])
        for t, tensor in enumerate(graph.tensors)
        if tensor.is_float and PACKED_BITS < bits[t] < FLOAT_BITS
    }
    return TensorGrids(codes=codes, wide=wide)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdgeHalf:
    """What the edge half's programs are compiled from; static.

    Attributes:
      graph: traced function.
      cut: its edge layers run here.
      grids: of all tensors.
      layers: index -> how the layer computes, in order.
      packed: index -> bits, shape and dtype of the layer's packed weight.
    """

    graph: LayerGraph
    cut: Cut
    grids: TensorGrids
    layers: Mapping[int, EdgeLayer]
    packed: Mapping[int, tuple[int, tuple[int, ...], str]]

    def unpack(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Brings packed weights into the forms that `run` reads.

        Args:
          stored: ``0003.weight.levels``, ``0003.weight.scale``, ...

        Returns:
          ``0003.weight`` and, of integer layers, ``0003.factor`` and ``0003.correction``.
        """
        named: dict[str, Any] = {}
        for index, (bits, shape, dtype) in self.packed.items():
            levels, scale = (stored[f"{index:04d}.weight.{part}"] for part in _PARTS)
            packed = PackedWeight(levels=levels, scale=scale, bits=bits, shape=shape, dtype=dtype)
            product = self.layers[index].product
            if product is None:
                named[f"{index:04d}.weight"] = arrays.unpack_weight(packed)
                continue
            ready = integer_weight(product, packed)
            named[f"{index:04d}.weight"] = ready.weight
            named[f"{index:04d}.factor"] = ready.factor
            if ready.correction is not None:
                named[f"{index:04d}.correction"] = ready.correction
        return named

    def run(self, named: Mapping[str, Any], leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Runs the layers: unsigned levels or values of what crosses, or the flat outputs."""
        graph = self.graph
        known = dict(zip(graph.inputs, leaves, strict=True))
        for index, step in self.layers.items():
            results = self.run_layer(named, index, [known[t] for t in step.layer.inputs])
            for tensor, x in zip(step.layer.outputs, results, strict=True):
                clip = self.grids.wide.get(tensor)
                known[tensor] = x if clip is None else fake_quant(x, *clip)
        if all(self.cut.on_edge):
            values = {t: self._value(t, x) for t, x in known.items()}
            return tuple(flat_outputs(graph, arrays.from_arguments(graph, named), values))
        return tuple(self._sent(t, known[t]) for t in self.cut.crossing)

    def run_layer(
        self, named: Mapping[str, Any], index: int, inputs: Sequence[Any]
    ) -> tuple[Any, ...]:
        """Runs one layer on codes, or on values where it reads such."""
        step, ready = self.layers[index], None
        if step.product is not None:
            ready = IntegerWeight(
                weight=named[f"{index:04d}.weight"],
                factor=named[f"{index:04d}.factor"],
                correction=named.get(f"{index:04d}.correction"),
            )
        own = arrays.layer_arguments(self.graph, named, index)
        return run_edge_layer(step, own, ready, inputs)

    def _value(self, tensor: int, x: Any) -> Any:
        grid = self.grids.codes[tensor]
        if grid is None or tensor in self.graph.inputs:
            return x
        return decode(grid, x, self.graph.tensors[tensor].dtype)

    def _sent(self, tensor: int, x: Any) -> Any:
        grid = self.grids.codes[tensor]
        if grid is None:
            return x
        return to_levels(grid, encode(grid, x) if tensor in self.graph.inputs else x)


def edge_half(
    graph: LayerGraph, cut: Cut, weights: GraphWeights, assignment: Assignment | None
) -> tuple[EdgeHalf, dict[str, Any], dict[str, Any]]:
    """Chooses how the edge layers compute, and packs their weights.

    Args:
      graph: traced function.
      cut: its edge layers.
      weights: in float.
      assignment: bits and clips; None for float.

    Returns:
      The half, the arrays that it keeps as they are, and the packed ones.
    """
    layers = [i for i, flag in enumerate(cut.on_edge) if flag]
    edge_only = all(cut.on_edge)
    grids = tensor_grids(graph, assignment)
    bits: dict[int, int] = {}
    packed: Mapping[int, PackedWeight] = {}
    if assignment is not None:
        bits = arrays.packed_bits(graph, weights, assignment, layers)
        packed = arrays.pack_weights(graph, weights, assignment, tuple(bits.items()))
        if any(weights.layers[i].weight is not None and i not in packed for i in layers):
            weights = quantized_weights(weights, assignment)
    kept = arrays.arguments(weights, layers, outputs=edge_only)
    # Graph inputs come from a sensor: they are quantized only where they are sent.
    within = [None if t in graph.inputs else grid for t, grid in enumerate(grids.codes)]
    half = EdgeHalf(
        graph=graph,
        cut=cut,
        grids=grids,
        layers={i: edge_layer(graph, i, within, bits.get(i)) for i in layers},
        packed={i: (weight.bits, weight.shape, weight.dtype) for i, weight in packed.items()},
    )
    stored = {
        f"{i:04d}.weight.{part}": getattr(weight, part)
        for i, weight in packed.items()
        for part in _PARTS
    }
    return half, {key: x for key, x in kept.items() if _layer_weight(key) not in packed}, stored


def _layer_weight(key: str) -> int | None:
    """Returns the layer whose weight an argument is; None where it is another argument."""
    layer, _, name = key.partition(".")
    return int(layer) if name == "weight" else None


def check_quantized(graph: LayerGraph, cut: Cut, quantized: Quantized) -> None:
    """Raises `PlanMismatchError` unless a quantized network fits graph and cut."""
    assignment = quantized.assignment
    found = (len(quantized.weights.layers), np.size(assignment.a_bits))
    expected = (len(graph.layers), len(graph.tensors))
    if found != expected:
        raise PlanMismatchError(
            f"The quantized network has {found[0]} layers and {found[1]} tensors; this graph has "
            f"{expected[0]} and {expected[1]}. Quantize this graph."
        )
    if tuple(np.asarray(assignment.on_edge).tolist()) != tuple(cut.on_edge):
        raise PlanMismatchError(
            f"The quantized network has {int(np.sum(assignment.on_edge))} layers on the edge, the "
            f"plan {sum(cut.on_edge)}, or others; expected the same ones. Quantize for this plan, "
            "or replace the assignment's on_edge by the plan's."
        )
