"""What an experiment of the paper works on: a network, its photographs and their profile."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

import ml_collections

import autosplit
from autosplit.errors import ArtefactError
from autosplit.files import read_document, to_plain, write_document
from autosplit.hardware import named_device
from autosplit.profiling.storage import load_profile, save_profile
from autosplit.reporting import run_record
from experiments.steps import (
    RANDOM,
    Job,
    check_fields,
    constraints_of,
    decoded_jpegs,
    load_job,
    profile_settings,
)

KIND, VERSION = "autosplit.paper.profile", 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A network that is traced and profiled.

    Attributes:
      title: of the network.
      job: its function, parameters and photographs.
      graph: traced.
      profile: for the link of the configuration.
      constraints: of the configuration.
      random_weights: nobody trained them.
      profile_s: how long profiling took, when it was done.
    """

    title: str
    job: Job
    graph: autosplit.LayerGraph
    profile: autosplit.Profile
    constraints: autosplit.Constraints
    random_weights: bool
    profile_s: float

    @property
    def jpegs(self) -> dict[str, Any]:
        """The photographs as the cloud decodes them, by name of the encoding."""
        return decoded_jpegs(self.job.calibration_images, self.job.normalize)


def make_case(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Case:
    """Loads and traces the network, and profiles it unless an earlier run has.

    Args:
      config: see ``configs/paper/_base.py``.
      workdir: keeps ``profile.npz`` and, beside it, what it was made of.

    Raises:
      AutosplitError: a setting, the weights or the photographs are not as expected.
    """
    check_fields(config)
    # Both before anything takes time.
    constraints, settings = constraints_of(config), profile_settings(config)
    job = load_job(config)
    graph = autosplit.trace(job.apply, job.variables, job.inputs[:1])
    profile, profile_s = _profile(config, job, graph, settings, workdir)
    return Case(
        title=config.title,
        job=job,
        graph=graph,
        profile=dataclasses.replace(profile, network=settings["network"]),
        constraints=constraints,
        random_weights=config.model.weights == RANDOM,
        profile_s=profile_s,
    )


def profile_inputs(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns all that a profile depends on; the link is not among it, it only re-prices."""
    names = ("model", "images", "cloud_bits", "bits", "clipping", "seed")
    # By their figures: a device that keeps its name may have been corrected.
    devices = {side: repr(named_device(config[side])) for side in ("edge", "cloud")}
    return to_plain({name: config.to_dict()[name] for name in names} | devices)


def _profile(
    config: ml_collections.ConfigDict,
    job: Job,
    graph: autosplit.LayerGraph,
    settings: dict[str, Any],
    workdir: pathlib.Path,
) -> tuple[autosplit.Profile, float]:
    path, about = workdir / "profile.npz", workdir / "profile.json"
    made_of = profile_inputs(config)
    try:
        known = read_document(about, KIND, VERSION)
        if known["made_of"] == made_of:
            profile = load_profile(path)
            if profile.fingerprint == graph.fingerprint:
                print("   the profile of an earlier run is taken", flush=True)
                return profile, known["profile_s"]
    except ArtefactError:
        pass  # absent, of another version or broken: made anew
    about.unlink(missing_ok=True)
    start_s = time.perf_counter()
    profile = autosplit.profile(
        graph, job.variables, job.calibration_inputs, images=job.calibration_images,
        cloud_bits=config.cloud_bits, **settings,
    )  # fmt: skip
    profile_s = time.perf_counter() - start_s
    save_profile(profile, path)
    # Last: without it the profile does not count.
    record = run_record(config.to_dict(), config.seed)
    write_document(about, KIND, VERSION,
                   {"made_of": made_of, "profile_s": profile_s, "record": record})  # fmt: skip
    return profile, profile_s
