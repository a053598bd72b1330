"""Runs a graph under any assignment of bit-widths: one compilation for all of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from autosplit.errors import InputError, PlanMismatchError
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights, flat_outputs, prepare, run_layer, run_layers
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error import channel_axes, channel_reach
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.quant.affine import fake_quant, fake_quant_weight
from autosplit.workload import FLOAT_BITS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """Bits and clips as arrays: arguments of the compiled program, never constants of it.

    Attributes:
      on_edge: bool[L]; the cloud sees a graph input as it arrives, quantized.
      w_bits: i32[L], or for bits per channel L arrays that broadcast to the weights.
      w_high: L clips, f32, that broadcast to the weights; None without a weight.
      w_low: the lower ends of asymmetric weights, likewise; None for symmetric ones,
        whose clip is ``[-w_high, w_high]``.
      a_bits: i32[T]; a_low, a_high: f32[T].
    """

    on_edge: jax.Array
    w_bits: jax.Array | tuple[jax.Array | None, ...]
    w_high: tuple[jax.Array | None, ...]
    w_low: tuple[jax.Array | None, ...] | None = None
    a_bits: jax.Array
    a_low: jax.Array
    a_high: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantized:
    """A network made ready for quantization: what every method of quantization returns.

    Attributes:
      weights: in float; a method may have equalized them, corrected their biases or
        moved them to levels of the assignment's grids already.
      assignment: bits and clips.
    """

    weights: GraphWeights
    assignment: Assignment


def check_plan(graph: LayerGraph, plan: SplitPlan) -> None:
    """Raises `PlanMismatchError` unless the plan was made for the graph."""
    if plan.fingerprint != graph.fingerprint or len(plan.on_edge) != len(graph.layers):
        raise PlanMismatchError(
            f"The plan {plan.label!r} was made for a graph with {len(plan.on_edge)} layers and "
            f"fingerprint {plan.fingerprint[:12]}; this graph has {len(graph.layers)} layers and "
            f"{graph.fingerprint[:12]}. Solve a profile of this graph."
        )


def weight_clips(
    graph: LayerGraph, weights: GraphWeights, ratio: ArrayLike
) -> tuple[jax.Array | None, ...]:
    """Returns the clips of symmetric weights: ``ratio * max|w|`` by output channel.

    Args:
      graph: traced function.
      weights: from `prepare`.
      ratio: f32[L], the part of the range that is kept.

    Returns:
      L arrays that broadcast to the weights; None without a weight.
    """
    kept = jnp.asarray(ratio, jnp.float32)
    return tuple(
        None
        if own.weight is None
        else kept[i] * channel_reach(own.weight, channel_axes(graph, i)).astype(jnp.float32)
        for i, own in enumerate(weights.layers)
    )


def assignment_of(graph: LayerGraph, weights: GraphWeights, plan: SplitPlan) -> Assignment:
    """Returns the arrays of a plan."""
    check_plan(graph, plan)
    return Assignment(
        on_edge=jnp.asarray(np.array(plan.on_edge, bool)),
        w_bits=jnp.asarray(np.array(plan.w_bits, np.int32)),
        w_high=weight_clips(graph, weights, np.array(plan.weight_ratio)),
        a_bits=jnp.asarray(np.array(plan.a_bits, np.int32)),
        a_low=jnp.asarray(np.array(plan.activation_low, np.float32)),
        a_high=jnp.asarray(np.array(plan.activation_high, np.float32)),
    )


def profile_assignment(
    graph: LayerGraph,
    weights: GraphWeights,
    profile: Profile,
    w_bits: ArrayLike,
    a_bits: ArrayLike,
    on_edge: ArrayLike = True,
) -> Assignment:
    """Returns the arrays of any bits, with the clips that a profile found for them.

    Args:
      graph: traced function.
      weights: from `prepare`.
      profile: of the graph.
      w_bits: candidates of the profile or `FLOAT_BITS`, broadcastable to i32[L].
      a_bits: likewise, broadcastable to i32[T].
      on_edge: bool, broadcastable to [L].

    Raises:
      PlanMismatchError: the profile is of another graph.
      InputError: a bit-width is none of the profile's.
    """
    if profile.fingerprint != graph.fingerprint:
        raise PlanMismatchError(
            f"The profile is of a graph with fingerprint {profile.fingerprint[:12]}; this graph "
            f"has {graph.fingerprint[:12]}. Profile this graph."
        )
    layers, tensors = len(graph.layers), len(graph.tensors)
    w, k_w = _candidates(profile, w_bits, layers)
    a, k_a = _candidates(profile, a_bits, tensors)
    rows, columns = np.arange(layers), np.arange(tensors)
    return Assignment(
        on_edge=jnp.asarray(np.broadcast_to(np.asarray(on_edge, bool), layers)),
        w_bits=jnp.asarray(w),
        w_high=weight_clips(graph, weights, profile.weight_ratio[rows, k_w]),
        a_bits=jnp.asarray(a),
        a_low=jnp.asarray(profile.activation_low[columns, k_a], jnp.float32),
        a_high=jnp.asarray(profile.activation_high[columns, k_a], jnp.float32),
    )


def _candidates(profile: Profile, bits: ArrayLike, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns bits as i32[count] and their columns in the profile (of float: the last)."""
    chosen = np.broadcast_to(np.asarray(bits, np.int32), count)
    column = np.minimum(np.searchsorted(profile.bits, chosen), len(profile.bits) - 1)
    wrong = (profile.bits[column] != chosen) & (chosen < FLOAT_BITS)
    if wrong.any():
        raise InputError(
            f"{chosen[wrong][0]} bits are none of the profile's {tuple(profile.bits.tolist())}; "
            f"expected one of them, or {FLOAT_BITS} for float."
        )
    return chosen, column


def quantized_weights(weights: GraphWeights, assignment: Assignment) -> GraphWeights:
    """Quantizes and dequantizes all weights at the bits and clips of an assignment."""
    layers = []
    for layer, own in enumerate(weights.layers):
        bits, high = assignment.w_bits[layer], assignment.w_high[layer]
        if own.weight is not None and bits is not None and high is not None:
            low = None if assignment.w_low is None else assignment.w_low[layer]
            value = (
                fake_quant_weight(own.weight, high, bits)
                if low is None
                else fake_quant(own.weight, low, high, bits)
            )
            own = dataclasses.replace(own, weight=value)
        layers.append(own)
    return dataclasses.replace(weights, layers=tuple(layers))


def run_assignment(
    graph: LayerGraph, weights: GraphWeights, assignment: Assignment, leaves: Sequence[Any]
) -> list[Any]:
    """Runs one call with fake quantization of what passes between layers.

    Args:
      graph: traced function.
      weights: from `quantized_weights`.
      assignment: bits and clips.
      leaves: flat inputs of the traced shape.

    Returns:
      Flat outputs.
    """
    known = dict(zip(graph.inputs, leaves, strict=True))
    sent = {t: quantize_tensor(graph, assignment, t, x) for t, x in known.items()}
    known = run_assigned_layers(
        graph, weights, assignment, known, range(len(graph.layers)), sent=sent
    )
    edge_only = assignment.on_edge.all()
    returned = {t: jnp.where(edge_only, known[t], x) for t, x in sent.items()}
    return flat_outputs(graph, weights, {**known, **returned})


def run_assigned_layers(
    graph: LayerGraph,
    weights: GraphWeights,
    assignment: Assignment,
    tensors: Mapping[int, Any],
    layers: Iterable[int],
    *,
    sent: Mapping[int, jax.Array] | None = None,
) -> dict[int, Any]:
    """Runs some layers with fake quantization of what they write.

    Args:
      graph: traced function.
      weights: from `quantized_weights`.
      assignment: bits and clips.
      tensors: known values by tensor index, graph inputs as they are on the edge.
      layers: indices in topological order.
      sent: graph inputs as layers in the cloud read them; by default none differs.

    Returns:
      All known values by tensor index.
    """
    known, sent = dict(tensors), sent or {}
    for index in layers:
        layer, own = graph.layers[index], weights.layers[index]
        inputs = [
            jnp.where(assignment.on_edge[index], known[t], sent[t]) if t in sent else known[t]
            for t in layer.inputs
        ]
        results = run_layer(layer, own, inputs, own.weight)
        for tensor, value in zip(layer.outputs, results, strict=True):
            known[tensor] = quantize_tensor(graph, assignment, tensor, value)
    return known


def quantize_tensor(
    graph: LayerGraph, assignment: Assignment, tensor: int, x: jax.Array
) -> jax.Array:
    """Fake-quantizes the value of a tensor as assigned; whole numbers stay as they are."""
    if not graph.tensors[tensor].is_float:
        return x
    low, high = assignment.a_low[tensor], assignment.a_high[tensor]
    return fake_quant(x, low, high, assignment.a_bits[tensor])


@functools.partial(jax.jit, static_argnames=("graph",))
def assignment_outputs(
    graph: LayerGraph, weights: GraphWeights, assignment: Assignment, calls: Sequence[jax.Array]
) -> list[jax.Array]:
    """Runs all calls under one assignment: flat outputs, each ``[m, *shape]``.

    ``weights`` are those of `prepare`, in float. `evaluate_assignments` scores many.
    """
    quantized = quantized_weights(weights, assignment)
    return jax.vmap(lambda leaves: run_assignment(graph, quantized, assignment, leaves))(
        list(calls)
    )


@functools.partial(jax.jit, static_argnames=("graph",))
def float_outputs(
    graph: LayerGraph, weights: GraphWeights, calls: Sequence[jax.Array]
) -> list[jax.Array]:
    """Runs all calls in float: flat outputs, each ``[m, *shape]``."""

    def one(leaves: Sequence[jax.Array]) -> list[jax.Array]:
        known = dict(zip(graph.inputs, leaves, strict=True))
        every = run_layers(graph, weights, known, range(len(graph.layers)))
        return flat_outputs(graph, weights, every)

    return jax.vmap(one)(list(calls))


def relative_error(outputs: Sequence[jax.Array], reference: Sequence[jax.Array]) -> float:
    """Returns ``sum ||y - f||^2 / sum ||f||^2`` over all float outputs."""
    pairs = [
        (np.asarray(y, np.float64), np.asarray(f, np.float64))
        for y, f in zip(outputs, reference, strict=True)
        if jnp.issubdtype(f.dtype, jnp.floating)
    ]
    distance = sum(float(np.sum((y - f) ** 2)) for y, f in pairs)
    norm = sum(float(np.sum(f**2)) for _, f in pairs)
    return distance / norm if norm else float(distance > 0)


def output_errors(
    graph: LayerGraph, params: Any, calibration: Any, plans: Sequence[SplitPlan]
) -> list[float]:
    """Measures the end-to-end output error of plans, with one compilation for all.

    Args:
      graph: traced function.
      params: its parameters.
      calibration: as for `autosplit.profile`.
      plans: made for the graph.

    Returns:
      Relative mean squared output error of each plan on the batch.

    Raises:
      PlanMismatchError: a plan was made for another graph.
    """
    calls = [jnp.asarray(c) for c in calibration_calls(graph, calibration)]
    weights = prepare(graph, params)
    assignments = [assignment_of(graph, weights, plan) for plan in plans]
    reference = float_outputs(graph, weights, calls)
    return [
        relative_error(assignment_outputs(graph, weights, a, calls), reference)
        for a in assignments
    ]


def input_error(graph: LayerGraph, params: Any, calibration: Any, changed: Any) -> float:
    """Measures the output error that other inputs make (a decoded JPEG for the original).

    Args:
      graph: traced function.
      params: its parameters.
      calibration: the original batch.
      changed: the same batch as it arrives.

    Returns:
      Relative mean squared output error.
    """
    weights = prepare(graph, params)
    outputs = [
        float_outputs(graph, weights, [jnp.asarray(c) for c in calibration_calls(graph, batch)])
        for batch in (changed, calibration)
    ]
    return relative_error(*outputs)
