"""``autosplit.split``: a plan or a bare cut becomes two running halves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from autosplit.errors import InputError
from autosplit.execution import weights as arrays
from autosplit.execution.edge_half import check_quantized, edge_half
from autosplit.execution.grids import Grid, decode, from_levels
from autosplit.execution.halves import Half, Split
from autosplit.execution.manifest import Manifest, TensorSpec, nest
from autosplit.graph import Cut, LayerGraph
from autosplit.graph.cuts import make_cut
from autosplit.graph.running import flat_outputs, prepare, run_layers
from autosplit.hardware import Network
from autosplit.profiling.assignment import Quantized, assignment_of, check_plan
from autosplit.profiling.plan import SplitPlan
from autosplit.quant.packing import packed_bytes
from autosplit.workload import FLOAT_BITS

_ENCODINGS = ("packed", "raw")
_STAGES = ("edge_s", "pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s", "round_trip_s")


def split(
    graph: LayerGraph,
    params: Any,
    plan: SplitPlan | Cut,
    *,
    network: Network | None = None,
    quantized: Quantized | None = None,
) -> Split:
    """Splits a traced function into an edge half and a cloud half.

    The edge half computes at the plan's bits in integers, up to 8 of them (see
    `autosplit.execution.edge_layers`), and packs what crosses; the cloud half
    unpacks, dequantizes and goes on in float. A bare cut means float bits: then
    ``cloud(edge(x)) == fn(params, x)``.

    Args:
      graph: traced function.
      params: its parameters.
      plan: a plan made for the graph, or a cut.
      network: recorded in the manifest, so that a client can shape its link.
      quantized: weights, bits and clips in place of those of ``params`` and plan, from a
        method of `autosplit.ptq`; both halves use its weights.

    Returns:
      The split; ``split.cloud(split.edge(*inputs))`` runs it.

    Raises:
      PlanMismatchError: the plan or ``quantized`` was made for another graph or edge.
      InputError: the plan sends the inputs as PNG or JPEG, or a clip is not finite.
      CutError: the edge layers are not closed under predecessors.
    """
    if isinstance(plan, SplitPlan):
        check_plan(graph, plan)
        _check_encoding(plan)
    name = plan.cut_name if isinstance(plan, SplitPlan) else plan.name
    cut = make_cut(graph, plan.on_edge, name)
    weights = prepare(graph, params)
    if quantized is None and isinstance(plan, SplitPlan):
        quantized = Quantized(weights=weights, assignment=assignment_of(graph, weights, plan))
    if quantized is not None:
        check_quantized(graph, cut, quantized)
        weights = quantized.weights
    half, kept, packed = edge_half(
        graph, cut, weights, None if quantized is None else quantized.assignment
    )
    cloud_layers = [i for i, flag in enumerate(cut.on_edge) if not flag]
    in_cloud = arrays.arguments(weights, cloud_layers, outputs=bool(cloud_layers))
    grids = half.grids.codes

    def cloud(named: Mapping[str, Any], codes: Sequence[Any]) -> tuple[Any, ...]:
        return _run_cloud(graph, cut, grids, named, codes)

    unpack = jax.jit(half.unpack)
    return Split(
        manifest=_manifest(graph, plan, cut, grids, network, ({**kept, **packed}, in_cloud)),
        edge_half=Half(
            call=jax.jit(half.run),
            weights={**kept, **(unpack(packed) if packed else {})},
            packed=packed,
            unpack=unpack,
        ),
        cloud_half=Half(
            call=jax.jit(cloud),
            batched=jax.jit(jax.vmap(cloud, in_axes=(None, 0))),
            weights=in_cloud,
        ),
        unflatten=lambda leaves: jax.tree.unflatten(graph.out_tree, leaves),
    )


def _check_encoding(plan: SplitPlan) -> None:
    if plan.encoding == "plain":
        raise InputError(
            f"The plan {plan.label!r} is a baseline that sends unquantized numbers; it is "
            "priced for comparison only. Take a packed plan, or pass a Cut to run in float."
        )
    if plan.encoding not in _ENCODINGS:
        raise InputError(
            f"The plan {plan.label!r} sends the inputs as {plan.encoding}, which is no split: "
            "compress them on the camera and run the function in the cloud, or take "
            "plans.best_split."
        )


def _run_cloud(
    graph: LayerGraph,
    cut: Cut,
    grids: Sequence[Grid | None],
    named: Mapping[str, Any],
    codes: Sequence[Any],
) -> tuple[Any, ...]:
    weights = arrays.from_arguments(graph, named)
    layers = [i for i, flag in enumerate(cut.on_edge) if not flag]
    known = {}
    for tensor, code in zip(cut.crossing, codes, strict=True):
        grid, dtype = grids[tensor], graph.tensors[tensor].dtype
        known[tensor] = code if grid is None else decode(grid, from_levels(grid, code), dtype)
    known = run_layers(graph, weights, known, layers)
    return tuple(flat_outputs(graph, weights, known))


def _manifest(
    graph: LayerGraph,
    plan: SplitPlan | Cut,
    cut: Cut,
    grids: Sequence[Grid | None],
    network: Network | None,
    halves: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> Manifest:
    solved = dataclasses.asdict(plan) if isinstance(plan, SplitPlan) else None
    predicted = {}
    if isinstance(plan, SplitPlan):
        predicted = {stage: float(getattr(plan, stage)) for stage in _STAGES}
        predicted["latency_s"] = float(plan.latency_s)
    identity = json.dumps(
        [graph.fingerprint, list(cut.on_edge), solved, *(arrays.digest(h) for h in halves)],
        sort_keys=True,
    )
    return Manifest(
        split_id=hashlib.sha256(identity.encode()).hexdigest(),
        label=plan.label if isinstance(plan, SplitPlan) else "float",
        cut_name=cut.name,
        fingerprint=graph.fingerprint,
        plan=solved,
        inputs=tuple(_spec(graph, t, None) for t in graph.inputs),
        crossing=tuple(_spec(graph, t, grids[t]) for t in cut.crossing),
        outputs=tuple(_output_specs(graph)),
        structure=_structure(graph),
        network=dataclasses.asdict(network) if network else {},
        predicted=predicted,
    )


def _spec(graph: LayerGraph, tensor: int, grid: Grid | None) -> TensorSpec:
    own = graph.tensors[tensor]
    raw_bytes = own.size * own.dtype.itemsize
    return TensorSpec(
        name=own.name,
        shape=own.shape,
        dtype=str(own.dtype) if grid is None else "uint8",
        bits=FLOAT_BITS if grid is None else grid.bits,
        payload_bytes=raw_bytes if grid is None else packed_bytes(own.size, grid.bits),
    )


def _output_specs(graph: LayerGraph) -> list[TensorSpec]:
    shapes = graph.output_shapes
    return [
        TensorSpec(
            name=f"output.{number}",
            shape=shape,
            dtype=str(dtype),
            bits=FLOAT_BITS,
            payload_bytes=math.prod(shape) * dtype.itemsize,
        )
        for number, (shape, dtype) in enumerate(shapes)
    ]


def _structure(graph: LayerGraph) -> Any:
    """Describes the nesting of the outputs; a flat tuple where it has no JSON form."""
    count = len(graph.outputs)
    try:
        return nest(jax.tree.unflatten(graph.out_tree, list(range(count))))
    except TypeError:
        return nest(tuple(range(count)))
