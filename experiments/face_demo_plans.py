"""Plans of the demonstration: one detector, priced by its raw heads' error, for several rates."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

import autosplit
from autosplit.errors import ArtefactError, InputError
from autosplit.execution import artefact
from autosplit.files import read_document, whole_directory, write_document
from autosplit.graph.cuts import make_cut
from autosplit.hardware import Network, named_device
from autosplit.hardware.measured import load_device
from autosplit.hardware.spec import Device
from autosplit.solvers.bandwidth import with_uplink
from experiments.face_demo_cloud import CLOUD_ONLY
from experiments.face_demo_detector import (
    Detector,
    head_error,
    jpeg_error,
    load_detector,
    profile_heads,
)
from experiments.measure_device import Subject, check_output
from experiments.measure_device import run as measure_device

KIND = "autosplit.face_demo"
VERSION = 1
PLANS, DEVICE, SPLITS = "plans.json", "device.json", "splits"
MEASURED = "measured"
MEASURED_PLANS = 6
"""How many of the plans for a rate are run on the calibration photographs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatePlan:
    """What the page tells about the plan of one rate.

    Attributes:
      uplink_bits_per_s: that it was chosen for.
      folder: of the saved split, below the work directory; several rates may share one.
      cut_name: where the network is cut.
      on_edge: a flag per layer.
      w_bits, a_bits: per layer, of its weight and of the tensor that it makes; 32 is float.
      payload_bytes: of a frame, before lossless coding.
      output_error: measured on the calibration photographs, of the raw heads.
      edge_memory_bytes: packed weights and the largest activation.
      fixed_s: predicted seconds without those of the uplink.
      latency_s: predicted, at the rate.
    """

    uplink_bits_per_s: float
    folder: str
    cut_name: str
    on_edge: tuple[bool, ...]
    w_bits: tuple[int, ...]
    a_bits: tuple[int, ...]
    payload_bytes: float
    output_error: float
    edge_memory_bytes: int
    fixed_s: float
    latency_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSet:
    """All that was planned.

    Attributes:
      rates: ascending, one plan each.
      layer_names: of the detector.
      jpeg_errors: output error of cloud-only by JPEG quality, measured likewise.
      whole_bytes: of the network's weights at 8 bits.
      devices: what stood for the edge and for the cloud.
    """

    rates: tuple[RatePlan, ...]
    layer_names: tuple[str, ...]
    jpeg_errors: Mapping[str, float]
    whole_bytes: int
    devices: tuple[str, str]

    def index_at(self, uplink_bits_per_s: float) -> int:
        """Returns the position of the plan for a rate: that of the nearest rate, by ratio."""
        distances = [abs(np.log(uplink_bits_per_s / one.uplink_bits_per_s)) for one in self.rates]
        return int(np.argmin(distances))


def prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> PlanSet:
    """Returns the plans of a work directory, making them first where they are missing or others.

    Args:
      config: see ``configs/face_demo.py``.
      workdir: gets the device file, ``plans.json`` and the saved splits.

    Raises:
      AutosplitError: the configuration or its files are not as expected.
    """
    path, digest = workdir / PLANS, _digest(config)
    if path.exists():
        try:
            body = read_document(path, KIND, VERSION)
        except ArtefactError as error:
            print(f"   {error} Planning again.", flush=True)
        else:
            if body["digest"] == digest:
                return _plan_set(body["plans"])
    path.unlink(missing_ok=True)
    plans = make_plans(load_detector(config), config, workdir)
    write_document(
        path, KIND, VERSION,
        {"digest": digest, "plans": json.loads(json.dumps(dataclasses.asdict(plans)))},
    )  # fmt: skip
    return plans


def make_plans(
    detector: Detector, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> PlanSet:
    """Profiles, solves for every rate, and saves the splits."""
    _, whole = detector.graphs
    network = Network(**config.network.to_dict())
    edge, cloud = devices(detector, config, workdir)
    profile = profile_heads(detector, config, edge=edge, cloud=cloud, network=network)
    chosen = {
        float(rate): choose(detector, with_uplink(profile, rate), config)
        for rate in sorted(config.rates_bits_per_s)
    }
    folders: dict[Any, str] = {}
    for plan in chosen.values():
        folders.setdefault(_assignment(plan), f"{SPLITS}/{len(folders)}")
    with whole_directory(workdir / SPLITS) as draft:
        saved: set[str] = set()
        for plan in chosen.values():
            folder = folders[_assignment(plan)]
            if folder not in saved:
                split = autosplit.split(whole, detector.variables, plan, network=network)
                split.save(draft / pathlib.Path(folder).name)
                saved.add(folder)
        nothing = make_cut(whole, (False,) * len(whole.layers), "cloud-only")
        autosplit.split(whole, detector.variables, nothing).save(draft / CLOUD_ONLY)
    return PlanSet(
        rates=tuple(
            _rate_plan(rate, plan, folders[_assignment(plan)], whole)
            for rate, plan in chosen.items()
        ),
        layer_names=tuple(layer.name for layer in whole.layers),
        jpeg_errors={
            str(quality): jpeg_error(detector, quality)
            for quality in config.jpeg_qualities
        },
        whole_bytes=int(profile.weight_bytes[:, -1].sum()),
        devices=(profile.edge_name, profile.cloud_name),
    )


def devices(
    detector: Detector, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> tuple[Device, Device]:
    """Returns edge and cloud; times this machine where one of them is to be measured."""
    if MEASURED in (config.edge, config.cloud):
        output = workdir / DEVICE
        check_output(output)
        fingerprint = detector.graphs[1].fingerprint
        if not output.exists() or fingerprint not in load_device(output).fingerprints:
            subject = Subject(
                title=config.model.name,
                apply=detector.detect,
                variables=detector.variables,
                images=detector.inputs[0],
                settings=config.model.to_dict(),
                seed=config.seed,
            )
            measure_device(subject, output)
    names = (config.edge, config.cloud)
    edge, cloud = (
        named_device(str(workdir / DEVICE) if name == MEASURED else name) for name in names
    )
    return edge, cloud


def choose(
    detector: Detector, profile: autosplit.Profile, config: ml_collections.ConfigDict
) -> autosplit.SplitPlan:
    """Returns the plan of least ``latency_s + error_weight_s * output_error``, measured.

    Candidates are the plans with layers on both sides that no other beats in latency, error
    and memory, the most promising by their predicted error.
    """
    plans = autosplit.solve(profile, autosplit.Constraints(**config.constraints.to_dict()))
    splits = [
        plan for plan in plans if plan.feasible and plan.encoding == "packed"
        and not all(plan.on_edge)
    ]  # fmt: skip
    if not splits:
        raise InputError(
            f"No plan with layers on both sides keeps config.constraints at "
            f"{profile.network.uplink_bits_per_s:g} bits/s; expected one. Raise the limits."
        )

    def cost(plan: autosplit.SplitPlan, error: float) -> float:
        return plan.latency_s + config.error_weight_s * error

    splits.sort(key=lambda plan: cost(plan, plan.predicted_output_error))
    measured = [
        dataclasses.replace(plan, output_error=head_error(detector, plan))
        for plan in splits[:MEASURED_PLANS]
    ]
    return min(measured, key=lambda plan: cost(plan, plan.output_error or 0.0))


def load_splits(
    plans: PlanSet, workdir: pathlib.Path, sides: Sequence[str]
) -> dict[str, autosplit.Split]:
    """Loads the saved splits of a plan set, by folder."""
    folders = dict.fromkeys(plan.folder for plan in plans.rates)
    return {folder: artefact.load(workdir / folder, sides=sides) for folder in folders}


def _rate_plan(
    rate: float, plan: autosplit.SplitPlan, folder: str, graph: autosplit.LayerGraph
) -> RatePlan:
    made = {tensor.producer: bits for tensor, bits in zip(graph.tensors, plan.a_bits, strict=True)}
    return RatePlan(
        uplink_bits_per_s=rate,
        folder=folder,
        cut_name=plan.cut_name,
        on_edge=plan.on_edge,
        w_bits=plan.w_bits,
        a_bits=tuple(made[index] for index in range(len(graph.layers))),
        payload_bytes=plan.uplink_bytes,
        output_error=plan.output_error or 0.0,
        edge_memory_bytes=plan.edge_memory_bytes,
        fixed_s=plan.latency_s - plan.uplink_s,
        latency_s=plan.latency_s,
    )


def _assignment(plan: autosplit.SplitPlan) -> tuple[object, ...]:
    return plan.on_edge, plan.w_bits, plan.a_bits


def _digest(config: ml_collections.ConfigDict) -> str:
    """Tells configurations apart by what the plans depend on."""
    shown = {"title", "clip", "jpeg_quality"}
    fields = {name: value for name, value in config.to_dict().items() if name not in shown}
    told = json.dumps([fields, jax.__version__], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _plan_set(body: Mapping[str, Any]) -> PlanSet:
    try:
        rates = tuple(
            RatePlan(**{name: _tuple(value) for name, value in one.items()})
            for one in body["rates"]
        )
        rest = {name: _tuple(value) for name, value in body.items() if name != "rates"}
        return PlanSet(rates=rates, **rest)
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"{PLANS} holds no plans ({error}). Remove the file.") from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
