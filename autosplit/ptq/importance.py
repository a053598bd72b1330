"""How much each element of a tensor matters to the network's output: squared gradients.

The diagonal of the Gauss-Newton matrix ``J^T H J`` of the output loss, estimated without bias
by one probe: ``(J^T L xi)^2`` with random signs ``xi`` and ``L L^T = H``. For the
cross-entropy of the network's own predictions ``p``, ``H = diag(p) - p p^T`` (then it is the
Fisher matrix) and ``L = diag(sqrt p) - p sqrt(p)^T``; for a squared error H is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from autosplit.graph import LayerGraph
from autosplit.graph.primitives import is_differentiable
from autosplit.graph.running import GraphWeights, flat_outputs, run_layers
from autosplit.profiling.output_scores import label_rows
from autosplit.ptq.calibration_loss import (
    CROSS_ENTROPY,
    OUTPUT_ERROR,
    loss_kind,
)
from autosplit.ptq.shared_programs import run_shared
from autosplit.ptq.two_networks import call_parts

_CALLS = 8  # gradients keep every tensor of a call


def importance_of(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[jax.Array],
    tensors: Sequence[int],
    *,
    labels: Any = None,
    seed: int = 0,
) -> dict[int, jax.Array]:
    """Estimates the importance of the elements of some tensors, on every call.

    Args:
      graph: traced function.
      weights: in float.
      calls: flat inputs, each ``[m, *traced shape]``.
      tensors: indices.
      labels: classes of the images; then the gradient is that of the cross-entropy with them
        (the empirical Fisher matrix) in place of a probe.
      seed: of the signs.

    Returns:
      By tensor bf16 ``[m, *shape]``, mean 1. Tensors on which no gradient arrives have no entry;
      nor has any where the function is not differentiable.

    Reference: Li et al. 2021 (arXiv 2102.05426), equation 10.
    """
    kind = loss_kind(graph, labels)
    wanted = [t for t in tensors if graph.tensors[t].is_float]
    passes = all(is_differentiable(e) for layer in graph.layers for e in layer.equations)
    if not wanted or not passes or not calls or not calls[0].size:
        return {}
    arranged = label_rows(graph, labels, len(calls[0])) if kind == CROSS_ENTROPY else None

    def squares(
        weights: GraphWeights, calls: Sequence[jax.Array], labels: jax.Array | None, key: jax.Array
    ) -> dict[int, jax.Array]:
        zeros = {t: jnp.zeros((len(calls[0]), *graph.tensors[t].shape)) for t in wanted}
        outputs, pull = jax.vjp(lambda added: _outputs(graph, weights, calls, added), zeros)
        (gradients,) = pull(_probe(kind, outputs, labels, key))
        return {t: g.astype(jnp.bfloat16) ** 2 for t, g in gradients.items()}
    keys = jax.random.split(jax.random.key(seed), len(calls[0]))
    parts = [
        run_shared(
            squares, weights, [x[part] for x in calls],
            None if arranged is None else arranged[part], keys[part.start],
        )
        for part in call_parts(len(calls[0]), _CALLS)
    ]  # fmt: skip
    found = {t: jnp.concatenate([part[t] for part in parts]) for t in wanted}
    means = {t: float(jnp.mean(x, dtype=jnp.float32)) for t, x in found.items()}
    return {t: (x / means[t]).astype(jnp.bfloat16) for t, x in found.items() if means[t] > 0}


def _outputs(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[jax.Array],
    added: dict[int, jax.Array],
) -> list[jax.Array]:
    """Returns the outputs in floats, with something added to some tensors."""

    def one(leaves: Sequence[jax.Array], added: dict[int, jax.Array]) -> list[jax.Array]:
        known = run_layers(
            graph, weights, dict(zip(graph.inputs, leaves, strict=True)), range(len(graph.layers)),
            on_tensor=lambda t, x: x + added[t].astype(x.dtype) if t in added else x,
        )  # fmt: skip
        found = flat_outputs(graph, weights, known)
        return [y for y in found if jnp.issubdtype(y.dtype, jnp.floating)]

    return jax.vmap(one)(list(calls), added)


def _probe(
    kind: str, outputs: Sequence[jax.Array], labels: jax.Array | None, key: jax.Array
) -> list[jax.Array]:
    """Returns the gradient by the outputs: ``L xi``, or that of the cross-entropy."""
    keys = jax.random.split(key, len(outputs))
    signs = [jax.random.rademacher(k, y.shape, y.dtype) for k, y in zip(keys, outputs, strict=True)]
    if kind == OUTPUT_ERROR:
        return signs
    likely = jax.nn.softmax(outputs[0])
    if labels is not None:
        return [likely - jax.nn.one_hot(labels, likely.shape[-1], dtype=likely.dtype)]
    root = jnp.sqrt(likely)
    return [root * signs[0] - likely * jnp.sum(root * signs[0], -1, keepdims=True)]
