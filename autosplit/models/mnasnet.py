"""MNASNet, laid out as torchvision's checkpoint is."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from autosplit.models.layers import conv, round_channels

# (kernel, stride of the first block, expansion, output channels, blocks): figure 7a of the
# paper; the first row, a separable convolution without expansion, is written out below.
STAGES = (
    (3, 2, 3, 24, 3),
    (5, 2, 3, 40, 3),
    (5, 2, 6, 80, 3),
    (3, 1, 6, 96, 2),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# The decay of the paper's training; ten thousand steps forget all but 5 % of the start.
batch_norm = functools.partial(nn.BatchNorm, momentum=0.9997, epsilon=1e-5)


class InvertedResidual(nn.Module):
    """Widens by 1x1, filters depthwise, narrows by 1x1 without activation.

    Attributes:
      features: output channels.
      kernel: size of the depthwise filter.
      stride: of the depthwise convolution; the shortcut exists at stride 1 alone.
      expansion: inner channels over input channels.
    """

    features: int
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, use_running_average=not train)
        inner = x.shape[-1] * self.expansion
        y = nn.relu(norm(name="layers_1")(conv(inner, 1, name="layers_0")(x)))
        y = conv(inner, self.kernel, self.stride, groups=inner, name="layers_3")(y)
        y = conv(self.features, 1, name="layers_6")(nn.relu(norm(name="layers_4")(y)))
        y = norm(name="layers_7")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MNASNet(nn.Module):
    """Classifies images with inverted residuals of 3x3 and 5x5, mean, dropout, linear.

    Submodules carry the checkpoint's names with ``.N`` written ``_N``
    (``layers.8.0.layers.3`` is ``layers_8_0/layers_3``); `autosplit.converters` relies
    on it.

    Reference:
      Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile",
      2019, the network B1, which has no squeeze and excitation. Deviation: as
      `autosplit.models.resnet.ResNet` about the running variance.

    Attributes:
      num_classes: length of the output.
      alpha: factor on the channels of everything but the last convolution, above 0.
      stages: rows of (kernel, first stride, expansion, output channels, blocks).
      dropout_rate: before the classifier; needs a ``"dropout"`` key where train is True.
    """

    num_classes: int = 1000
    alpha: float = 1.0
    stages: tuple[tuple[int, int, int, int, int], ...] = STAGES
    dropout_rate: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images f32[N, H, W, 3] to logits f32[N, num_classes]."""
        norm = functools.partial(batch_norm, use_running_average=not train)
        stem, separable = (round_channels(n * self.alpha) for n in (32, 16))
        x = nn.relu(norm(name="layers_1")(conv(stem, 3, 2, name="layers_0")(x)))
        x = nn.relu(norm(name="layers_4")(conv(stem, 3, groups=stem, name="layers_3")(x)))
        x = norm(name="layers_7")(conv(separable, 1, name="layers_6")(x))
        index = 8
        for kernel, first_stride, expansion, channels, blocks in self.stages:
            features = round_channels(channels * self.alpha)
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                name = f"layers_{index}_{block}"
                x = InvertedResidual(features, kernel, stride, expansion, name=name)(x, train)
            index += 1
        x = conv(1280, 1, name=f"layers_{index}")(x)
        x = jnp.mean(nn.relu(norm(name=f"layers_{index + 1}")(x)), axis=(1, 2))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        fan_out = nn.initializers.variance_scaling(1.0, "fan_out", "uniform")
        return nn.Dense(self.num_classes, kernel_init=fan_out, name="classifier_1")(x)
