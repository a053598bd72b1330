"""What each weight and each tensor, quantized alone, does to the outputs: measured, not predicted.

The layers are cut into groups, each of them one compiled program, with bits and clips as
arguments. Quantizing one layer changes nothing before it: the groups before it run once, in
float, and a row of the table runs those from its own group on. So a table of
``(weights + tensors) * bits`` entries costs the time of a part of as many runs: a fifth on
MobileNet-v2, whose late layers are cheap, and half on ResNet-18.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights, flat_outputs, prepare
from autosplit.profiling.assignment import (
    Assignment,
    profile_assignment,
    quantized_weights,
    run_assigned_layers,
)
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.many_assignments import assignment_chunk
from autosplit.profiling.output_scores import (
    ReferenceChunk,
    Scores,
    add_calls,
    compare,
    reference_chunks,
    scores_of,
)
from autosplit.profiling.table import Profile
from autosplit.workload import FLOAT_BITS

TableProgress = Callable[[int, int], None]
"""Called with how many of the rows, times chunks of calls, are done, and of how many."""

# A group more saves a part of one run in 2 * 16, and costs a call for every entry.
_GROUPS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensitivityTable:
    """Scores with one weight or one tensor quantized and all others in float.

    L layers, T tensors, K bit-widths. Where there is nothing to quantize (no weight, a graph
    input, whole numbers) the scores are those of the float network.

    Attributes:
      bits: i64[K].
      weights: every score is f64[L, K].
      activations: every score is f64[T, K].
    """

    bits: np.ndarray
    weights: Scores
    activations: Scores


def sensitivity_table(
    graph: LayerGraph,
    params: Any,
    calibration: Any,
    profile: Profile,
    *,
    labels: ArrayLike | None = None,
    calls_at_once: int | None = None,
    progress: TableProgress | None = None,
) -> SensitivityTable:
    """Measures every weight and tensor at every bit-width of a profile, with its clips.

    Args:
      graph: traced function.
      params: its parameters.
      calibration: as for `autosplit.profile`; all of it is run.
      profile: of the graph.
      labels: the class of each row of the logits, in order.
      calls_at_once: by default what `assignment_chunk` chooses.
      progress: called after each row.

    Returns:
      The table.

    Raises:
      CalibrationError: the batch does not fit the graph.
      InputError: the labels do not fit.
      PlanMismatchError: the profile is of another graph.
    """
    weights = prepare(graph, params)
    settings = {
        int(b): profile_assignment(graph, weights, profile, b, b) for b in profile.bits.tolist()
    }
    calls = calibration_calls(graph, calibration)
    return measure_sensitivities(
        graph, weights, calls, settings,
        labels=labels, calls_at_once=calls_at_once, progress=progress,
    )  # fmt: skip


def measure_sensitivities(
    graph: LayerGraph,
    weights: GraphWeights,
    calls: Sequence[np.ndarray | jax.Array],
    settings: Mapping[int, Assignment],
    *,
    labels: ArrayLike | None = None,
    calls_at_once: int | None = None,
    progress: TableProgress | None = None,
) -> SensitivityTable:
    """Measures every weight and tensor alone, with the clips of any method.

    Args:
      graph: traced function.
      weights: from `prepare`, in float.
      calls: flat inputs, each ``[m, *traced shape]``.
      settings: by bit-width an assignment that has it everywhere, with clips.
      labels: as for `sensitivity_table`; so are calls_at_once and progress.

    Returns:
      The table, bit-widths in ascending order.

    Raises:
      InputError: there are no calls or no settings, or the labels do not fit.
    """
    count = len(calls[0]) if calls else 0
    if not count or not settings:
        raise InputError(
            f"There are {count} calls and {len(settings)} bit-widths; expected one or more each."
        )
    size = calls_at_once or assignment_chunk(graph, count).calls
    parts = reference_chunks(graph, weights, calls, labels, size)
    groups = _groups(graph)
    bits = sorted(settings)
    entries = list(_entries(graph, groups))
    totals = np.zeros((len(entries), len(bits), 4))
    exact = np.zeros(4)
    plain = _alone(settings[bits[0]], "a_bits", None)
    for number, part in enumerate(parts):
        states = _float_states(graph, groups, weights, plain, part)
        exact += add_calls([_finish(graph, weights, states[-1], part)], [part])
        for row, (group, field, index) in enumerate(entries):
            found = []
            for b in bits:
                state, alone = states[group], _alone(settings[b], field, index)
                for later in groups[group:]:
                    state = _run_group(graph, later, weights, alone, state)
                found.append(_finish(graph, weights, state, part))
            totals[row] += [add_calls([sums], [part]) for sums in found]
            if progress:
                progress(number * len(entries) + row + 1, len(parts) * len(entries))
    return _table(graph, parts, entries, np.array(bits), totals, exact)


def _groups(graph: LayerGraph) -> tuple[tuple[int, ...], ...]:
    layers = np.arange(len(graph.layers))
    parts = np.array_split(layers, min(_GROUPS, len(layers)))
    return tuple(tuple(part.tolist()) for part in parts)


def _entries(
    graph: LayerGraph, groups: Sequence[Sequence[int]]
) -> Iterator[tuple[int, str, int]]:
    """Yields group, field and index of all that is quantized alone."""
    group_of = {layer: number for number, group in enumerate(groups) for layer in group}
    for index, layer in enumerate(graph.layers):
        if layer.weight is not None:
            yield group_of[index], "w_bits", index
    for index, tensor in enumerate(graph.tensors):
        if tensor.is_float and tensor.producer >= 0:
            yield group_of[tensor.producer], "a_bits", index


def _alone(setting: Assignment, field: str, index: int | None) -> Assignment:
    """Returns a setting with float bits everywhere but in one place (or in none)."""
    plain: dict[str, Any] = {
        name: jax.tree.map(lambda b: np.full(np.shape(b), FLOAT_BITS, np.int32), value)
        for name, value in (("w_bits", setting.w_bits), ("a_bits", setting.a_bits))
    }
    if index is not None:
        own = getattr(setting, field)
        if isinstance(own, tuple):  # bits by channel
            kept = plain[field]
            plain[field] = (*kept[:index], np.asarray(own[index]), *kept[index + 1 :])
        else:
            plain[field][index] = own[index]
    plain["on_edge"] = np.ones(np.shape(setting.on_edge), bool)
    return dataclasses.replace(setting, **plain)


def _float_states(
    graph: LayerGraph,
    groups: Sequence[tuple[int, ...]],
    weights: GraphWeights,
    plain: Assignment,
    part: ReferenceChunk,
) -> list[dict[int, jax.Array]]:
    """Returns what is known in float before each group, and after the last."""
    states = [dict(zip(graph.inputs, part.calls, strict=True))]
    for group in groups:
        states.append(_run_group(graph, group, weights, plain, states[-1]))
    return states


@functools.partial(jax.jit, static_argnames=("graph", "group"))
def _run_group(
    graph: LayerGraph,
    group: tuple[int, ...],
    weights: GraphWeights,
    assignment: Assignment,
    state: Mapping[int, jax.Array],
) -> dict[int, jax.Array]:
    """Runs some layers on ``[C, *shape]`` tensors; keeps what later layers or outputs read."""
    own = quantized_weights(weights, assignment)
    known = jax.vmap(lambda tensors: run_assigned_layers(graph, own, assignment, tensors, group))(
        dict(state)
    )
    return {
        t: value
        for t, value in known.items()
        if graph.tensors[t].is_output or max(graph.tensors[t].consumers, default=-1) > group[-1]
    }


@functools.partial(jax.jit, static_argnames=("graph",))
def _finish(
    graph: LayerGraph, weights: GraphWeights, state: Mapping[int, jax.Array], part: ReferenceChunk
) -> jax.Array:
    found = jax.vmap(lambda tensors: flat_outputs(graph, weights, tensors))(dict(state))
    return compare(graph, found, part)


def _table(
    graph: LayerGraph,
    parts: Sequence[ReferenceChunk],
    entries: Sequence[tuple[int, str, int]],
    bits: np.ndarray,
    totals: np.ndarray,
    exact: np.ndarray,
) -> SensitivityTable:
    sides = {"w_bits": len(graph.layers), "a_bits": len(graph.tensors)}
    # The groups in float differ from the whole by rounding, which is no error here.
    plain = np.array([0.0, 0.0, *exact[2:]])
    tables = {name: np.tile(plain, (count, len(bits), 1)) for name, count in sides.items()}
    for (_, field, index), own in zip(entries, totals, strict=True):
        tables[field][index] = own
    return SensitivityTable(
        bits=bits,
        weights=scores_of(tables["w_bits"], parts),
        activations=scores_of(tables["a_bits"], parts),
    )
