"""ResNet-18, -34, -50, -101 and ResNeXt-50 as torchvision has them, ResNet-50 as Keras has it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from autosplit.models.layers import batch_norm, conv


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (ResNet-18 and -34).

    Attributes:
      features: channels of the stage; the block has as many outputs.
      stride: of the first convolution and of the shortcut.
      norm: builds a batch norm.
      use_bias: the convolutions have one.
    """

    features: int
    stride: int = 1
    norm: Callable[..., nn.Module] = batch_norm
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(self.norm, use_running_average=not train)
        filters = functools.partial(conv, use_bias=self.use_bias)
        y = norm(name="bn1")(filters(self.features, 3, self.stride, name="conv1")(x))
        y = norm(name="bn2")(filters(self.features, 3, name="conv2")(nn.relu(y)))
        return nn.relu(y + _shortcut(x, self.features, self.stride, norm, filters))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (ResNet-50, -101, ResNeXt).

    Reference:
      He et al., "Deep Residual Learning for Image Recognition", 2016, figure 5,
      right. Deviation unless ``stride_in_first``: the 3x3 convolution carries the
      stride, not the first 1x1 (the variant called v1.5, which torchvision's weights
      were trained with). Xie et al., "Aggregated Residual Transformations for Deep
      Neural Networks", 2017, figure 3c, for groups.

    Attributes:
      features: channels of the stage; the block has 4 times as many outputs.
      stride: of one convolution and of the shortcut.
      norm: builds a batch norm.
      use_bias: the convolutions have one.
      groups: of the 3x3 convolution (the paper's cardinality).
      group_features: channels of one group in a stage of 64; the two inner convolutions
        have ``features / 64 * groups * group_features`` channels.
      stride_in_first: the first 1x1 convolution carries the stride.
    """

    features: int
    stride: int = 1
    norm: Callable[..., nn.Module] = batch_norm
    use_bias: bool = False
    groups: int = 1
    group_features: int = 64
    stride_in_first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(self.norm, use_running_average=not train)
        filters = functools.partial(conv, use_bias=self.use_bias)
        inner = self.features * self.group_features // 64 * self.groups
        first, second = (self.stride, 1) if self.stride_in_first else (1, self.stride)
        y = nn.relu(norm(name="bn1")(filters(inner, 1, first, name="conv1")(x)))
        y = filters(inner, 3, second, groups=self.groups, name="conv2")(y)
        y = filters(4 * self.features, 1, name="conv3")(nn.relu(norm(name="bn2")(y)))
        y = norm(name="bn3")(y)
        return nn.relu(y + _shortcut(x, 4 * self.features, self.stride, norm, filters))


def _shortcut(x: jax.Array, features: int, stride: int, norm: Any, filters: Any) -> jax.Array:
    """Returns x, or its projection where the block changes the shape."""
    if stride == 1 and x.shape[-1] == features:
        return x
    return norm(name="downsample_1")(filters(features, 1, stride, name="downsample_0")(x))


class ResNet(nn.Module):
    """Classifies images: stem, four stages of residual blocks, mean, linear.

    Submodules carry the names of torchvision's checkpoint with ``.N`` written ``_N``
    (``layer1.0.conv1`` is ``layer1_0/conv1``); `autosplit.converters` relies on it.

    Reference:
      He et al., "Deep Residual Learning for Image Recognition", 2016, table 1.
      Deviations: as `Bottleneck`; in training, Linen updates a running variance
      with the biased estimate where torch takes the unbiased one. Keras pads the
      first pooling with zeros: no difference, since what it pools is not negative.

    Attributes:
      stage_sizes: blocks of each stage.
      block: builds a `BasicBlock` or `Bottleneck` from features and stride.
      num_classes: length of the output.
      features: channels of the stem and of the first stage; doubled at every later one.
      norm: builds a batch norm, everywhere.
      use_bias: the convolutions have one, everywhere.
    """

    stage_sizes: tuple[int, ...]
    block: Callable[..., nn.Module]
    num_classes: int = 1000
    features: int = 64
    norm: Callable[..., nn.Module] = batch_norm
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images f32[N, H, W, 3] to logits f32[N, num_classes]."""
        same = {"norm": self.norm, "use_bias": self.use_bias}
        x = conv(self.features, 7, 2, use_bias=self.use_bias, name="conv1")(x)
        x = nn.relu(self.norm(use_running_average=not train, name="bn1")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, size in enumerate(self.stage_sizes):
            for index in range(size):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"layer{stage + 1}_{index}"
                x = self.block(self.features * 2**stage, stride, name=name, **same)(x, train)
        return nn.Dense(self.num_classes, name="fc")(jnp.mean(x, axis=(1, 2)))
