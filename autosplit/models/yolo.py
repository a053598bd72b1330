"""The YOLOv3 family: detectors built from the sections of a darknet cfg."""

from __future__ import annotations

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp

from autosplit.errors import InputError
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.models.darknet_sections import (
    Convolutional,
    Maxpool,
    Route,
    Section,
    Shortcut,
    Upsample,
    Yolo,
    with_classes,
)

NAMES = ("yolov3", "yolov3_spp", "yolov3_tiny")
LEAKY_SLOPE = 0.1
# Darknet adds 1e-6 to the standard deviation on a CPU, 1e-5 to the variance on a GPU.
ULTRALYTICS_EPSILON = 1e-4


def create_yolo(name: str, num_classes: int = 80, epsilon: float = ULTRALYTICS_EPSILON) -> YOLO:
    """Builds a detector from a cfg of this package.

    Args:
      name: one of `NAMES`.
      num_classes: at least 1; changes the heads alone.
      epsilon: of batch norm; see `YOLO`.

    Returns:
      The module.

    Raises:
      InputError: the name is not in `NAMES`, or ``num_classes`` is less than 1.

    >>> len(create_yolo("yolov3").sections), create_yolo("yolov3_tiny").strides
    (107, (32, 16))
    """
    if name not in NAMES:
        raise InputError(
            f"there is no cfg named {name!r}; expected one of {', '.join(NAMES)}. Build a cfg of "
            "your own with YOLO(sections=parse_cfg(text))."
        )
    path = pathlib.Path(__file__).with_name("darknet") / f"{name}.cfg"
    sections = parse_cfg(path.read_text(encoding="utf-8"))
    return YOLO(sections=with_classes(sections, num_classes), epsilon=epsilon)


class ConvolutionalBlock(nn.Module):
    """A convolution with batch norm or a bias, and its activation.

    Attributes:
      section: what it is built from.
      epsilon: of batch norm.
    """

    section: Convolutional
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        section, pad = self.section, self.section.size // 2
        x = nn.Conv(
            section.filters,
            (section.size, section.size),
            strides=(section.stride, section.stride),
            padding=((pad, pad), (pad, pad)),
            use_bias=not section.batch_normalize,
            name="Conv2d",
        )(x)
        if section.batch_normalize:
            # Linen writes the old share of a running mean; the new one is 0.03.
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.97,
                epsilon=self.epsilon,
                name="BatchNorm2d",
            )(x)
        return nn.leaky_relu(x, LEAKY_SLOPE) if section.activation == "leaky" else x


class YOLO(nn.Module):
    """Detects objects: a convolutional body, and a head of raw boxes and scores for each scale.

    Submodules carry the names of ultralytics' checkpoints with ``.N`` written
    ``_N`` (``module_list.0.Conv2d`` is ``module_list_0/Conv2d``);
    `autosplit.converters` relies on it. N counts the sections behind ``[net]``.

    Reference:
      Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018; ultralytics'
      yolov3 of 2020 for names, epsilon and momentum. Deviations: a pool of size 2
      and stride 1 (YOLOv3-tiny) is padded right and below with minus infinity, as
      darknet does it, where ultralytics pads with 0; in training, the running
      variance takes the biased estimate, as in `autosplit.models.resnet.ResNet`.

    Attributes:
      sections: of `parse_cfg` or `create_yolo`.
      epsilon: of batch norm.
    """

    sections: tuple[Section, ...]
    epsilon: float = ULTRALYTICS_EPSILON

    @property
    def heads(self) -> tuple[Yolo, ...]:
        """The sections whose inputs are returned, in that order."""
        return tuple(section for section in self.sections if isinstance(section, Yolo))

    @property
    def anchors(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """(width, height) in pixels of the network's input, for each head."""
        return tuple(head.anchors for head in self.heads)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the network's input per cell, for each head."""
        return tuple(head.stride for head in self.heads)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, ...]:
        """Maps images f32[N, H, W, 3] in 0..1 to raw heads f32[N, H/s, W/s, B * (5 + C)].

        There is one head for each stride s, the coarsest first; B anchors, C classes.
        H and W are multiples of the largest stride.
        """
        self._require_size(images)
        outputs: list[jax.Array] = []
        for index, section in enumerate(self.sections):
            before = outputs[-1] if outputs else images
            if isinstance(section, Convolutional):
                name = f"module_list_{index}"
                after = ConvolutionalBlock(section, self.epsilon, name=name)(before, train)
            elif isinstance(section, Shortcut):
                after = before + outputs[section.source]
            elif isinstance(section, Route):
                after = _join([outputs[place] for place in section.sources])
            elif isinstance(section, Upsample):
                after = _repeat_pixels(before, section.stride)
            elif isinstance(section, Maxpool):
                after = _max_pool(before, section)
            else:
                after = before
            outputs.append(after)
        pairs = zip(self.sections, outputs, strict=True)
        return tuple(output for section, output in pairs if isinstance(section, Yolo))

    def _require_size(self, images: jax.Array) -> None:
        multiple = max(self.strides, default=1)
        if images.ndim != 4 or any(length % multiple for length in images.shape[1:3]):
            raise InputError(
                f"the images have the shape {list(images.shape)}; expected [N, H, W, 3] with H "
                f"and W multiples of {multiple}. Letterbox photographs to such a size."
            )


def _join(maps: list[jax.Array]) -> jax.Array:
    return maps[0] if len(maps) == 1 else jnp.concatenate(maps, axis=-1)


def _repeat_pixels(x: jax.Array, times: int) -> jax.Array:
    """Enlarges by the nearest neighbour; as one broadcast, the tracer sees one layer."""
    batch, height, width, channels = x.shape
    shape = (batch, height, times, width, times, channels)
    x = jnp.broadcast_to(x[:, :, None, :, None, :], shape)
    return x.reshape(batch, height * times, width * times, channels)


def _max_pool(x: jax.Array, section: Maxpool) -> jax.Array:
    """Pads by ``size - 1`` pixels in all, the odd one right and below."""
    before = (section.size - 1) // 2
    pad = (before, section.size - 1 - before)
    window, strides = (section.size,) * 2, (section.stride,) * 2
    return nn.max_pool(x, window, strides, padding=(pad, pad))
