"""The ports of TensorFlow's networks compute what PyTorch builds of the same papers do."""

import functools

import jax
import numpy as np
import pytest

import autosplit
from autosplit import converters, models
from autosplit.models.efficientnet_lite import STAGES
from autosplit.models.layers import keras_batch_norm
from autosplit.models.mobilenet_v1 import BLOCKS
from autosplit.models.resnet import Bottleneck


def same_conv(torch, inputs, outputs, kernel, stride=1, groups=1):
    """Builds a convolution that pads as TensorFlow does."""

    class SameConv(torch.nn.Conv2d):
        def forward(self, x):
            pads = []
            for size in (x.shape[3], x.shape[2]):
                total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
                pads += [total // 2, total - total // 2]
            return super().forward(torch.nn.functional.pad(x, pads))

    return SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


def norm(torch, channels):
    return torch.nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def mobilenet_v1(torch, blocks, stem, num_classes):
    """Builds MobileNet-v1 of ``features.{i}.{0,1}`` and ``classifier.1``."""

    def unit(*args, **kwargs):
        filters = same_conv(torch, *args, **kwargs)
        return torch.nn.Sequential(filters, norm(torch, filters.out_channels), torch.nn.ReLU6())

    class MobileNetV1(torch.nn.Module):
        def __init__(self):
            super().__init__()
            units, channels = [unit(3, stem, 3, 2)], stem
            for features, stride in blocks:
                units += [unit(channels, channels, 3, stride, channels)]
                units += [unit(channels, features, 1)]
                channels = features
            self.features = torch.nn.Sequential(*units)
            linear = torch.nn.Linear(channels, num_classes)
            self.classifier = torch.nn.Sequential(torch.nn.Identity(), linear)

        def forward(self, x):
            return self.classifier(self.features(x).mean((2, 3)))

    return MobileNetV1()


def efficientnet_lite(torch, stages, num_classes):
    """Builds EfficientNet-Lite at width and depth 1, with the names of its checkpoint."""
    relu6 = torch.nn.functional.relu6

    class Block(torch.nn.Module):
        def __init__(self, inputs, outputs, kernel, stride, expansion):
            super().__init__()
            inner = inputs * expansion
            self.widens, self.adds = expansion > 1, stride == 1 and inputs == outputs
            if self.widens:
                self._expand_conv = same_conv(torch, inputs, inner, 1)
                self._bn0 = norm(torch, inner)
            self._depthwise_conv = same_conv(torch, inner, inner, kernel, stride, inner)
            self._bn1 = norm(torch, inner)
            self._project_conv = same_conv(torch, inner, outputs, 1)
            self._bn2 = norm(torch, outputs)

        def forward(self, x):
            y = relu6(self._bn0(self._expand_conv(x))) if self.widens else x
            y = self._bn2(self._project_conv(relu6(self._bn1(self._depthwise_conv(y)))))
            return x + y if self.adds else y

    class EfficientNetLite(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self._conv_stem, self._bn0 = same_conv(torch, 3, 32, 3, 2), norm(torch, 32)
            blocks, channels = [], 32
            for repeats, kernel, first_stride, expansion, features in stages:
                for index in range(repeats):
                    stride = 1 if index else first_stride
                    blocks += [Block(channels, features, kernel, stride, expansion)]
                    channels = features
            self._blocks = torch.nn.ModuleList(blocks)
            self._conv_head, self._bn1 = same_conv(torch, channels, 1280, 1), norm(torch, 1280)
            self._fc = torch.nn.Linear(1280, num_classes)

        def forward(self, x):
            x = relu6(self._bn0(self._conv_stem(x)))
            for block in self._blocks:
                x = block(x)
            return self._fc(relu6(self._bn1(self._conv_head(x))).mean((2, 3)))

    return EfficientNetLite()


def keras_resnet(torch, torchvision, sizes, num_classes):
    """Turns torchvision's ResNet into Keras': biases, stride in the first 1x1, larger epsilon."""
    blocks = torchvision.models.resnet
    module = blocks.ResNet(blocks.Bottleneck, sizes, num_classes=num_classes)
    for part in module.modules():
        if isinstance(part, blocks.Bottleneck):
            part.conv1.stride, part.conv2.stride = part.conv2.stride, part.conv1.stride
        if isinstance(part, torch.nn.Conv2d):
            part.bias = torch.nn.Parameter(torch.zeros(part.out_channels))
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eps, part.momentum = 1e-3, 0.01
    return module


def small_pair(torch, torchvision, name):
    """Returns a small port without dropout, and a PyTorch build of the same size."""
    if name == "mobilenet_v1":
        blocks = ((16, 1), (24, 2), (24, 1))
        port = models.MobileNetV1(num_classes=7, blocks=blocks, stem_features=8, dropout_rate=0.0)
        return port, mobilenet_v1(torch, blocks, 8, 7)
    if name == "efficientnet_lite":
        stages = ((1, 3, 1, 1, 8), (2, 5, 2, 4, 16), (1, 3, 2, 4, 16), (1, 3, 1, 4, 24))
        rates = {"dropout_rate": 0.0, "drop_rate": 0.0}
        port = models.EfficientNetLite(num_classes=7, stages=stages, **rates)
        return port, efficientnet_lite(torch, stages, 7)
    block = functools.partial(Bottleneck, stride_in_first=True)
    layout = {"norm": keras_batch_norm, "use_bias": True}
    port = models.ResNet(stage_sizes=(1, 1, 1, 1), block=block, num_classes=7, **layout)
    return port, keras_resnet(torch, torchvision, [1, 1, 1, 1], 7)


SMALL = ("mobilenet_v1", "efficientnet_lite", "resnet50_v1")


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_compute_the_same(torch, torchvision, require_parity, name):
    require_parity(*small_pair(torch, torchvision, name))


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_train_the_same(torch, torchvision, require_training_parity, name):
    require_training_parity(*small_pair(torch, torchvision, name))


# (blocks, kernel, first stride, expansion, output channels), scaled by hand: depth 1.1; depth
# 1.2 and width 1.1.
LITE1 = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 40),
    (4, 3, 2, 6, 80),
    (4, 5, 1, 6, 112),
    (5, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LITE2 = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
FULL = {
    "mobilenet_v1": lambda torch, _: mobilenet_v1(torch, BLOCKS, 32, 1000),
    "efficientnet_lite0": lambda torch, _: efficientnet_lite(torch, STAGES, 1000),
    "efficientnet_lite1": lambda torch, _: efficientnet_lite(torch, LITE1, 1000),
    "efficientnet_lite2": lambda torch, _: efficientnet_lite(torch, LITE2, 1000),
    "resnet50_v1": lambda torch, vision: keras_resnet(torch, vision, [3, 4, 6, 3], 1000),
}


@pytest.mark.parametrize("name", ["mobilenet_v1", "efficientnet_lite2", "resnet50_v1"])
def test_keys_and_multiply_accumulates_of_the_full_network(torch, torchvision, name):
    from torch.utils.flop_counter import FlopCounterMode

    model, size = models.create_model(name), models.image_input(name).crop_pixels
    shapes = models.variable_shapes(model)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        module = FULL[name](torch, torchvision).eval()
        module(torch.zeros(1, 3, size, size))
    # Raises unless every key has its place.
    converters.convert(empty(module.state_dict()), shapes)
    graph = autosplit.trace(model.apply, shapes, jax.ShapeDtypeStruct((1, size, size, 3), "f4"))
    assert 2 * sum(layer.macs for layer in graph.layers) == counter.get_total_flops()


def empty(state_dict):
    return {k: np.broadcast_to(np.float32(0), tuple(t.shape)) for k, t in state_dict.items()}


@pytest.mark.heavy
@pytest.mark.parametrize("name", FULL)
def test_the_full_network_computes_the_same(torch, torchvision, require_parity, name):
    size = models.image_input(name).crop_pixels
    images = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    require_parity(models.create_model(name), FULL[name](torch, torchvision), images)
