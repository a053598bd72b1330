"""The models that autosplit brings along, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from autosplit.errors import InputError
from autosplit.models.efficientnet_lite import EfficientNetLite
from autosplit.models.googlenet import GoogLeNet
from autosplit.models.layers import keras_batch_norm
from autosplit.models.mnasnet import MNASNet
from autosplit.models.mobilenet import MobileNetV2
from autosplit.models.mobilenet_v1 import MobileNetV1
from autosplit.models.resnet import BasicBlock, Bottleneck, ResNet
from autosplit.models.yolo import create_yolo

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet18": functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock),
    "resnet34": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock),
    "resnet50": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=Bottleneck),
    "resnet50_v1": functools.partial(
        ResNet,
        stage_sizes=(3, 4, 6, 3),
        block=functools.partial(Bottleneck, stride_in_first=True),
        norm=keras_batch_norm,
        use_bias=True,
    ),
    "resnet101": functools.partial(ResNet, stage_sizes=(3, 4, 23, 3), block=Bottleneck),
    "resnext50_32x4d": functools.partial(
        ResNet,
        stage_sizes=(3, 4, 6, 3),
        block=functools.partial(Bottleneck, groups=32, group_features=4),
    ),
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "mnasnet1_0": MNASNet,
    "googlenet": GoogLeNet,
    "googlenet_aux": functools.partial(GoogLeNet, aux_heads=True),
    "efficientnet_lite0": EfficientNetLite,
    "efficientnet_lite1": functools.partial(EfficientNetLite, depth=1.1),
    "efficientnet_lite2": functools.partial(
        EfficientNetLite, width=1.1, depth=1.2, dropout_rate=0.3
    ),
    "yolov3": functools.partial(create_yolo, "yolov3"),
    "yolov3_spp": functools.partial(create_yolo, "yolov3_spp"),
    "yolov3_tiny": functools.partial(create_yolo, "yolov3_tiny"),
}


def create_model(name: str, num_classes: int = 1000) -> nn.Module:
    """Builds a model of `MODELS`.

    Args:
      name: one of the keys of `MODELS`.
      num_classes: length of the output; of a detector, of each anchor's class scores.

    Returns:
      A Linen module that maps f32[N, H, W, 3] to logits f32[N, num_classes]; a detector maps it
      to raw heads (`autosplit.models.yolo.YOLO`).

    Raises:
      InputError: the name is not in `MODELS`.

    >>> create_model("resnet18", num_classes=10).stage_sizes
    (2, 2, 2, 2)
    """
    if name not in MODELS:
        raise InputError(
            f"there is no model named {name!r}; expected one of {', '.join(MODELS)}. "
            "Any other JAX function can be traced as it is, without a name."
        )
    return MODELS[name](num_classes=num_classes)


def variable_shapes(model: nn.Module, image_size: int = 224) -> dict[str, Any]:
    """Returns the shapes of a model's variables without computing any.

    Args:
      model: as `create_model` returns it.
      image_size: height and width in pixels; the variables do not depend on it.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` with a jax.ShapeDtypeStruct in every leaf.

    >>> shapes = variable_shapes(create_model("resnet18"))
    >>> shapes["params"]["fc"]["kernel"].shape
    (512, 1000)
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), images))
