"""MobileNet-v2, laid out as torchvision's checkpoint is."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from autosplit.models.layers import batch_norm, conv

# (expansion, output channels, blocks, stride of the first block): table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Widens by 1x1, filters depthwise, narrows by 1x1 without activation.

    Reference:
      Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
      2018, table 1 and figure 4d. Without expansion the first 1x1 is left out.

    Attributes:
      features: output channels.
      expansion: inner channels over input channels.
      stride: of the depthwise convolution; the shortcut exists at stride 1 alone.
    """

    features: int
    expansion: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, use_running_average=not train)
        inner = x.shape[-1] * self.expansion
        y, index = x, 0
        if self.expansion != 1:
            y = nn.relu6(norm(name="conv_0_1")(conv(inner, 1, name="conv_0_0")(y)))
            index = 1
        y = conv(inner, 3, self.stride, groups=inner, name=f"conv_{index}_0")(y)
        y = nn.relu6(norm(name=f"conv_{index}_1")(y))
        y = conv(self.features, 1, name=f"conv_{index + 1}")(y)
        y = norm(name=f"conv_{index + 2}")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MobileNetV2(nn.Module):
    """Classifies images with inverted residuals, mean, dropout, linear.

    Submodules carry the checkpoint's names with ``.N`` written ``_N``
    (``features.1.conv.0.0`` is ``features_1/conv_0_0``); `autosplit.converters`
    relies on it.

    Reference:
      Sandler et al., 2018, table 2. Deviation: as `autosplit.models.resnet.ResNet`
      about the running variance.

    Attributes:
      num_classes: length of the output.
      stages: rows of (expansion, output channels, blocks, first stride).
      stem_features: channels of the first convolution.
      last_features: channels of the last convolution.
      dropout_rate: before the classifier; needs a ``"dropout"`` key where train is True.
    """

    num_classes: int = 1000
    stages: tuple[tuple[int, int, int, int], ...] = STAGES
    stem_features: int = 32
    last_features: int = 1280
    dropout_rate: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images f32[N, H, W, 3] to logits f32[N, num_classes]."""
        norm = functools.partial(batch_norm, use_running_average=not train)
        x = conv(self.stem_features, 3, 2, name="features_0_0")(x)
        x = nn.relu6(norm(name="features_0_1")(x))
        index = 1
        for expansion, features, blocks, first_stride in self.stages:
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                name = f"features_{index}"
                x = InvertedResidual(features, expansion, stride, name=name)(x, train)
                index += 1
        x = conv(self.last_features, 1, name=f"features_{index}_0")(x)
        x = jnp.mean(nn.relu6(norm(name=f"features_{index}_1")(x)), axis=(1, 2))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        small_normal = nn.initializers.normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=small_normal, name="classifier_1")(x)
