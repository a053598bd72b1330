"""``autosplit.profile``: errors, times and sizes of a traced function, as a `Profile`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import CalibrationError, InputError
from autosplit.graph import Cut, LayerGraph
from autosplit.graph.running import prepare
from autosplit.hardware import Device, Network
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error import ErrorTables, error_tables
from autosplit.profiling.image_inputs import input_encodings
from autosplit.profiling.pricing import QuantizationErrors, price_graph
from autosplit.profiling.sensitivity import output_gains
from autosplit.profiling.table import Profile


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
    unquantized_bits: int = 16,
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
      unquantized_bits: the same on the edge, for baselines that do not quantize.
      clipping: ``"minmax"``, ``"mse"`` or ``"aciq"``.
      cuts: candidates; by default ``graph.cuts()``, and what solvers add to them.
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
    is_input = np.array([t.producer < 0 for t in graph.tensors])[:, None]
    extremes = np.asarray(tables.extremes, np.float64)
    errors = QuantizationErrors(
        clipping=clipping,
        bits=candidates,
        weight_error=np.asarray(tables.weight_error, np.float64),
        weight_gain=w_gain,
        weight_ratio=np.asarray(tables.weight_ratio, np.float64),
        activation_error=np.where(is_input, 0.0, np.asarray(tables.activation_error, np.float64)),
        activation_gain=a_gain,
        activation_low=np.where(is_input, extremes[:, :1], tables.activation_low),
        activation_high=np.where(is_input, extremes[:, 1:], tables.activation_high),
    )
    return price_graph(
        graph,
        errors,
        input_encodings(graph, calls, images),
        edge=edge,
        cloud=cloud,
        network=network,
        cloud_bits=cloud_bits,
        unquantized_bits=unquantized_bits,
        cuts=cuts,
    )


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
