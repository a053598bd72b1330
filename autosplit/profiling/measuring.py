"""``autosplit.profile``: errors, times and sizes of a traced function, as a `Profile`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import CalibrationError, InputError
from autosplit.graph import Cut, LayerGraph
from autosplit.graph.running import prepare
from autosplit.hardware import Device, Network
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error import ErrorTables, error_tables
from autosplit.profiling.image_inputs import input_encodings, tensor_raw_bytes
from autosplit.profiling.sensitivity import output_gains
from autosplit.profiling.table import Profile
from autosplit.quant.packing import packed_bytes
from autosplit.workload import tabulate

SCALE_BYTES = 4
"""Scales are stored as float32, whatever the weight's own dtype."""


def profile(
    graph: LayerGraph,
    params: Any,
    calibration: Any,
    *,
    edge: Device,
    cloud: Device,
    network: Network,
    bits: Sequence[int] = (2, 3, 4, 5, 6, 7, 8),
    cloud_bits: int = 16,
    clipping: str = "mse",
    cuts: Sequence[Cut] | None = None,
    images: np.ndarray | None = None,
    sensitivity_calls: int = 4,
    seed: int = 0,
) -> Profile:
    """Measures what a solver needs to know.

    Args:
      graph: traced function.
      params: its parameters.
      calibration: one input (or the tuple of inputs) with a first axis that is a
        multiple of the traced one.
      edge, cloud: device models.
      network: the link between them.
      bits: candidate bit-widths on the edge, 1 to 8.
      cloud_bits: bits of weights and activations in the cloud.
      clipping: ``"minmax"``, ``"mse"`` or ``"aciq"``.
      cuts: candidates; by default ``graph.cuts()``.
      images: u8[n, H, W, 3], the photographs behind the calibration batch, for the
        PNG and JPEG sizes of cloud-only; estimated from the batch if not given.
      sensitivity_calls: calls of the batch on which output gains are estimated.
      seed: of the random signs of that estimate.

    Returns:
      A `Profile` of NumPy arrays.

    Raises:
      CalibrationError: the batch is empty, misshapen or not finite.
      InputError: bits or clipping are not known.
    """
    candidates = _check_bits(bits)
    calls = calibration_calls(graph, calibration)
    weights = prepare(graph, params)
    device_calls = [jnp.asarray(c) for c in calls]
    tables = error_tables(graph, weights, device_calls, jnp.asarray(candidates), clipping)
    _check_finite(graph, tables)
    few = [c[: max(1, sensitivity_calls)] for c in device_calls]
    gains = output_gains(graph, weights, few, jax.random.key(seed))
    w_gain, a_gain = (np.asarray(g, np.float64) for g in gains)
    listed = tuple(cuts) if cuts is not None else graph.cuts()
    sizes = _tensor_bytes(graph, candidates)
    raw = np.array([t.size for t in graph.tensors])[:, None]
    is_input = np.array([t.producer < 0 for t in graph.tensors])[:, None]
    extremes = np.asarray(tables.extremes, np.float64)
    return Profile(
        fingerprint=graph.fingerprint,
        clipping=clipping,
        bits=candidates,
        layer_names=tuple(layer.name for layer in graph.layers),
        tensor_names=tuple(tensor.name for tensor in graph.tensors),
        macs=np.array([layer.macs for layer in graph.layers], np.int64),
        has_weight=np.array([layer.weight is not None for layer in graph.layers]),
        weight_error=np.asarray(tables.weight_error, np.float64),
        weight_gain=w_gain,
        weight_ratio=np.asarray(tables.weight_ratio, np.float64),
        weight_bytes=_weight_bytes(graph, candidates),
        weight_group=_weight_groups(graph),
        activation_error=np.where(is_input, 0.0, np.asarray(tables.activation_error, np.float64)),
        activation_gain=a_gain,
        activation_low=np.where(is_input, extremes[:, :1], tables.activation_low),
        activation_high=np.where(is_input, extremes[:, 1:], tables.activation_high),
        tensor_bytes=sizes,
        float_bytes=np.array([t.size * t.dtype.itemsize for t in graph.tensors], np.int64),
        edge_latency_s=layer_latency_s(graph, edge, candidates, candidates),
        cloud_latency_s=layer_latency_s(graph, cloud, [cloud_bits], [cloud_bits])[:, 0, 0],
        # One byte a level on one side, packed on the other.
        pack_s=np.asarray(edge.move_s(raw + sizes)),
        unpack_s=np.asarray(cloud.move_s(raw + sizes)),
        producer=np.array([t.producer for t in graph.tensors], np.int64),
        reads=_reads(graph),
        is_output=np.array([t.is_output for t in graph.tensors]),
        on_edge=np.array([c.on_edge for c in listed], bool),
        crosses=_crosses(graph, listed),
        cut_names=tuple(c.name for c in listed),
        response_bytes=sum(
            int(np.prod(graph.program.avals[o].shape)) * graph.program.avals[o].dtype.itemsize
            for o in graph.program.outputs
            if isinstance(o, int)
        ),
        input_encodings=input_encodings(graph, calls, images),
        network=network,
        edge_name=edge.name,
        cloud_name=cloud.name,
    )


def layer_latency_s(
    graph: LayerGraph, device: Device, w_bits: ArrayLike, a_bits: ArrayLike
) -> np.ndarray:
    """Returns the seconds of every layer at every pair of bit-widths, f64[L, Kw, Ka]."""
    owners = [i for i, layer in enumerate(graph.layers) for _ in layer.workloads]
    table = tabulate([w for layer in graph.layers for w in layer.workloads])
    seconds = np.asarray(device.latency_s(table, np.asarray(w_bits), np.asarray(a_bits)))
    total = np.zeros((len(graph.layers), *seconds.shape[1:]))
    np.add.at(total, owners, seconds)
    has_weight = np.array([layer.weight is not None for layer in graph.layers])
    # What is not quantized stays in float, whatever the weight bits: charge the widest.
    total[~has_weight] = total[~has_weight, -1:, :]
    return total


def _check_bits(bits: Sequence[int]) -> np.ndarray:
    unique = sorted({int(b) for b in bits})
    if not unique or unique[0] < 1 or unique[-1] > 8:
        raise InputError(f"The bit candidates are {tuple(bits)}; expected some of 1 to 8.")
    return np.array(unique, np.int64)


def _check_finite(graph: LayerGraph, tables: ErrorTables) -> None:
    # Weights first: a broken one breaks the tensors behind it too.
    broken = np.flatnonzero(~np.isfinite(np.asarray(tables.weight_error)).all(axis=1))
    if broken.size:
        raise InputError(
            f"The weight of the layer {graph.layers[broken[0]].name!r} holds NaN or infinity; "
            "expected finite parameters."
        )
    bad = np.flatnonzero(~np.isfinite(np.asarray(tables.extremes)).all(axis=1))
    if bad.size:
        raise CalibrationError(
            f"On the calibration batch the tensor {graph.tensors[bad[0]].name!r} holds NaN or "
            "infinity although the inputs are finite; the function or its parameters overflow."
        )


def _weight_bytes(graph: LayerGraph, bits: np.ndarray) -> np.ndarray:
    rows = []
    for layer in graph.layers:
        fixed = layer.constant_bytes
        if layer.weight is None:
            rows.append([fixed] * len(bits))
            continue
        # A bias has the weight's dtype.
        bias = graph.program.avals[layer.weight.value].dtype.itemsize if layer.has_bias else 0
        fixed += layer.weight.channels * (SCALE_BYTES + bias)
        rows.append([packed_bytes(layer.weight.size, int(b)) + fixed for b in bits])
    return np.array(rows, np.int64)


def _weight_groups(graph: LayerGraph) -> np.ndarray:
    """Numbers of shared weights; a layer without weight is a group of its own."""
    taken = 1 + max((x.weight.group for x in graph.layers if x.weight), default=-1)
    return np.array(
        [x.weight.group if x.weight else taken + i for i, x in enumerate(graph.layers)], np.int64
    )


def _tensor_bytes(graph: LayerGraph, bits: np.ndarray) -> np.ndarray:
    rows = []
    for index, tensor in enumerate(graph.tensors):
        if tensor.producer < 0 or not tensor.is_float:
            rows.append([tensor_raw_bytes(graph, index)] * len(bits))
        else:
            rows.append([packed_bytes(tensor.size, int(b)) for b in bits])
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
