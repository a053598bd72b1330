"""The demonstration's detector, and the error of its raw heads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np
import PIL.Image

import autosplit
from autosplit.converters import load_weights
from autosplit.data import COCO_NAMES, decode_image, fetch
from autosplit.errors import InputError
from autosplit.hardware import Network, named_device
from autosplit.hardware.spec import Device
from autosplit.models import YOLO, make_detector
from autosplit.models.yolo import create_yolo
from autosplit.profiling.assignment import input_error
from autosplit.profiling.image_codecs import decode_roundtrip
from autosplit.profiling.pricing import QuantizationErrors, price_graph
from experiments.face_demo_clip import network_input


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detector:
    """The network, as a whole and up to its raw heads.

    Attributes:
      model: gives the raw heads.
      detect: ``detect(variables, images)``, from images to boxes.
      variables: published weights.
      calibration: u8[N, H, W, 3], photographs that the clip does not show.
    """

    model: YOLO
    detect: Callable[..., Any]
    variables: Any
    calibration: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        """f32[N, 1, H, W, 3], the photographs as the network takes them, one call each."""
        return scaled(self.calibration)[:, None]

    @functools.cached_property
    def graphs(self) -> tuple[autosplit.LayerGraph, autosplit.LayerGraph]:
        """The traced body, and the traced detector, which has more layers behind the same."""
        body = autosplit.trace(self.model.apply, self.variables, self.inputs[0])
        whole = autosplit.trace(self.detect, self.variables, self.inputs[0])
        return body, whole


def scaled(images: np.ndarray) -> np.ndarray:
    """Returns u8 images as f32 in 0 to 1."""
    return images.astype(np.float32) / 255


def load_detector(config: ml_collections.ConfigDict) -> Detector:
    """Loads the network and the photographs that calibrate.

    Raises:
      AutosplitError: there is no such network, package or file, or they do not fit.
    """
    model = create_yolo(config.model.name, len(COCO_NAMES))
    detect = make_detector(
        model,
        score_threshold=config.model.score_threshold,
        iou_threshold=config.model.iou_threshold,
        max_detections=config.model.max_detections,
    )
    paths = fetch(config.calibration.source)[: config.calibration.limit]
    photographs = [np.asarray(decode_image(path)) for path in paths]
    size = (config.model.height, config.model.width)
    return Detector(
        model=model,
        detect=detect,
        variables=load_weights(fetch(config.model.weights)[0], config.model.name, len(COCO_NAMES)),
        calibration=np.stack([network_input(image, *size) for image in photographs]),
    )


def load_clip_photographs(config: ml_collections.ConfigDict) -> list[PIL.Image.Image]:
    """Fetches the photographs that the clip moves over."""
    return [decode_image(path) for path in fetch(config.clip.source)]


def profile_heads(
    detector: Detector,
    config: ml_collections.ConfigDict,
    *,
    edge: Device,
    cloud: Device,
    network: Network,
) -> autosplit.Profile:
    """Profiles the detector by the error of its raw heads.

    The heads are the outputs of the body, the detector's first layers. What comes behind
    them makes boxes and is not quantized: its rows of the error tables are 0.

    Raises:
      InputError: the detector does not begin with the body.
    """
    body, whole = detector.graphs
    heads = autosplit.profile(
        body,
        detector.variables,
        detector.inputs,
        edge=named_device("eyeriss"),  # errors do not depend on it
        cloud=named_device("tpu"),
        network=network,
        bits=tuple(config.bits),
        clipping=config.clipping,
        images=detector.calibration,
        seed=config.seed,
    )
    layers, tensors = len(body.layers), len(body.tensors)
    alike = [t.shape for t in body.tensors] == [t.shape for t in whole.tensors[:tensors]] and [
        layer.workloads for layer in body.layers
    ] == [layer.workloads for layer in whole.layers[:layers]]
    if not alike:
        raise InputError(
            "The detector's first layers are not those of its body, so the errors of the heads do "
            "not belong to them. Trace both from one model and one input size."
        )
    added = {"weight": len(whole.layers) - layers, "activation": len(whole.tensors) - tensors}
    names = [field.name for field in dataclasses.fields(QuantizationErrors)]
    fields = {name: getattr(heads, name) for name in names}
    for name, table in fields.items():
        kind = name.partition("_")[0]
        if kind in added:
            neutral = 1.0 if name == "weight_ratio" else 0.0
            rows = np.full((added[kind], *table.shape[1:]), neutral)
            fields[name] = np.concatenate([table, rows])
    return price_graph(
        whole,
        QuantizationErrors(**fields),
        heads.input_encodings,
        edge=edge,
        cloud=cloud,
        network=network,
        cloud_bits=32,
    )


def head_error(detector: Detector, plan: autosplit.SplitPlan) -> float:
    """Measures the relative error of the raw heads under a plan of the detector."""
    body, _ = detector.graphs
    layers, tensors = len(body.layers), len(body.tensors)
    same = dataclasses.replace(
        plan,
        fingerprint=body.fingerprint,
        on_edge=plan.on_edge[:layers],
        w_bits=plan.w_bits[:layers],
        weight_ratio=plan.weight_ratio[:layers],
        crosses=plan.crosses[:tensors],
        a_bits=plan.a_bits[:tensors],
        activation_low=plan.activation_low[:tensors],
        activation_high=plan.activation_high[:tensors],
    )
    only = autosplit.Plans(plans=(same,), constraints=autosplit.Constraints(), lower_bound=0.0)
    error = autosplit.measure(body, detector.variables, detector.inputs, only)[0].output_error
    return float(error or 0.0)


def jpeg_error(detector: Detector, quality: int) -> float:
    """Measures the relative error of the raw heads where the input went through JPEG."""
    body, _ = detector.graphs
    decoded = scaled(decode_roundtrip(detector.calibration, quality))[:, None]
    return input_error(body, detector.variables, detector.inputs, decoded)
