"""Reads weights of any known format into the variables of a model of `autosplit.models`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from autosplit import models
from autosplit.converters.darknet_weights import read_darknet_weights
from autosplit.converters.folded_mobilenet import folded_mobilenet_state_dict
from autosplit.converters.foreign_file import reading
from autosplit.converters.keras_resnet import keras_resnet_state_dict
from autosplit.converters.onnx_file import read_onnx
from autosplit.converters.onnx_yolo import onnx_yolo_state_dict
from autosplit.converters.state_dict import convert
from autosplit.converters.tfjs_file import read_tfjs
from autosplit.converters.tflite_file import read_tflite
from autosplit.converters.torch_file import read_state_dict
from autosplit.errors import ConversionError, InputError
from autosplit.models.darknet_sections import Convolutional
from autosplit.models.layers import keras_batch_norm
from autosplit.models.mobilenet_v1 import MobileNetV1
from autosplit.models.resnet import ResNet
from autosplit.models.yolo import YOLO

Arrays = dict[str, np.ndarray]


def load_weights(
    path: str | os.PathLike[str], model_name: str, num_classes: int = 1000
) -> dict[str, Any]:
    """Reads a file of weights into a model's variables; uses every weight or raises.

    Args:
      path: of a file with one of these suffixes:
        ``.pth .pt .pkl .th .safetensors``: a state dict with the model's keys, any model;
        ``.weights``: darknet's format, YOLOv3;
        ``.onnx``: YOLOv3 as Keras' converter wrote it;
        ``.json``: a TensorFlow.js layers model of Keras' ResNet-50, for ``resnet50_v1``;
        ``.tflite``: a float MobileNet-v1 (`folded_mobilenet_state_dict` says what becomes of
        its class "background").
      model_name: key of `autosplit.models.MODELS`.
      num_classes: length of a classifier's output, or number of a detector's classes.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` as NumPy arrays.

    Raises:
      InputError: no such file or model, or the suffix is none of these.
      ArtefactError: the file is truncated or damaged.
      ConversionError: it does not fit the model: names what is left over, missing or
        misshapen.
    """
    path = pathlib.Path(path)
    if path.suffix not in READERS:
        raise InputError(
            f"{path} ends in {path.suffix!r}; expected {', '.join(READERS)}, which name the "
            "formats of weights."
        )
    model = models.create_model(model_name, num_classes)
    state_dict = READERS[path.suffix](path, model)
    with reading(path, f"the weights of {model_name}"):
        return convert(state_dict, models.variable_shapes(model))


def _state_dict(path: pathlib.Path, model: nn.Module) -> Arrays:
    return read_state_dict(path)


def _darknet(path: pathlib.Path, model: nn.Module) -> Arrays:
    yolo = _require_network(path, model, YOLO)
    return dict(read_darknet_weights(path, yolo.sections).state_dict)


def _onnx(path: pathlib.Path, model: nn.Module) -> Arrays:
    yolo = _require_network(path, model, YOLO)
    graph = read_onnx(path)
    sections = enumerate(yolo.sections)
    places = [place for place, section in sections if isinstance(section, Convolutional)]
    with reading(path, "a YOLOv3"):
        return onnx_yolo_state_dict(graph, places, yolo.epsilon)


def _tfjs(path: pathlib.Path, model: nn.Module) -> Arrays:
    _require_network(path, model, ResNet)
    weights = read_tfjs(path)
    with reading(path, "a ResNet-50"):
        return keras_resnet_state_dict(weights)


def _tflite(path: pathlib.Path, model: nn.Module) -> Arrays:
    mobilenet = _require_network(path, model, MobileNetV1)
    graph = read_tflite(path)
    epsilon = keras_batch_norm.keywords["epsilon"]
    with reading(path, "a MobileNet-v1"):
        return folded_mobilenet_state_dict(graph, mobilenet.num_classes, epsilon)


READERS: Mapping[str, Callable[[pathlib.Path, nn.Module], Arrays]] = {
    ".pth": _state_dict,
    ".pt": _state_dict,
    ".pkl": _state_dict,
    ".th": _state_dict,
    ".safetensors": _state_dict,
    ".weights": _darknet,
    ".onnx": _onnx,
    ".json": _tfjs,
    ".tflite": _tflite,
}


def _require_network(path: pathlib.Path, model: nn.Module, network: type) -> Any:
    """Returns the model if it is of the one network that a format's names are known for."""
    if isinstance(model, network):
        return model
    raise ConversionError(
        f"{path} is to become a {type(model).__name__}; expected a {network.__name__}, the one "
        f"network that {path.suffix} files are converted of. Use a state dict for others."
    )
