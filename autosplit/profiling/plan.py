"""SplitPlan: one cut with its bit-widths, what it costs and why it stands; Plans: a list."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from autosplit.errors import ArtefactError
from autosplit.files import read_document, write_document
from autosplit.workload import FLOAT_BITS

__all__ = ["FLOAT_BITS", "SplitPlan", "plan_from_json", "plan_to_json"]

KIND = "autosplit.plan"
VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """A cut, the bits on the edge, the predicted costs and the certificate.

    L layers, T tensors, as in the profile that it was solved from.

    Attributes:
      label: ``"auto-split"``, ``"cloud-only (jpeg-q90)"``, ``"edge-only"``, ...
      fingerprint: of the graph.
      cut_name: where the graph is cut, in words.
      on_edge: L flags.
      crosses: T flags, the tensors that are sent.
      encoding: ``"packed"``; ``"plain"`` where tensors are sent as unquantized numbers (a
        baseline); or the name of an `InputEncoding` for cloud-only.
      w_bits: L bit-widths, `FLOAT_BITS` where not quantized (cloud, no weight).
      a_bits: T bit-widths, likewise.
      weight_ratio: L clip ratios (1.0 where not quantized).
      activation_low, activation_high: T clips (0.0 where not quantized).
      edge_s, pack_s, uplink_s, unpack_s, cloud_s, downlink_s, round_trip_s: predicted.
      uplink_bytes, downlink_bytes: payload of request and response.
      edge_j, pack_j, uplink_j, downlink_j: predicted energy of the edge device: its
        layers, packing (or encoding), sending and receiving; None where not known.
      edge_weight_bytes: packed weights on the edge.
      edge_activation_bytes: the largest activation on the edge (the paper's max).
      quant_mse: sum of the tensor-local errors on the edge.
      predicted_output_error: first-order relative mean squared output error.
      error_is_predicted: False for a lossy encoding, whose error is only known once
        measured (predicted_output_error is 0.0 and means nothing then).
      output_error: the same measured end to end on calibration data; None until
        `autosplit.measure` has run.
      lower_bound: proven lower bound on the objective (seconds of latency, unless the
        solver was asked for another) of any plan within the same budgets; equal to the
        plan's own where it is optimal.
      reason: why the plan is feasible, or which constraint it breaks.
      feasible: within all constraints that were asked for.
    """

    label: str
    fingerprint: str
    cut_name: str
    on_edge: tuple[bool, ...]
    crosses: tuple[bool, ...]
    encoding: str
    w_bits: tuple[int, ...]
    a_bits: tuple[int, ...]
    weight_ratio: tuple[float, ...]
    activation_low: tuple[float, ...]
    activation_high: tuple[float, ...]
    edge_s: float
    pack_s: float
    uplink_s: float
    unpack_s: float
    cloud_s: float
    downlink_s: float
    round_trip_s: float
    uplink_bytes: float
    downlink_bytes: float
    edge_weight_bytes: int
    edge_activation_bytes: int
    quant_mse: float
    predicted_output_error: float
    edge_j: float | None = None
    pack_j: float | None = None
    uplink_j: float | None = None
    downlink_j: float | None = None
    error_is_predicted: bool = True
    output_error: float | None = None
    lower_bound: float = 0.0
    reason: str = ""
    feasible: bool = True

    @property
    def latency_s(self) -> float:
        """End-to-end seconds: all stages one after the other."""
        compute = self.edge_s + self.pack_s + self.unpack_s + self.cloud_s
        return compute + self.uplink_s + self.downlink_s + self.round_trip_s

    @property
    def energy_j(self) -> float | None:
        """Joules of the edge device for one inference; None where a part is not known."""
        parts = (self.edge_j, self.pack_j, self.uplink_j, self.downlink_j)
        return None if None in parts else sum(part for part in parts if part is not None)

    @property
    def edge_memory_bytes(self) -> int:
        """Packed weights plus the largest activation on the edge."""
        return self.edge_weight_bytes + self.edge_activation_bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan to a JSON file, losslessly."""
        write_document(path, KIND, VERSION, plan_to_json(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SplitPlan:
        """Reads what `save` wrote; raises `ArtefactError` where it was changed or truncated."""
        return plan_from_json(read_document(path, KIND, VERSION), str(path))


def plan_to_json(plan: SplitPlan) -> dict[str, Any]:
    """Returns the fields of a plan as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(plan)))


def plan_from_json(fields: Any, place: str) -> SplitPlan:
    """Returns the plan of some JSON values; raises `ArtefactError` where they hold none."""
    try:
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return SplitPlan(**{**fields, **lists})
    except (TypeError, AttributeError) as error:
        raise ArtefactError(f"{place} holds no plan ({error}). Solve again.") from error
