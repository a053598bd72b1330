"""Flax Linen ports of the networks of the experiments, NHWC."""

from autosplit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autosplit.models.detector import make_detector
from autosplit.models.efficientnet_lite import EfficientNetLite
from autosplit.models.googlenet import GoogLeNet, GoogLeNetOutputs
from autosplit.models.mnasnet import MNASNet
from autosplit.models.mobilenet import MobileNetV2
from autosplit.models.mobilenet_v1 import MobileNetV1
from autosplit.models.nms import Detections, non_max_suppression
from autosplit.models.preprocessing import ImageInput, image_input
from autosplit.models.resnet import ResNet
from autosplit.models.yolo import YOLO
from autosplit.models.zoo import MODELS, create_model, variable_shapes

__all__ = [
    "MODELS",
    "YOLO",
    "Checkpoint",
    "Detections",
    "EfficientNetLite",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "ImageInput",
    "MNASNet",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "create_model",
    "image_input",
    "load_checkpoint",
    "make_detector",
    "non_max_suppression",
    "save_checkpoint",
    "variable_shapes",
]
