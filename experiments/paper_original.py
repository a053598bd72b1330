"""Auto-Split's own proof of concept: its ResNet-50 chart, and the equations behind it.

Reference: the chart and the latency simulator of the authors' proof of concept (KDD 2021,
MIT licence). The equations are told here in our own words and with their slips, so that
its chart can be taken apart; nothing else uses them.
"""

from __future__ import annotations

import collections
import dataclasses
import math

from autosplit.hardware import EYERISS, TPU, Tiled

UPLINK_BITS_PER_S = 3 * 1024**2
RAW_BITS = 8 * 224 * 224 * 3
CLOUD_BITS = 16
CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv:
    """One convolution of ResNet-50, in the order of torchvision's modules."""

    name: str
    kernel: int
    stride: int
    in_size: int
    in_channels: int
    out_channels: int

    @property
    def weights(self) -> int:
        """Elements of the weight."""
        return self.in_channels * self.out_channels * self.kernel**2

    @property
    def outputs(self) -> int:
        """Elements of the output."""
        return self.out_channels * (self.in_size // self.stride) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of the chart.

    Attributes:
      label: on the chart: bits of weights, index of the split layer, bits of activations.
        The bits are *budgets* of its search (averages over the layers), not the bits of
        any layer.
      value: latency over CLOUD16.
      split: index of the last convolution on the edge; -1 cloud-only, 52 edge-only.
      w_bits, a_bits: on the edge, for the estimate; layers may differ in the original.
      sent_bits: of the tensor that is sent.
    """

    label: str
    value: float
    split: int
    w_bits: int
    a_bits: int
    sent_bits: int


LAST = 52
BARS = (
    Bar(label="8_12_4", value=0.496, split=12, w_bits=8, a_bits=8, sent_bits=4),
    Bar(label="8_2_4", value=0.677, split=2, w_bits=8, a_bits=8, sent_bits=4),
    # At 6 bits the tensor would take 0.661: only 7 fit.
    Bar(label="8_12_6", value=0.741, split=12, w_bits=8, a_bits=8, sent_bits=7),
    Bar(label="8_12_8", value=0.824, split=12, w_bits=8, a_bits=8, sent_bits=8),
    Bar(label="U2", value=0.911, split=LAST, w_bits=2, a_bits=2, sent_bits=2),
    Bar(label="U4", value=0.929, split=LAST, w_bits=4, a_bits=4, sent_bits=4),
    Bar(label="U6", value=0.944, split=LAST, w_bits=6, a_bits=6, sent_bits=6),
    Bar(label="U8", value=0.962, split=LAST, w_bits=8, a_bits=8, sent_bits=8),
    Bar(label="CLOUD16", value=1.0, split=-1, w_bits=16, a_bits=16, sent_bits=8),
)


def resnet50_convs() -> tuple[Conv, ...]:
    """Returns its 53 convolutions; the projection of a stage comes after its first block.

    >>> [resnet50_convs()[i].name for i in (2, 12)]
    ['layer1_0/conv2', 'layer2_0/conv2']
    """
    convs = [Conv(name="conv1", kernel=7, stride=2, in_size=224, in_channels=3, out_channels=64)]
    size, channels = 56, 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            small = size // stride
            shapes = [
                ("conv1", 1, 1, size, channels, inner),
                ("conv2", 3, stride, size, inner, inner),
                ("conv3", 1, 1, small, inner, 4 * inner),
            ]
            if not block:
                shapes.append(("downsample_0", 1, stride, size, channels, 4 * inner))
            convs += [
                Conv(name=f"layer{stage + 1}_{block}/{name}", kernel=kernel, stride=step,
                     in_size=pixels, in_channels=inputs, out_channels=outputs)
                for name, kernel, step, pixels, inputs, outputs in shapes
            ]  # fmt: skip
            size, channels = small, 4 * inner
    return tuple(convs)


def weights_s(device: Tiled, conv: Conv, w_bits: int) -> float:
    """Returns the seconds in which the weights of a layer are loaded."""
    return device.dma_cycles_per_byte * conv.weights * w_bits / 8 / device.clock_hz


def tiles_s(device: Tiled, conv: Conv, a_bits: int) -> float:
    """Returns the seconds of a layer's tiles as the proof of concept counts them.

    ``sum over tiles of max(dma * tile * a_bits / 8, rows * ceil(filters / tile_filters)
    * ceil(a_bits / 8) + filters * columns * ceil(rows / adds))``; the second term in the sum
    not for the first channels.

    A multiplier row does all taps of a kernel at once. After the first one, windows
    reach back by ``kernel - 1`` and still step by a whole tile, so pixels are left out;
    the rows of outputs are ``n - K / S + 1``, for want of a bracket.
    """
    heights = _windows(conv, device.tile_height, rows=True)
    widths = _windows(conv, device.tile_width, rows=False)
    channels = collections.Counter(
        (min(device.tile_channels, conv.in_channels - first), first > 0)
        for first in range(0, conv.in_channels, device.tile_channels)
    )
    passes = math.ceil(conv.out_channels / device.tile_filters) * math.ceil(a_bits / 8)
    cycles = 0.0
    for (high, rows), count_h in heights.items():
        for (wide, columns), count_w in widths.items():
            adds = conv.out_channels * columns * math.ceil(rows / device.adds_per_cycle)
            for (deep, adds_up), count_c in channels.items():
                dma = device.dma_cycles_per_byte * deep * high * wide * a_bits / 8
                busy = rows * passes + adds * adds_up
                cycles += count_h * count_w * count_c * max(dma, busy)
    return cycles / device.clock_hz


def _windows(conv: Conv, tile: int, *, rows: bool) -> collections.Counter[tuple[int, int]]:
    """Counts the windows along one axis by their input pixels and output pixels."""
    found: collections.Counter[tuple[int, int]] = collections.Counter()
    for first in range(0, conv.in_size, tile):
        start = first - (conv.kernel - 1) * (first > 0)
        pixels = min(start + tile, conv.in_size) - start
        # The slip: only the columns have the bracket.
        steps = (pixels - conv.kernel) / conv.stride
        if rows:
            steps = pixels - conv.kernel / conv.stride
        found[pixels, 1 if pixels < conv.kernel else int(steps) + 1] += 1
    return found


def sent_s(bits: float) -> float:
    """Returns the seconds of a transmission."""
    return bits / UPLINK_BITS_PER_S


def stages_of(bar: Bar) -> dict[str, float]:
    """Returns the seconds of a bar as the proof of concept charges it.

    Convolutions alone; of the tensors that cross, only the output of the split layer.

    Returns:
      ``transmission``, ``edge weights``, ``edge tiles`` and ``cloud``.
    """
    convs = resnet50_convs()
    edge, cloud = convs[: bar.split + 1], convs[bar.split + 1 :]
    if bar.split < 0:
        sent = RAW_BITS
    else:
        # It sends the answer of an edge-only network to the cloud.
        sent = (CLASSES if bar.split == LAST else edge[-1].outputs) * bar.sent_bits
    return {
        "transmission": sent_s(sent),
        "edge weights": sum(weights_s(EYERISS, conv, bar.w_bits) for conv in edge),
        "edge tiles": sum(tiles_s(EYERISS, conv, bar.a_bits) for conv in edge),
        "cloud": sum(
            weights_s(TPU, conv, CLOUD_BITS) + tiles_s(TPU, conv, CLOUD_BITS) for conv in cloud
        ),
    }
