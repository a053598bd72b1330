"""The splits that are put under load: a small one, and MobileNet-v2 planned for this machine."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import autosplit
from autosplit.hardware.measured import load_device
from autosplit.hardware.network import Network
from experiments.measure_device import config_subject
from experiments.measure_device import run as measure_device
from experiments.steps import constraints_of, load_job, profile_settings

SMALL_INPUTS, SMALL_CROSSING, SMALL_OUTPUTS = 64, 1024, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A split with inputs for it.

    Attributes:
      name: in tables and of its folder.
      split: not saved yet.
      inputs: f32[N, ...], one request each.
      network: that it was planned for; None where it was not planned.
      plans: what else was on the list, for the record.
    """

    name: str
    split: autosplit.Split
    inputs: np.ndarray
    network: Network | None = None
    plans: tuple[Mapping[str, Any], ...] = ()


def small_case(seed: int) -> Case:
    """Makes a split of two small matrix products, between which 4 KiB cross."""
    random = np.random.default_rng(seed)
    params = {
        "grow": random.normal(size=(SMALL_INPUTS, SMALL_CROSSING)).astype(np.float32),
        "shrink": random.normal(size=(SMALL_CROSSING, SMALL_OUTPUTS)).astype(np.float32),
    }
    inputs = random.normal(size=(4, SMALL_INPUTS)).astype(np.float32)

    def apply(params: Mapping[str, Any], x: jax.Array) -> jax.Array:
        return jnp.maximum(x @ params["grow"], 0) @ params["shrink"]

    graph = autosplit.trace(apply, params, inputs[:1])
    cut = next(cut for cut in graph.cuts() if sum(cut.on_edge) == 1)
    return Case(name="small", split=autosplit.split(graph, params, cut), inputs=inputs)


def planned_case(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Case:
    """Plans a network for its link with the layer times of this machine on both sides.

    Args:
      config: see ``configs/serve_load.py``.
      workdir: for the device file, where it is measured here.

    Raises:
      AutosplitError: network, photographs or device file are not as expected, or no plan
        keeps the constraints.
    """
    if config.device:
        device = load_device(config.device)
    else:
        device = measure_device(config_subject(config), workdir / "device.json")
    job = load_job(config)
    graph = autosplit.trace(job.apply, job.variables, job.inputs[:1])
    settings = profile_settings(config) | {"edge": device, "cloud": device}
    profile = autosplit.profile(
        graph, job.variables, job.calibration_inputs, images=job.calibration_images, **settings
    )
    plans = autosplit.solve(profile, constraints_of(config))
    split = autosplit.split(graph, job.variables, plans.best_split, network=profile.network)
    return Case(
        name=config.model.name,
        split=split,
        inputs=job.inputs,
        network=profile.network,
        plans=tuple(
            {"label": plan.label, "encoding": plan.encoding, "latency_s": plan.latency_s,
             "output_error": plan.predicted_output_error, "feasible": plan.feasible}
            for plan in plans
        ),
    )  # fmt: skip


def stages_alone_s(case: Case, network: Network, repeats: int) -> dict[str, float]:
    """Times the halves in this process, without a server, and adds the link by its formula.

    Returns:
      Median seconds of each stage, by the names of a plan's prediction.
    """
    split, x = case.split, case.inputs[:1]
    taken: dict[str, list[float]] = {}

    def timed(name: str, stage: Callable[..., Any], *arguments: Any) -> Any:
        start_s = time.perf_counter()
        result = jax.block_until_ready(stage(*arguments))
        taken.setdefault(name, []).append(time.perf_counter() - start_s)
        return result

    for _ in range(repeats + 1):
        codes = timed("edge_s", split.edge_layers, x)
        payload = timed("pack_s", split.pack, codes)
        codes = timed("unpack_s", split.unpack, payload)
        timed("cloud_s", split.cloud_outputs, codes)
    stages = {name: statistics.median(times[1:]) for name, times in taken.items()}
    manifest = split.manifest
    stages["uplink_s"] = network.uplink_s(sum(s.payload_bytes for s in manifest.crossing))
    stages["downlink_s"] = network.downlink_s(sum(s.payload_bytes for s in manifest.outputs))
    stages["round_trip_s"] = network.round_trip_s
    return stages | {"latency_s": sum(stages.values())}
