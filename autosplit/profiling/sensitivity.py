"""How much an error in one tensor moves the outputs, to first order.

With white noise of variance ``e`` on a tensor, the outputs move by
``e * ||J||_F^2`` in squared norm, where J is the Jacobian of the outputs by that tensor.
For random signs v, ``E ||J^T v||^2 = ||J||_F^2``: one backward pass gives an estimate
for all tensors and weights at once. Averaged over the calls of the calibration batch.
A loop of unknown length (``while``) has no backward pass: what it reads counts as an output.

Of a classifier the noise can be weighed by what it does to the predicted distribution
``p = softmax(f)``: to second order ``KL(p || p') = 1/2 d^T F d`` for a shift d of the logits,
with the Fisher matrix ``F = diag(p) - p p^T``. For signs r and ``v = S r``,
``S = (I - p 1^T) diag(sqrt p)``, ``S S^T = F``, so ``E ||J^T v||^2 / 2`` is the expected
divergence for a unit of variance. Labels sampled from p have the same mean, and where the
network is sure a far larger variance: nearly every draw then gives nearly nothing.

Reference: Hutchinson 1990 (trace estimation); Dong et al. 2020, HAWQ-V2
(arXiv 1911.03852) for its use on sensitivities; Martens 2020 (arXiv 1412.1193), sections 5
and 9, for F and its factor. Deviation: the Gauss-Newton matrix of the squared output error,
or of the divergence from the network's own predictions, in place of the Hessian of a loss,
so no labels are needed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from autosplit.errors import InputError
from autosplit.graph import LayerGraph, primitives
from autosplit.graph.layers import Layer
from autosplit.graph.running import GraphWeights, flat_outputs, run_layer

OUTPUT, FISHER = "output", "fisher"
METRICS = (OUTPUT, FISHER)
"""What the gains predict: the relative output error, or a classifier's divergence in nats."""


def output_gains(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[jax.Array],
    key: jax.Array,
    metric: str = OUTPUT,
) -> tuple[jax.Array, jax.Array]:
    """Estimates what a unit of quant_mse does to the outputs.

    Args:
      graph: static.
      weights: from `prepare`.
      calls: flat inputs, each ``[m, *traced shape]``.
      key: random signs; one draw per call.
      metric: ``"output"`` for the relative mean squared output error, ``"fisher"`` for the
        mean divergence ``KL(softmax(f) || softmax(y))`` of a row of logits, in nats.

    Returns:
      ``weight_gain`` f32[L] and ``activation_gain`` f32[T]: the sum over calls of
      ``||J||_F^2`` over the sum of ``||f||^2``, or for ``"fisher"`` the sum of
      ``tr(J^T F J) / 2`` over the number of rows; 0 where there is nothing to quantize.

    Solvers add up gain times quant_mse, whatever the gain is of: with ``"fisher"`` their
    ``predicted_output_error``, and a limit on it, are nats, while an error that is measured
    later (`output_errors`, `autosplit.measure`) stays the relative one.

    Raises:
      InputError: no such metric; or for ``"fisher"`` the graph is no classifier: it has not
        just one float output with a last axis of classes, or a loop of unknown length.
    """
    _check_metric(graph, metric)
    keys = jax.random.split(key, calls[0].shape[0])
    # A loop in Python: within lax.map XLA:CPU runs convolutions some 10 times slower.
    # One call at a time: gradients by weight are as large as the weights.
    found = [
        _one_call(graph, weights, [call[index] for call in calls], one, metric)
        for index, one in enumerate(keys)
    ]
    norm, by_layer, by_tensor = (jnp.stack(parts).sum(0) for parts in zip(*found, strict=True))
    total = jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)
    return by_layer / total, by_tensor / total


def _check_metric(graph: LayerGraph, metric: str) -> None:
    if metric not in METRICS:
        raise InputError(f"The metric is {metric!r}; expected one of {', '.join(METRICS)}.")
    if metric == OUTPUT:
        return
    shapes = [s for s, dtype in graph.output_shapes if jnp.issubdtype(dtype, jnp.floating)]
    if len(shapes) != 1 or not shapes[0] or shapes[0][-1] < 2:
        raise InputError(
            f"The graph has float outputs of the shapes {shapes}; {FISHER!r} expected one of "
            f"logits, [..., classes]. Trace a function that returns them alone, or take {OUTPUT!r}."
        )
    loops = [layer.name for layer in graph.layers if not _is_differentiable(layer)]
    if loops:
        raise InputError(
            f"The layer {loops[0]!r} has no backward pass; {FISHER!r} expected one through the "
            f"whole graph. Take {OUTPUT!r}."
        )


def _is_differentiable(layer: Layer) -> bool:
    return all(primitives.is_differentiable(equation) for equation in layer.equations)


@functools.partial(jax.jit, static_argnames=("graph", "metric"))
def _one_call(
    graph: LayerGraph,
    weights: GraphWeights,
    leaves: Sequence[jax.Array],
    key: jax.Array,
    metric: str,
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
            if not _is_differentiable(layer):
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
    if metric == FISHER:
        signs = [_divergence_noise(y, r) for y, r in zip(values, signs, strict=True)]
        norm = jnp.float32(values[0].size // values[0].shape[-1])
    else:
        norm = sum((_square(y) for y in values), start=jnp.float32(0))
    by_layer, by_tensor = pullback(signs)
    return (
        norm,
        jnp.stack([_square(by_layer.get(i)) for i in range(len(graph.layers))]),
        jnp.stack([_square(by_tensor.get(t)) for t in range(len(graph.tensors))]),
    )


def _divergence_noise(logits: jax.Array, signs: jax.Array) -> jax.Array:
    """Returns ``S r / sqrt(2)``, so that ``E v v^T = F / 2`` for each row of logits."""
    p = jax.nn.softmax(logits.astype(jnp.float32))
    drawn = jnp.sqrt(p / 2) * signs
    return (drawn - p * drawn.sum(-1, keepdims=True)).astype(logits.dtype)


def _square(x: jax.Array | None) -> jax.Array:
    return jnp.float32(0) if x is None else jnp.sum(jnp.square(x.astype(jnp.float32)))
