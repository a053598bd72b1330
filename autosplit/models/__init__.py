"""Flax Linen ports of the networks of the experiments, NHWC."""

from autosplit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autosplit.models.mobilenet import MobileNetV2
from autosplit.models.resnet import ResNet
from autosplit.models.zoo import MODELS, create_model, variable_shapes

__all__ = [
    "MODELS",
    "Checkpoint",
    "MobileNetV2",
    "ResNet",
    "create_model",
    "load_checkpoint",
    "save_checkpoint",
    "variable_shapes",
]
