"""``autosplit.split``: a plan or a bare cut becomes two running halves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from autosplit.errors import InputError
from autosplit.execution import weights as arrays
from autosplit.execution.halves import Half, Split
from autosplit.execution.manifest import Manifest, TensorSpec, nest
from autosplit.graph import Cut, LayerGraph
from autosplit.graph.cuts import make_cut
from autosplit.graph.running import flat_outputs, prepare, run_layers
from autosplit.hardware import Network
from autosplit.profiling.assignment import check_plan
from autosplit.profiling.plan import FLOAT_BITS, SplitPlan
from autosplit.quant.affine import dequantize, fake_quant, quantize
from autosplit.quant.packing import packed_bytes

_ENCODINGS = ("packed", "raw")
_STAGES = ("edge_s", "pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s", "round_trip_s")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TensorBits:
    """Bits and clips of the tensors: constants of the halves, so codes have static types."""

    bits: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def is_coded(self, tensor: int) -> bool:
        """The tensor crosses as codes."""
        return self.bits[tensor] <= arrays.PACKED_BITS

    def clip(self, tensor: int) -> tuple[Any, Any, int]:
        """Low, high and bits."""
        return jnp.float32(self.low[tensor]), jnp.float32(self.high[tensor]), self.bits[tensor]


def split(
    graph: LayerGraph, params: Any, plan: SplitPlan | Cut, *, network: Network | None = None
) -> Split:
    """Splits a traced function into an edge half and a cloud half.

    The edge half fake-quantizes weights and activations at the plan's bits and
    packs what crosses; the cloud half unpacks, dequantizes and goes on in float.
    A bare cut means float bits: then ``cloud(edge(x)) == fn(params, x)``.

    Args:
      graph: traced function.
      params: its parameters.
      plan: a plan made for the graph, or a cut.
      network: recorded in the manifest, so that a client can shape its link.

    Returns:
      The split; ``split.cloud(split.edge(*inputs))`` runs it.

    Raises:
      PlanMismatchError: the plan was made for another graph.
      InputError: the plan sends the inputs as PNG or JPEG.
      CutError: the edge layers are not closed under predecessors.
    """
    if isinstance(plan, SplitPlan):
        check_plan(graph, plan)
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
    name = plan.cut_name if isinstance(plan, SplitPlan) else plan.name
    cut = make_cut(graph, plan.on_edge, name)
    bits = _tensor_bits(graph, plan)
    edge_layers = [i for i, flag in enumerate(cut.on_edge) if flag]
    cloud_layers = [i for i, flag in enumerate(cut.on_edge) if not flag]
    whole = prepare(graph, params)
    packed = arrays.pack_edge_weights(graph, whole, plan) if isinstance(plan, SplitPlan) else {}
    on_edge = arrays.arguments(whole, edge_layers, outputs=not cloud_layers)
    on_edge.update(arrays.unpack_weights(packed))
    in_cloud = arrays.arguments(whole, cloud_layers, outputs=bool(cloud_layers))

    def edge(named: Mapping[str, Any], leaves: Sequence[Any]) -> tuple[Any, ...]:
        return _run_edge(graph, cut, bits, named, leaves)

    def cloud(named: Mapping[str, Any], codes: Sequence[Any]) -> tuple[Any, ...]:
        return _run_cloud(graph, cut, bits, named, codes)

    return Split(
        manifest=_manifest(graph, plan, cut, bits, network, (on_edge, in_cloud)),
        edge_half=Half(call=jax.jit(edge), weights=on_edge),
        cloud_half=Half(call=jax.jit(cloud), weights=in_cloud),
        packed=packed,
        unflatten=lambda leaves: jax.tree.unflatten(graph.out_tree, leaves),
    )


def _tensor_bits(graph: LayerGraph, plan: SplitPlan | Cut) -> _TensorBits:
    if isinstance(plan, SplitPlan):
        return _TensorBits(bits=plan.a_bits, low=plan.activation_low, high=plan.activation_high)
    count = len(graph.tensors)
    return _TensorBits(bits=(FLOAT_BITS,) * count, low=(0.0,) * count, high=(0.0,) * count)


def _run_edge(
    graph: LayerGraph, cut: Cut, bits: _TensorBits, named: Mapping[str, Any], leaves: Sequence[Any]
) -> tuple[Any, ...]:
    weights = arrays.from_arguments(graph, named)
    layers = [i for i, flag in enumerate(cut.on_edge) if flag]

    def on_tensor(tensor: int, x: Any) -> Any:
        quantized = bits.bits[tensor] < FLOAT_BITS and graph.tensors[tensor].is_float
        return fake_quant(x, *bits.clip(tensor)) if quantized else x

    # Graph inputs come from a sensor: they are quantized only where they are sent.
    known = run_layers(
        graph, weights, dict(zip(graph.inputs, leaves, strict=True)), layers, on_tensor=on_tensor
    )
    if all(cut.on_edge):
        return tuple(flat_outputs(graph, weights, known))
    return tuple(
        quantize(known[t], *bits.clip(t)).astype(jnp.uint8) if bits.is_coded(t) else known[t]
        for t in cut.crossing
    )


def _run_cloud(
    graph: LayerGraph, cut: Cut, bits: _TensorBits, named: Mapping[str, Any], codes: Sequence[Any]
) -> tuple[Any, ...]:
    weights = arrays.from_arguments(graph, named)
    layers = [i for i, flag in enumerate(cut.on_edge) if not flag]
    known = {
        t: dequantize(code, *bits.clip(t)).astype(graph.tensors[t].dtype)
        if bits.is_coded(t)
        else code
        for t, code in zip(cut.crossing, codes, strict=True)
    }
    known = run_layers(graph, weights, known, layers)
    return tuple(flat_outputs(graph, weights, known))


def _manifest(
    graph: LayerGraph,
    plan: SplitPlan | Cut,
    cut: Cut,
    bits: _TensorBits,
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
        inputs=tuple(_spec(graph, t, FLOAT_BITS) for t in graph.inputs),
        crossing=tuple(
            _spec(graph, t, bits.bits[t] if bits.is_coded(t) else FLOAT_BITS) for t in cut.crossing
        ),
        outputs=tuple(_output_specs(graph)),
        structure=_structure(graph),
        network=dataclasses.asdict(network) if network else {},
        predicted=predicted,
    )


def _spec(graph: LayerGraph, tensor: int, bits: int) -> TensorSpec:
    own = graph.tensors[tensor]
    coded = bits <= arrays.PACKED_BITS
    return TensorSpec(
        name=own.name,
        shape=own.shape,
        dtype="uint8" if coded else str(own.dtype),
        bits=bits if coded else FLOAT_BITS,
        payload_bytes=packed_bytes(own.size, bits) if coded else own.size * own.dtype.itemsize,
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
