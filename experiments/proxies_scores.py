"""The proxies: what each of them says of an assignment, the lower the better."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from autosplit import LayerGraph, Profile
from autosplit.graph.running import GraphWeights, run_layers
from autosplit.profiling.sensitivity_tables import SensitivityTable
from autosplit.workload import FLOAT_BITS

PROXIES = {
    "mean_bits": "fewer bits",
    "quant_mse": "sum of quant_mse",
    "relative_mse": "sum of quant_mse over power",
    "gauss_newton": "Gauss-Newton",
    "fisher": "Fisher",
    "alone_error": "each alone, output error",
    "alone_divergence": "each alone, divergence",
}
"""Names of the proxies, and what they are called in tables and plots."""

Powers = tuple[np.ndarray, np.ndarray]


def tensor_powers(graph: LayerGraph, weights: GraphWeights, calls: Sequence[jax.Array]) -> Powers:
    """Returns the mean square of every weight, f64[L], and tensor, f64[T]; 1 where it is 0."""
    by_layer = [0.0 if own.weight is None else float(jnp.mean(jnp.square(own.weight)))
                for own in weights.layers]  # fmt: skip
    count = len(calls[0])
    each = [np.asarray(_powers(graph, weights, [c[i] for c in calls]), np.float64)
            for i in range(count)]  # fmt: skip
    layers, tensors = np.array(by_layer), np.mean(each, axis=0)
    return layers + (layers == 0), tensors + (tensors == 0)


@functools.partial(jax.jit, static_argnames=("graph",))
def _powers(graph: LayerGraph, weights: GraphWeights, leaves: Sequence[jax.Array]) -> jax.Array:
    known = dict(zip(graph.inputs, leaves, strict=True))
    known = run_layers(graph, weights, known, range(len(graph.layers)))
    return jnp.stack([
        jnp.mean(jnp.square(known[t])) if tensor.is_float else jnp.float32(0)
        for t, tensor in enumerate(graph.tensors)
    ])  # fmt: skip


def proxy_values(
    profile: Profile,
    fisher: Profile,
    table: SensitivityTable,
    powers: Powers,
    w_bits: np.ndarray,
    a_bits: np.ndarray,
) -> dict[str, float]:
    """Returns what each of `PROXIES` says of some bits.

    Args:
      profile: with the gains of the output error.
      fisher: the same with those of the divergence.
      table: measured one at a time, at the profile's bits.
      powers: from `tensor_powers`.
      w_bits, a_bits: i64[L], i64[T]; `FLOAT_BITS` makes no error.
    """
    w, k_w = _places(profile, w_bits, profile.has_weight)
    a, k_a = _places(profile, a_bits, profile.producer >= 0)

    def total(by_layer: np.ndarray, by_tensor: np.ndarray) -> float:
        return float(by_layer[w, k_w].sum() + by_tensor[a, k_a].sum())

    def weighed(gain_w: np.ndarray, gain_a: np.ndarray) -> float:
        return total(gain_w * profile.weight_error, gain_a * profile.activation_error)

    chosen = np.concatenate([w_bits[w], a_bits[a]])
    return {
        "mean_bits": float(-chosen.mean()) if chosen.size else 0.0,
        "quant_mse": total(profile.weight_error, profile.activation_error),
        "relative_mse": weighed(1 / powers[0][:, None], 1 / powers[1][:, None]),
        "gauss_newton": weighed(profile.weight_gain, profile.activation_gain),
        "fisher": weighed(fisher.weight_gain, fisher.activation_gain),
        "alone_error": total(table.weights.output_error, table.activations.output_error),
        "alone_divergence": total(table.weights.divergence, table.activations.divergence),
    }


def _places(
    profile: Profile, bits: np.ndarray, quantizable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which rows are quantized, and the columns of their bits."""
    rows = np.flatnonzero(quantizable & (bits < FLOAT_BITS))
    return rows, np.searchsorted(profile.bits, bits[rows])
