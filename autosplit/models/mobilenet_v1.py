"""MobileNet-v1, with the arithmetic of TensorFlow's weights and the names of a Sequential."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from autosplit.models.layers import keras_batch_norm, same_conv

# (output channels, stride of the depthwise convolution): table 1 of the paper.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)


class MobileNetV1(nn.Module):
    """Classifies images with depthwise and 1x1 convolutions in turn, mean, dropout, linear.

    Convolution ``i`` is ``features_{i}_0`` and its batch norm ``features_{i}_1``: 0 is the
    stem, ``2b + 1`` the depthwise and ``2b + 2`` the 1x1 convolution of block b from 0.
    A PyTorch build of ``features.{i}.{0,1}`` and ``classifier.1`` has the same names.

    Reference:
      Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile
      Vision Applications", 2017, table 1. Deviations: ReLU6 for ReLU, as in the released
      weights; the last block has stride 1 (the table says 2 and keeps the size).

    Attributes:
      num_classes: length of the output; TensorFlow's weights have 1001, background first.
      blocks: rows of (output channels, stride).
      stem_features: channels of the first convolution.
      dropout_rate: before the classifier; needs a ``"dropout"`` key where train is True.
    """

    num_classes: int = 1000
    blocks: tuple[tuple[int, int], ...] = BLOCKS
    stem_features: int = 32
    dropout_rate: float = 0.001

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images f32[N, H, W, 3] to logits f32[N, num_classes]."""
        norm = functools.partial(keras_batch_norm, use_running_average=not train)

        def unit(x: jax.Array, index: int, filters: nn.Conv) -> jax.Array:
            return nn.relu6(norm(name=f"features_{index}_1")(filters(x)))

        x = unit(x, 0, same_conv(self.stem_features, 3, 2, name="features_0_0"))
        for block, (features, stride) in enumerate(self.blocks):
            index, channels = 2 * block + 1, x.shape[-1]
            name = f"features_{index}_0"
            x = unit(x, index, same_conv(channels, 3, stride, groups=channels, name=name))
            x = unit(x, index + 1, same_conv(features, 1, name=f"features_{index + 1}_0"))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(jnp.mean(x, axis=(1, 2)))
        return nn.Dense(self.num_classes, name="classifier_1")(x)
