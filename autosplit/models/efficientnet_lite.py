"""EfficientNet-Lite, laid out as the PyTorch port of TensorFlow's weights is."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from autosplit.models.layers import keras_batch_norm, round_channels, same_conv

# (blocks, kernel, stride of the first block, expansion, output channels): table 1 of the
# EfficientNet paper.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class MBConv(nn.Module):
    """Widens by 1x1, filters depthwise, narrows by 1x1 without activation.

    Attributes:
      features: output channels.
      kernel: size of the depthwise filter.
      stride: of the depthwise convolution; the shortcut exists at stride 1 alone.
      expansion: inner channels over input channels; at 1 the first 1x1 is left out.
      drop_rate: share of the images of a batch that skip the block in training.
    """

    features: int
    kernel: int
    stride: int
    expansion: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(keras_batch_norm, use_running_average=not train)
        inner = x.shape[-1] * self.expansion
        y = x
        if self.expansion != 1:
            y = nn.relu6(norm(name="_bn0")(same_conv(inner, 1, name="_expand_conv")(y)))
        filters = same_conv(
            inner, self.kernel, self.stride, groups=inner, name="_depthwise_conv"
        )
        y = nn.relu6(norm(name="_bn1")(filters(y)))
        y = norm(name="_bn2")(same_conv(self.features, 1, name="_project_conv")(y))
        if self.stride != 1 or x.shape[-1] != self.features:
            return y
        whole_images = (1, 2, 3)
        drop = nn.Dropout(self.drop_rate, broadcast_dims=whole_images, deterministic=not train)
        return x + drop(y)


class EfficientNetLite(nn.Module):
    """Classifies images with inverted residuals of 3x3 and 5x5, mean, dropout, linear.

    Submodules carry the checkpoint's names with ``.N`` written ``_N``
    (``_blocks.3._bn0`` is ``_blocks_3/_bn0``); `autosplit.converters` relies on it.

    Reference:
      Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
      Networks", 2019, table 1 and section 3.3; "lite" is TensorFlow's variant: ReLU6 for
      swish, no squeeze and excitation, stem, last convolution and the number of blocks of
      the first and last stage not scaled.

    Attributes:
      num_classes: length of the output.
      width: factor on the channels of the stages.
      depth: factor on the blocks of the inner stages, rounded up.
      stages: rows of (blocks, kernel, first stride, expansion, output channels).
      stem_features: channels of the first convolution.
      last_features: channels of the last convolution.
      dropout_rate: before the classifier; needs a ``"dropout"`` key where train is True.
      drop_rate: of the last block (`MBConv`), falling linearly to 0 at the first.
    """

    num_classes: int = 1000
    width: float = 1.0
    depth: float = 1.0
    stages: tuple[tuple[int, int, int, int, int], ...] = STAGES
    stem_features: int = 32
    last_features: int = 1280
    dropout_rate: float = 0.2
    drop_rate: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images f32[N, H, W, 3] to logits f32[N, num_classes]."""
        norm = functools.partial(keras_batch_norm, use_running_average=not train)
        stem = same_conv(self.stem_features, 3, 2, name="_conv_stem")
        x = nn.relu6(norm(name="_bn0")(stem(x)))
        blocks = scaled_blocks(self.stages, self.width, self.depth)
        for index, (kernel, stride, expansion, features) in enumerate(blocks):
            rate = self.drop_rate * index / len(blocks)
            name = f"_blocks_{index}"
            x = MBConv(features, kernel, stride, expansion, rate, name=name)(x, train)
        x = nn.relu6(norm(name="_bn1")(same_conv(self.last_features, 1, name="_conv_head")(x)))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(jnp.mean(x, axis=(1, 2)))
        return nn.Dense(self.num_classes, name="_fc")(x)


def scaled_blocks(
    stages: Sequence[tuple[int, int, int, int, int]], width: float, depth: float
) -> list[tuple[int, int, int, int]]:
    """Lists the blocks of a scaled network, those of the first and last stage not multiplied.

    Args:
      stages: rows of (blocks, kernel, first stride, expansion, output channels).
      width: factor on the output channels.
      depth: factor on the blocks, rounded up.

    Returns:
      (kernel, stride, expansion, output channels) of every block.

    >>> [len(scaled_blocks(STAGES, 1.0, depth)) for depth in (1.0, 1.1, 1.2)]
    [16, 21, 21]
    """
    rows = []
    for stage, (repeats, kernel, first_stride, expansion, channels) in enumerate(stages):
        is_inner = 0 < stage < len(stages) - 1
        features = round_channels(channels * width)
        for block in range(math.ceil(repeats * depth) if is_inner else repeats):
            rows.append((kernel, first_stride if block == 0 else 1, expansion, features))
    return rows
