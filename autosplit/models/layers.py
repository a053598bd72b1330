"""Convolutions and norms as PyTorch and as TensorFlow define them, NHWC."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn

# torch writes the new share (0.1) of a running mean, Linen the old one.
batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
keras_batch_norm = functools.partial(nn.BatchNorm, momentum=0.99, epsilon=1e-3)
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
    features: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    use_bias: bool = False,
    name: str,
) -> nn.Conv:
    """Builds a convolution with torch's symmetric padding.

    XLA's ``"SAME"`` pads a strided convolution more at the end than at the start;
    torch pads ``(kernel - 1) // 2`` on both sides, so the padding is explicit.

    Args:
      features: output channels.
      kernel: odd filter size, the same in height and width.
      stride: filter step, the same in height and width.
      groups: channel groups; the number of input channels for a depthwise one.
      use_bias: add a bias; needless before a batch norm, but some checkpoints have it.
      name: of the submodule.

    Returns:
      A Linen module for NHWC inputs with an HWIO kernel.

    >>> conv(8, 7, 2, name="conv1").padding
    ((3, 3), (3, 3))
    """
    pad = (kernel - 1) // 2
    return _conv(features, kernel, stride, ((pad, pad), (pad, pad)), groups, use_bias, name)


def same_conv(
    features: int, kernel: int, stride: int = 1, *, groups: int = 1, name: str
) -> nn.Conv:
    """As `conv`, with TensorFlow's padding and without bias.

    The output has ``ceil(size / stride)`` pixels; where the padding is odd, the end gets
    the larger part, so at stride 2 an even image is padded at the end alone.
    """
    return _conv(features, kernel, stride, "SAME", groups, False, name)


def _conv(
    features: int, kernel: int, stride: int, padding: Any, groups: int, use_bias: bool, name: str
) -> nn.Conv:
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=padding,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kaiming_fan_out,
        name=name,
    )


def round_channels(channels: float) -> int:
    """Rounds a scaled number of channels to a multiple of 8, at least 8.

    Rounds to the nearest multiple, but never to less than 90 % of the number.

    Args:
      channels: channels times the factor of the network's width.

    Returns:
      Number of channels.

    >>> [round_channels(n) for n in (3, 20, 83, 35.2, 11)]
    [8, 24, 80, 32, 16]
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
