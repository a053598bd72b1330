"""GoogLeNet, laid out as torchvision's checkpoint is."""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from autosplit.models.layers import batch_norm, conv

# (1x1, 3x3 reduced, 3x3, "5x5" reduced, "5x5", pool projection): table 1 of the paper.
INCEPTIONS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
# Pooling before the block of that name: window, at stride 2.
POOLS = {"inception3a": 3, "inception4a": 3, "inception5a": 2}
# Auxiliary head behind the block of that name.
HEADS = {"inception4a": "aux1", "inception4d": "aux2"}


class GoogLeNetOutputs(NamedTuple):
    """What `GoogLeNet` returns in training, in torchvision's order.

    Attributes:
      logits, aux2, aux1: f32[N, num_classes]; the paper adds both auxiliary losses to the
        loss with weight 0.3.
    """

    logits: jax.Array
    aux2: jax.Array
    aux1: jax.Array


class BasicConv2d(nn.Module):
    """Convolution, batch norm, ReLU.

    Attributes:
      features: output channels.
      kernel: filter size.
      stride: filter step.
    """

    features: int
    kernel: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = batch_norm(epsilon=1e-3, use_running_average=not train, name="bn")
        return nn.relu(norm(conv(self.features, self.kernel, self.stride, name="conv")(x)))


class Inception(nn.Module):
    """Four branches side by side, joined along the channels.

    Attributes:
      channels: see `INCEPTIONS`.
    """

    channels: tuple[int, int, int, int, int, int]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        single, reduced3, out3, reduced5, out5, pooled = self.channels
        a = BasicConv2d(single, name="branch1")(x, train)
        b = BasicConv2d(reduced3, name="branch2_0")(x, train)
        b = BasicConv2d(out3, 3, name="branch2_1")(b, train)
        c = BasicConv2d(reduced5, name="branch3_0")(x, train)
        # 3x3, not the paper's 5x5: so torchvision's weights were ported.
        c = BasicConv2d(out5, 3, name="branch3_1")(c, train)
        d = nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))
        d = BasicConv2d(pooled, name="branch4_1")(d, train)
        return jnp.concatenate((a, b, c, d), axis=-1)


class AuxiliaryHead(nn.Module):
    """Classifies from the middle of the network, for the gradient in training.

    Attributes:
      num_classes: length of the output.
      dropout_rate: before the last linear layer.
    """

    num_classes: int
    dropout_rate: float = 0.7

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = BasicConv2d(128, name="conv")(adaptive_mean(x, 4), train)
        # torch flattens channels first; so do the rows of the checkpoint's matrix.
        x = jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(1024, name="fc1")(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="fc2")(x)


class GoogLeNet(nn.Module):
    """Classifies images with nine inceptions, mean, dropout, linear.

    Submodules carry the checkpoint's names with ``.N`` written ``_N``
    (``inception3a.branch2.0.conv`` is ``inception3a/branch2_0/conv``);
    `autosplit.converters` relies on it.

    Images are scaled to -1..1 (`autosplit.models.image_input`): torchvision's
    ``transform_input``, which turns its usual normalization into that one, is not part
    of the network.

    Reference:
      Szegedy et al., "Going Deeper with Convolutions", 2015, table 1. Deviations, all
      torchvision's: batch norm, no local response norm, 3x3 for 5x5, pooling that rounds
      sizes up. As `autosplit.models.resnet.ResNet` about the running variance; initial
      weights are He's.

    Attributes:
      num_classes: length of the outputs.
      aux_heads: has the two auxiliary heads, as the published checkpoint does; they
        compute in training only.
      dropout_rate: before the classifier; needs a ``"dropout"`` key where train is True.
      aux_dropout_rate: in the auxiliary heads.
    """

    num_classes: int = 1000
    aux_heads: bool = False
    dropout_rate: float = 0.2
    aux_dropout_rate: float = 0.7

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array | GoogLeNetOutputs:
        """Maps scaled images f32[N, H, W, 3] to logits f32[N, num_classes].

        Returns:
          The logits; `GoogLeNetOutputs` in training where there are auxiliary heads.
        """
        auxiliary: dict[str, jax.Array] = {}
        x = ceil_max_pool(BasicConv2d(64, 7, 2, name="conv1")(x, train), 3)
        x = BasicConv2d(64, name="conv2")(x, train)
        x = BasicConv2d(192, 3, name="conv3")(x, train)
        for name, channels in INCEPTIONS.items():
            x = ceil_max_pool(x, POOLS[name]) if name in POOLS else x
            x = Inception(channels, name=name)(x, train)
            # Initialization without training must make their parameters, too.
            if name in HEADS and self.aux_heads and (train or self.is_initializing()):
                head = functools.partial(AuxiliaryHead, name=HEADS[name])
                auxiliary[HEADS[name]] = head(self.num_classes, self.aux_dropout_rate)(x, train)
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(jnp.mean(x, axis=(1, 2)))
        logits = nn.Dense(self.num_classes, name="fc")(x)
        return GoogLeNetOutputs(logits, **auxiliary) if train and auxiliary else logits


def ceil_max_pool(x: jax.Array, window: int) -> jax.Array:
    """Pools maxima at stride 2 without padding, the last window possibly incomplete.

    Args:
      x: f32[N, H, W, C], H and W at least the window.
      window: 2 or 3, height and width in pixels.

    Returns:
      f32[N, ceil((H - window) / 2) + 1, ceil((W - window) / 2) + 1, C].

    >>> ceil_max_pool(jnp.arange(4.0).reshape(1, 4, 1, 1).repeat(4, 2), 3)[0, :, 0, 0].tolist()
    [2.0, 3.0]
    """
    # The remainder is 1 where the last complete window leaves a pixel: pad by as much more.
    pads = tuple((0, (size - window) % 2) for size in x.shape[1:3])
    return nn.max_pool(x, (window, window), strides=(2, 2), padding=pads)


def adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """Averages over ``size x size`` windows that cover the image and may overlap.

    Window i of n pixels is ``floor(i * n / size)`` to ``ceil((i + 1) * n / size)``, as in
    torch's adaptive pooling.

    Args:
      x: f32[N, H, W, C].
      size: height and width of the result.

    Returns:
      f32[N, size, size, C].

    >>> adaptive_mean(jnp.arange(3.0).reshape(1, 3, 1, 1), 2)[0, :, 0, 0].tolist()
    [0.5, 1.5]
    """
    rows, columns = (_window_weights(length, size) for length in x.shape[1:3])
    return jnp.einsum("ih,jw,nhwc->nijc", rows, columns, x)


def _window_weights(length: int, size: int) -> np.ndarray:
    """Returns f32[size, length], each row the mean over one window."""
    index, pixel = np.arange(size)[:, None], np.arange(length)
    inside = (pixel >= index * length // size) & (pixel < -(-(index + 1) * length // size))
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
