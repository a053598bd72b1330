"""The step ``statistics``: layers, ranges and errors of a network, and what both devices take."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import ml_collections

import autosplit
from autosplit.data import PACKAGES
from autosplit.errors import ArtefactError, CalibrationError, PlanMismatchError
from autosplit.files import to_plain, write_text
from autosplit.hardware import named_device
from autosplit.profiling.storage import save_profile
from experiments.paper_tables import csv_text
from experiments.steps import RANDOM, profile_settings
from experiments.workload_case import PROFILE, Case, clocked
from experiments.workload_documents import file_digest

FILES = (PROFILE, "layers.csv", "tensors.csv", "graph.txt")
PARTIAL = "statistics.partial.npz"
"""How far an interrupted profile has come; `autosplit.profile` removes it at its end."""


def settings_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns all that this step depends on."""
    names = ("model", "images", "cloud_bits", "network", "bits", "clipping", "seed",
             "sensitivity_calls")  # fmt: skip
    plain = config.to_dict()
    # By figures and contents: what keeps its name may have changed.
    extra: dict[str, Any] = {side: repr(named_device(config[side])) for side in ("edge", "cloud")}
    if config.model.weights != RANDOM and config.model.weights not in PACKAGES:
        extra["weights_sha256"] = file_digest(pathlib.Path(config.model.weights))
    return to_plain({name: plain[name] for name in names} | extra)


def run_statistics(case: Case) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Traces and profiles.

    Returns:
      The files that were written, and the figures.
    """
    graph, trace_time = case.traced
    print(f"   traced {len(graph.layers)} layers in {trace_time['trace_s']:.1f} s", flush=True)
    profile, profile_time = clocked("profile", lambda: _profile(case))
    save_profile(profile, case.workdir / PROFILE)
    write_text(case.workdir / "layers.csv", csv_text(layer_rows(graph)))
    write_text(case.workdir / "tensors.csv", csv_text(tensor_rows(graph, profile)))
    write_text(case.workdir / "graph.txt", graph.summary() + "\n")
    return FILES, {
        "input_shape": list(case.job.photographs.images.shape[1:]),
        "random_weights": case.config.model.weights == RANDOM,
        "layers": len(graph.layers),
        "macs": sum(layer.macs for layer in graph.layers),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(case.job.variables["params"])),
        "candidates": len(profile.cut_names),
        "open_cuts": profile.open_cuts,
        "calibration": case.job.calibration,
        **trace_time,
        **profile_time,
    }


def _profile(case: Case) -> autosplit.Profile:
    partial = case.workdir / PARTIAL
    if partial.exists():
        try:
            return _profile_from(case, partial)
        except (ArtefactError, CalibrationError, PlanMismatchError) as error:
            print(f"   an earlier start does not count: {error}", flush=True)
            partial.unlink(missing_ok=True)
    return _profile_from(case, partial)


def _profile_from(case: Case, partial: pathlib.Path) -> autosplit.Profile:
    config, job = case.config, case.job
    return autosplit.profile(
        case.graph,
        job.variables,
        job.calibration_inputs,
        images=job.calibration_images,
        cloud_bits=config.cloud_bits,
        sensitivity_calls=config.sensitivity_calls,
        statistics_file=partial,
        on_progress=_tell,
        **profile_settings(config),
    )


def _tell(done: int, total: int | None) -> None:
    print(f"   calibration: {done} of {total} passes of a photograph", flush=True)


def layer_rows(graph: autosplit.LayerGraph) -> list[dict[str, Any]]:
    """Returns a row for each layer."""
    return [
        {
            "layer": index,
            "name": layer.name,
            "kind": layer.kind,
            "output_shape": "x".join(map(str, graph.tensors[layer.outputs[0]].shape)),
            "macs": layer.macs,
            "weights": layer.weight_elements,
            "fused": " ".join(layer.activation),
        }
        for index, layer in enumerate(graph.layers)
    ]


def tensor_rows(graph: autosplit.LayerGraph, profile: autosplit.Profile) -> list[dict[str, Any]]:
    """Returns a row for each tensor: its range as it is clipped, and its errors, by bits."""
    columns = {int(bits): column for column, bits in enumerate(profile.bits)}
    widest = len(profile.bits) - 1
    return [
        {
            "tensor": tensor.name,
            "shape": "x".join(map(str, tensor.shape)),
            "elements": tensor.size,
            "low": float(profile.activation_low[index, widest]),
            "high": float(profile.activation_high[index, widest]),
            **{
                f"quant_mse_{bits}_bits": float(profile.activation_error[index, column])
                for bits, column in columns.items()
            },
        }
        for index, tensor in enumerate(graph.tensors)
    ]
