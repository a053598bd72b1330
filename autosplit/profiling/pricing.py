"""Prices a graph on two devices and a link: everything of a `Profile` but its errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from autosplit.graph import Cut, LayerGraph
from autosplit.graph.cuts import enumerate_cuts
from autosplit.hardware import Device, Network
from autosplit.hardware.spec import PoweredDevice
from autosplit.profiling.image_inputs import tensor_raw_bytes
from autosplit.profiling.table import InputEncoding, Profile, Unquantized
from autosplit.quant.packing import packed_bytes
from autosplit.workload import tabulate

SCALE_BYTES = 4
"""Scales are stored as float32, whatever the weight's own dtype."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizationErrors:
    """What a calibration batch tells; fields as those of `Profile`."""

    clipping: str
    sensitivity: str
    bits: np.ndarray
    weight_error: np.ndarray
    weight_gain: np.ndarray
    weight_ratio: np.ndarray
    activation_error: np.ndarray
    activation_gain: np.ndarray
    activation_low: np.ndarray
    activation_high: np.ndarray


def price_graph(
    graph: LayerGraph,
    errors: QuantizationErrors,
    input_encodings: Sequence[InputEncoding],
    *,
    edge: Device,
    cloud: Device,
    network: Network,
    cloud_bits: int = 16,
    unquantized_bits: int = 16,
    cuts: Sequence[Cut] | None = None,
) -> Profile:
    """Makes a profile of errors that are known and the prices of devices and link.

    Args:
      graph: L layers, T tensors.
      errors: for the candidate bits.
      input_encodings: ``raw`` first; their energy is charged here.
      edge, cloud, network, cloud_bits, unquantized_bits, cuts: as for `autosplit.profile`.
    """
    candidates = errors.bits
    listed, closed = (tuple(cuts), True) if cuts is not None else enumerate_cuts(graph)
    sizes = _tensor_bytes(graph, candidates, packed_bytes)
    raw = np.array([t.size for t in graph.tensors])[:, None]
    measured = {f.name: getattr(errors, f.name) for f in dataclasses.fields(errors)}
    return Profile(
        **measured,
        fingerprint=graph.fingerprint,
        layer_names=tuple(layer.name for layer in graph.layers),
        tensor_names=tuple(tensor.name for tensor in graph.tensors),
        macs=np.array([layer.macs for layer in graph.layers], np.int64),
        has_weight=np.array([layer.weight is not None for layer in graph.layers]),
        weight_bytes=_weight_bytes(graph, candidates, packed_bytes, SCALE_BYTES),
        weight_group=_weight_groups(graph),
        tensor_bytes=sizes,
        float_bytes=np.array([t.size * t.dtype.itemsize for t in graph.tensors], np.int64),
        edge_latency_s=layer_latency_s(graph, edge, candidates, candidates),
        edge_energy_j=layer_energy_j(graph, edge, candidates, candidates),
        cloud_latency_s=layer_latency_s(graph, cloud, [cloud_bits], [cloud_bits])[:, 0, 0],
        # One byte a level on one side, packed on the other.
        pack_s=np.asarray(edge.move_s(raw + sizes)),
        unpack_s=np.asarray(cloud.move_s(raw + sizes)),
        pack_j=_move_j(edge, raw + sizes),
        unquantized=_unquantized(graph, edge, cloud, unquantized_bits),
        producer=np.array([t.producer for t in graph.tensors], np.int64),
        reads=_reads(graph),
        is_output=np.array([t.is_output for t in graph.tensors]),
        on_edge=np.array([c.on_edge for c in listed], bool),
        crosses=_crosses(graph, listed),
        cut_names=tuple(c.name for c in listed),
        open_cuts=not closed,
        response_bytes=_response_bytes(graph),
        input_encodings=_with_energy(edge, input_encodings),
        network=network,
        edge_name=edge.name,
        cloud_name=cloud.name,
    )


def layer_latency_s(
    graph: LayerGraph, device: Device, w_bits: ArrayLike, a_bits: ArrayLike
) -> np.ndarray:
    """Returns the seconds of every layer at every pair of bit-widths, f64[L, Kw, Ka]."""
    return _by_layer(graph, device.latency_s, w_bits, a_bits)


def layer_energy_j(
    graph: LayerGraph, device: Device, w_bits: ArrayLike, a_bits: ArrayLike
) -> np.ndarray:
    """Returns the joules of every layer, f64[L, Kw, Ka]; NaN where the device states none."""
    if isinstance(device, PoweredDevice):
        return _by_layer(graph, device.energy_j, w_bits, a_bits)
    return np.full((len(graph.layers), np.size(w_bits), np.size(a_bits)), np.nan)


def _by_layer(
    graph: LayerGraph, charge: Callable[..., np.ndarray], w_bits: ArrayLike, a_bits: ArrayLike
) -> np.ndarray:
    """Charges all workloads at once and sums those of each layer."""
    owners = [i for i, layer in enumerate(graph.layers) for _ in layer.workloads]
    table = tabulate([w for layer in graph.layers for w in layer.workloads])
    charges = np.asarray(charge(table, np.asarray(w_bits), np.asarray(a_bits)))
    total = np.zeros((len(graph.layers), *charges.shape[1:]))
    np.add.at(total, owners, charges)
    has_weight = np.array([layer.weight is not None for layer in graph.layers])
    # What is not quantized stays in float, whatever the weight bits: charge the widest.
    total[~has_weight] = total[~has_weight, -1:, :]
    return total


def _move_j(device: Device, num_bytes: np.ndarray) -> np.ndarray:
    if isinstance(device, PoweredDevice):
        return np.asarray(device.move_j(num_bytes))
    return np.full(np.shape(num_bytes), np.nan)


def _with_energy(
    edge: Device, encodings: Sequence[InputEncoding]
) -> tuple[InputEncoding, ...]:
    """Charges each encoding but ``raw``, which is sent as it lies, for its memory traffic."""
    raw = encodings[0].payload_bytes
    moved = np.array([0.0 if e.name == "raw" else raw + e.payload_bytes for e in encodings])
    joules = _move_j(edge, moved)
    return tuple(
        dataclasses.replace(e, encode_j=float(j)) for e, j in zip(encodings, joules, strict=True)
    )


def _unquantized(graph: LayerGraph, edge: Device, cloud: Device, bits: int) -> Unquantized:
    """Prices the edge at one wide width, weights and tensors as plain numbers."""
    wide = np.array([bits])
    sizes = _tensor_bytes(graph, wide, _plain_bytes)[:, 0]
    # Read and written as it is: nothing is packed.
    moved = 2 * sizes
    return Unquantized(
        bits=bits,
        latency_s=layer_latency_s(graph, edge, wide, wide)[:, 0, 0],
        energy_j=layer_energy_j(graph, edge, wide, wide)[:, 0, 0],
        weight_bytes=_weight_bytes(graph, wide, _plain_bytes, scale_bytes=0)[:, 0],
        tensor_bytes=sizes,
        pack_s=np.asarray(edge.move_s(moved)),
        unpack_s=np.asarray(cloud.move_s(moved)),
        pack_j=_move_j(edge, moved),
    )


def _plain_bytes(elements: int, bits: int) -> int:
    return -(-elements * bits // 8)


def _weight_bytes(
    graph: LayerGraph, bits: np.ndarray, stored: Callable[[int, int], int], scale_bytes: int
) -> np.ndarray:
    rows = []
    for layer in graph.layers:
        fixed = layer.constant_bytes
        if layer.weight is None:
            rows.append([fixed] * len(bits))
            continue
        # A bias has the weight's dtype.
        bias = graph.program.avals[layer.weight.value].dtype.itemsize if layer.has_bias else 0
        fixed += layer.weight.channels * (scale_bytes + bias)
        rows.append([stored(layer.weight.size, int(b)) + fixed for b in bits])
    return np.array(rows, np.int64)


def _weight_groups(graph: LayerGraph) -> np.ndarray:
    """Numbers of shared weights; a layer without weight is a group of its own."""
    taken = 1 + max((x.weight.group for x in graph.layers if x.weight), default=-1)
    return np.array(
        [x.weight.group if x.weight else taken + i for i, x in enumerate(graph.layers)], np.int64
    )


def _tensor_bytes(
    graph: LayerGraph, bits: np.ndarray, stored: Callable[[int, int], int]
) -> np.ndarray:
    rows = []
    for index, tensor in enumerate(graph.tensors):
        if tensor.producer < 0 or not tensor.is_float:
            rows.append([tensor_raw_bytes(graph, index)] * len(bits))
        else:
            rows.append([stored(tensor.size, int(b)) for b in bits])
    return np.array(rows, np.int64)


def _reads(graph: LayerGraph) -> np.ndarray:
    reads = np.zeros((len(graph.layers), len(graph.tensors)), bool)
    for index, layer in enumerate(graph.layers):
        reads[index, list(layer.inputs)] = True
    return reads


def _crosses(graph: LayerGraph, cuts: Sequence[Cut]) -> np.ndarray:
    crosses = np.zeros((len(cuts), len(graph.tensors)), bool)
    for index, cut in enumerate(cuts):
        crosses[index, list(cut.crossing)] = True
    return crosses


def _response_bytes(graph: LayerGraph) -> int:
    """Returns the size of the outputs that are no constants."""
    avals = [graph.program.avals[o] for o in graph.program.outputs if isinstance(o, int)]
    return sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in avals)
