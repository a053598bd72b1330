"""ResNet-18, -34 and -50, laid out as torchvision's checkpoints are."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# torch writes the new share (0.1) of a running mean, Linen the old one.
batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(features: int, kernel: int, stride: int = 1, *, groups: int = 1, name: str) -> nn.Conv:
    """Builds a convolution without bias and with torch's symmetric padding.

    XLA's ``"SAME"`` pads a strided convolution more at the end than at the start;
    torch pads ``(kernel - 1) // 2`` on both sides, so the padding is explicit.

    Args:
      features: output channels.
      kernel: odd filter size, the same in height and width.
      stride: filter step, the same in height and width.
      groups: channel groups; the number of input channels for a depthwise one.
      name: of the submodule.

    Returns:
      A Linen module for NHWC inputs with an HWIO kernel.

    >>> conv(8, 7, 2, name="conv1").padding
    ((3, 3), (3, 3))
    """
    pad = (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        feature_group_count=groups,
        use_bias=False,
        kernel_init=kaiming_fan_out,
        name=name,
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (ResNet-18 and -34).

    Attributes:
      features: channels of the stage; the block has as many outputs.
      stride: of the first convolution and of the shortcut.
    """

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, use_running_average=not train)
        y = norm(name="bn1")(conv(self.features, 3, self.stride, name="conv1")(x))
        y = norm(name="bn2")(conv(self.features, 3, name="conv2")(nn.relu(y)))
        return nn.relu(y + _shortcut(x, self.features, self.stride, norm))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (ResNet-50).

    Reference:
      He et al., "Deep Residual Learning for Image Recognition", 2016, figure 5,
      right. Deviation: the 3x3 convolution carries the stride, not the first 1x1
      (the variant called v1.5, which torchvision's weights were trained with).

    Attributes:
      features: channels of the two inner convolutions; the block has 4 times as many outputs.
      stride: of the 3x3 convolution and of the shortcut.
    """

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, use_running_average=not train)
        y = nn.relu(norm(name="bn1")(conv(self.features, 1, name="conv1")(x)))
        y = nn.relu(norm(name="bn2")(conv(self.features, 3, self.stride, name="conv2")(y)))
        y = norm(name="bn3")(conv(4 * self.features, 1, name="conv3")(y))
        return nn.relu(y + _shortcut(x, 4 * self.features, self.stride, norm))


def _shortcut(x: jax.Array, features: int, stride: int, norm: Any) -> jax.Array:
    """Returns x, or its projection where the block changes the shape."""
    if stride == 1 and x.shape[-1] == features:
        return x
    return norm(name="downsample_1")(conv(features, 1, stride, name="downsample_0")(x))


class ResNet(nn.Module):
    """Classifies images: stem, four stages of residual blocks, mean, linear.

    Submodules carry the checkpoint's names with ``.N`` written ``_N``
    (``layer1.0.conv1`` is ``layer1_0/conv1``); `autosplit.converters` relies on it.

    Reference:
      He et al., "Deep Residual Learning for Image Recognition", 2016, table 1.
      Deviations: as `Bottleneck`; in training, Linen updates a running variance
      with the biased estimate where torch takes the unbiased one.

    Attributes:
      stage_sizes: blocks of each stage.
      block: `BasicBlock` or `Bottleneck`.
      num_classes: length of the output.
      features: channels of the stem and of the first stage; doubled at every later one.
    """

    stage_sizes: tuple[int, ...]
    block: type[BasicBlock] | type[Bottleneck]
    num_classes: int = 1000
    features: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images f32[N, H, W, 3] to logits f32[N, num_classes]."""
        x = conv(self.features, 7, 2, name="conv1")(x)
        x = nn.relu(batch_norm(use_running_average=not train, name="bn1")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, size in enumerate(self.stage_sizes):
            for index in range(size):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"layer{stage + 1}_{index}"
                x = self.block(self.features * 2**stage, stride, name=name)(x, train)
        return nn.Dense(self.num_classes, name="fc")(jnp.mean(x, axis=(1, 2)))
