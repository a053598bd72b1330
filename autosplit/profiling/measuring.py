"""``autosplit.profile``: errors, times and sizes of a traced function, as a `Profile`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import InputError
from autosplit.graph import Cut, LayerGraph
from autosplit.graph.running import prepare
from autosplit.hardware import Device, Network
from autosplit.profiling.assignment import profile_assignment
from autosplit.profiling.calibration import calibration_batches, first_calls
from autosplit.profiling.call_chunks import MEMORY_BYTES
from autosplit.profiling.error_search import clip_tables
from autosplit.profiling.image_inputs import input_encodings
from autosplit.profiling.pricing import QuantizationErrors, price_graph
from autosplit.profiling.sensitivity import output_gains
from autosplit.profiling.sensitivity_tables import SensitivityTable, measure_sensitivities
from autosplit.profiling.streaming import OnProgress
from autosplit.profiling.table import Profile

MEASURED = "measured"


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
    sensitivity: str = "output",
    sensitivity_calls: int = 4,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    devices: Sequence[jax.Device] | None = None,
    statistics_file: str | os.PathLike[str] | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Profile:
    """Measures what a solver needs to know.

    Args:
      graph: traced function.
      params: its parameters.
      calibration: one input (or the tuple of inputs) with a first axis that is a
        multiple of the traced one; or any number of such batches, in a list or another
        iterable that begins anew each time that it is iterated. Batches are read
        several times and none is kept.
      edge, cloud: device models.
      network: the link between them.
      bits: candidate bit-widths on the edge, 1 to 8.
      cloud_bits: bits of weights and activations in the cloud.
      unquantized_bits: the same on the edge, for baselines that do not quantize.
      clipping: name of a method, see `autosplit.quant.clipping.METHODS`.
      cuts: candidates; by default ``graph.cuts()``, and what solvers add to them.
      images: u8[n, H, W, 3], the photographs behind the calibration batch, for the
        PNG and JPEG sizes of cloud-only; estimated from the (first) batch if not given.
      sensitivity: how quantization errors are carried to the outputs: ``"output"``, the
        relative output error to first order; ``"fisher"``, the divergence of the softmax in
        nats, to first order; ``"measured"``, the relative output error with each weight and
        each tensor quantized alone at each bit-width, which takes longer and predicts best.
      sensitivity_calls: calls on which that is estimated, the first ones.
      seed: of the random signs of that estimate.
      memory_bytes: what the tensors of the calls that are run at once may take.
      devices: that share the calls of the error search; all local ones by default.
      statistics_file: keeps how far the error search has come, so that a profile that
        was interrupted goes on with the same calibration data; removed at the end.
      on_progress: told ``(calls done, calls to do or None)`` of the error search, where
        each call counts twice.

    Returns:
      A `Profile` of NumPy arrays.

    Raises:
      CalibrationError: a batch is empty, misshapen or not finite, or the data can be
        read only once.
      InputError: bits, clipping or sensitivity are not known.
      PlanMismatchError, ArtefactError: the statistics file is of another run, or broken.
    """
    candidates = _check_bits(bits)
    batches = calibration_batches(graph, calibration)
    weights = prepare(graph, params)
    tables = clip_tables(
        graph,
        weights,
        batches,
        jnp.asarray(candidates),
        [clipping],
        memory_bytes=memory_bytes,
        devices=devices,
        statistics_file=statistics_file,
        on_progress=on_progress,
    )[clipping]
    few = [jnp.asarray(c) for c in first_calls(batches, max(1, sensitivity_calls))]
    metric = "output" if sensitivity == MEASURED else sensitivity
    gains = output_gains(graph, weights, few, jax.random.key(seed), metric)
    w_gain, a_gain = (_for_each(g, len(candidates)) for g in gains)
    is_input = np.array([t.producer < 0 for t in graph.tensors])[:, None]
    extremes = np.asarray(tables.extremes, np.float64)
    errors = QuantizationErrors(
        clipping=clipping,
        sensitivity=sensitivity,
        bits=candidates,
        weight_error=np.asarray(tables.weight_error, np.float64),
        weight_gain=w_gain,
        weight_ratio=np.asarray(tables.weight_ratio, np.float64),
        activation_error=np.where(is_input, 0.0, np.asarray(tables.activation_error, np.float64)),
        activation_gain=a_gain,
        activation_low=np.where(is_input, extremes[:, :1], tables.activation_low),
        activation_high=np.where(is_input, extremes[:, 1:], tables.activation_high),
    )
    priced = price_graph(
        graph,
        errors,
        input_encodings(graph, next(iter(batches)), images),
        edge=edge,
        cloud=cloud,
        network=network,
        cloud_bits=cloud_bits,
        unquantized_bits=unquantized_bits,
        cuts=cuts,
    )
    if sensitivity != MEASURED:
        return priced
    settings = {
        int(b): profile_assignment(graph, weights, priced, b, b) for b in candidates.tolist()
    }
    return with_measured_gains(priced, measure_sensitivities(graph, weights, few, settings))


def with_measured_gains(priced: Profile, table: SensitivityTable) -> Profile:
    """Returns a profile that predicts the output error by that of each error alone.

    Args:
      priced: with any gains.
      table: of the same graph and bits, with the profile's clips.
    """
    return dataclasses.replace(
        priced,
        sensitivity=MEASURED,
        weight_gain=_measured_gain(table.weights.output_error, priced.weight_error),
        activation_gain=_measured_gain(table.activations.output_error, priced.activation_error),
    )


def _measured_gain(measured: np.ndarray, quant_mse: np.ndarray) -> np.ndarray:
    return np.divide(measured, quant_mse, out=np.zeros_like(quant_mse), where=quant_mse > 0)


def _for_each(gain: jax.Array, candidates: int) -> np.ndarray:
    return np.repeat(np.asarray(gain, np.float64)[:, None], candidates, axis=1)


def _check_bits(bits: Sequence[int]) -> np.ndarray:
    unique = sorted({int(b) for b in bits})
    if not unique or unique[0] < 1 or unique[-1] > 8:
        raise InputError(f"The bit candidates are {tuple(bits)}; expected some of 1 to 8.")
    return np.array(unique, np.int64)
