"""How much an error in one tensor moves the outputs, to first order.

With white noise of variance ``e`` on a tensor, the outputs move by
``e * ||J||_F^2`` in squared norm, where J is the Jacobian of the outputs by that tensor.
For random signs v, ``E ||J^T v||^2 = ||J||_F^2``: one backward pass gives an estimate
for all tensors and weights at once. Averaged over the calls of the calibration batch.
A loop of unknown length (``while``) has no backward pass: what it reads counts as an output.

Reference: Hutchinson 1990 (trace estimation); Dong et al. 2020, HAWQ-V2
(arXiv 1911.03852) for its use on sensitivities. Deviation: the Gauss-Newton matrix
of the squared output error in place of the Hessian of a loss, so no labels are needed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from autosplit.graph import LayerGraph, primitives
from autosplit.graph.running import GraphWeights, flat_outputs, run_layer


def output_gains(
    graph: LayerGraph, weights: GraphWeights, calls: Sequence[jax.Array], key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Estimates the relative output error per unit of quant_mse.

    Args:
      graph: static.
      weights: from `prepare`.
      calls: flat inputs, each ``[m, *traced shape]``.
      key: random signs; one draw per call.

    Returns:
      ``weight_gain`` f32[L] and ``activation_gain`` f32[T]: the sum over calls of
      ``||J||_F^2`` over the sum of ``||f||^2``; 0 where there is nothing to quantize.
    """
    keys = jax.random.split(key, calls[0].shape[0])
    # A loop in Python: within lax.map XLA:CPU runs convolutions some 10 times slower.
    # One call at a time: gradients by weight are as large as the weights.
    found = [
        _one_call(graph, weights, [call[index] for call in calls], one)
        for index, one in enumerate(keys)
    ]
    norm, by_layer, by_tensor = (jnp.stack(parts).sum(0) for parts in zip(*found, strict=True))
    total = jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)
    return by_layer / total, by_tensor / total


@functools.partial(jax.jit, static_argnames=("graph",))
def _one_call(
    graph: LayerGraph, weights: GraphWeights, leaves: Sequence[jax.Array], key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    variable = {i: w.weight for i, w in enumerate(weights.layers) if w.weight is not None}
    shifts = {
        t: jnp.zeros(tensor.shape, tensor.dtype)
        for t, tensor in enumerate(graph.tensors)
        if tensor.is_float and tensor.producer >= 0
    }

    def outputs(variable: dict[int, jax.Array], shifts: dict[int, jax.Array]) -> list[jax.Array]:
        known = dict(zip(graph.inputs, leaves, strict=True))
        ends: list[jax.Array] = []
        for index, layer in enumerate(graph.layers):
            inputs, weight = [known[t] for t in layer.inputs], variable.get(index)
            if not all(primitives.is_differentiable(e) for e in layer.equations):
                ends.extend(inputs)
                inputs, weight = jax.lax.stop_gradient((inputs, weight))
            results = run_layer(layer, weights.layers[index], inputs, weight)
            for tensor, value in zip(layer.outputs, results, strict=True):
                known[tensor] = value + shifts[tensor] if tensor in shifts else value
        ends.extend(flat_outputs(graph, weights, known))
        return [y for y in ends if jnp.issubdtype(y.dtype, jnp.floating)]

    values, pullback = jax.vjp(outputs, variable, shifts)
    keys = jax.random.split(key, max(len(values), 1))
    signs = [
        jax.random.rademacher(k, y.shape, y.dtype) for k, y in zip(keys, values, strict=False)
    ]
    by_layer, by_tensor = pullback(signs)
    norm = sum((_square(y) for y in values), start=jnp.float32(0))
    return (
        norm,
        jnp.stack([_square(by_layer.get(i)) for i in range(len(graph.layers))]),
        jnp.stack([_square(by_tensor.get(t)) for t in range(len(graph.tensors))]),
    )


def _square(x: jax.Array | None) -> jax.Array:
    return jnp.float32(0) if x is None else jnp.sum(jnp.square(x.astype(jnp.float32)))
