"""The sections of a darknet cfg that the YOLOv3 family is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from autosplit.errors import InputError

ACTIVATIONS = ("leaky", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convolutional:
    """A convolution, padded by ``size // 2``, with batch norm or a bias, and an activation.

    Attributes:
      in_channels: of what comes in.
      filters: output channels.
      size: of the filter, in pixels, the same in height and width.
      stride: in pixels.
      batch_normalize: batch norm follows; otherwise the convolution has a bias.
      activation: one of `ACTIVATIONS`.
    """

    in_channels: int
    filters: int
    size: int
    stride: int
    batch_normalize: bool
    activation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shortcut:
    """The sum of the section before and of section ``source``."""

    source: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """The sections ``sources``, joined along the channels."""

    sources: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upsample:
    """Every pixel ``stride`` times in height and in width."""

    stride: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maxpool:
    """The largest value in squares of ``size`` pixels, every ``stride`` pixels."""

    size: int
    stride: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yolo:
    """A head: what comes in are raw boxes and scores, ``5 + classes`` numbers per anchor.

    Attributes:
      anchors: (width, height) of this head's own, in pixels of the network's input.
      classes: number of classes.
      stride: pixels of the network's input per cell.
    """

    anchors: tuple[tuple[float, float], ...]
    classes: int
    stride: int


Section = Convolutional | Shortcut | Route | Upsample | Maxpool | Yolo


def with_classes(sections: Sequence[Section], num_classes: int) -> tuple[Section, ...]:
    """Returns the sections with heads for another number of classes.

    Args:
      sections: of `parse_cfg`.
      num_classes: at least 1.

    Returns:
      As many sections; every `Yolo` and the convolution before it are changed.

    Raises:
      InputError: ``num_classes`` is less than 1.
    """
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; expected at least 1.")
    changed = list(sections)
    for index, section in enumerate(sections):
        if isinstance(section, Yolo):
            filters = len(section.anchors) * (5 + num_classes)
            changed[index] = dataclasses.replace(section, classes=num_classes)
            head = changed[index - 1]
            assert isinstance(head, Convolutional)
            changed[index - 1] = dataclasses.replace(head, filters=filters)
    return tuple(changed)
