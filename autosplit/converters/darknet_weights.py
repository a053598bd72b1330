"""Reads darknet's ``.weights`` files into state dicts, and writes them."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np

from autosplit.converters.foreign_file import existing_file
from autosplit.errors import ConversionError, InputError
from autosplit.files import write_bytes
from autosplit.models.darknet_sections import Convolutional, Section

# Where the published backbones end: darknet53.conv.74 of YOLOv3, yolov3-tiny.conv.15.
BACKBONE_SECTIONS = (75, 15)
_BATCH_NORM = ("bias", "weight", "running_mean", "running_var")
_FLOAT = np.dtype("<f4")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DarknetWeights:
    """What a ``.weights`` file holds.

    Attributes:
      version: major, minor, revision.
      images_seen: in training.
      num_sections: so many sections of the cfg are covered, from the first.
      state_dict: f32 arrays by ultralytics' keys, ``module_list.{i}.Conv2d.weight`` and so on.
    """

    version: tuple[int, int, int]
    images_seen: int
    num_sections: int
    state_dict: Mapping[str, np.ndarray]


def read_darknet_weights(
    path: str | os.PathLike[str], sections: Sequence[Section], num_sections: int | None = None
) -> DarknetWeights:
    """Reads a ``.weights`` file of a cfg.

    The file has three int32 (version), the number of images seen (int64, or int32
    before version 0.2) and then float32 for each convolution in the order of the cfg:
    beta, gamma, running mean, running variance and kernel, or bias and kernel.

    Args:
      path: of the file.
      sections: of `autosplit.models.darknet_cfg.parse_cfg`.
      num_sections: the file stops behind so many. None finds it out from the number of
        floats: all of them, or one of `BACKBONE_SECTIONS`.

    Returns:
      The contents. Of a backbone, ``{**to_state_dict(initial), **weights.state_dict}`` is
      a whole state dict.

    Raises:
      InputError: there is no such file, or there are fewer sections.
      ConversionError: it is truncated, too long or of another cfg.
    """
    if num_sections is not None and not 0 <= num_sections <= len(sections):
        raise InputError(f"num_sections is {num_sections}; expected 0 to {len(sections)}.")
    path = existing_file(path, "a darknet .weights file")
    content = path.read_bytes()
    version, images_seen, header_bytes = _header(path, content)
    covered = _covered(path, len(content) - header_bytes, sections, num_sections)
    floats = np.frombuffer(content, _FLOAT, offset=header_bytes)
    state_dict, position = {}, 0
    for key, shape in _tensors(sections[:covered]):
        size = math.prod(shape)
        state_dict[key] = floats[position : position + size].reshape(shape).astype(np.float32)
        position += size
    return DarknetWeights(
        version=version, images_seen=images_seen, num_sections=covered, state_dict=state_dict
    )


def write_darknet_weights(
    path: str | os.PathLike[str], sections: Sequence[Section], weights: DarknetWeights
) -> None:
    """Writes a ``.weights`` file; of what `read_darknet_weights` read, byte by byte the same.

    Args:
      path: of the file; written whole or not at all.
      sections: of the cfg.
      weights: its ``state_dict`` has every array of the first ``num_sections`` sections;
        ``num_batches_tracked`` is left out, since darknet has no place for it.

    Raises:
      ConversionError: names the keys that are missing, left over or misshapen.
    """
    expected = dict(_tensors(sections[: weights.num_sections]))
    found = {
        key: np.asarray(value)
        for key, value in weights.state_dict.items()
        if not key.endswith("num_batches_tracked")
    }
    wrong = [
        f"{key} {found[key].shape if key in found else 'missing'}, expected {shape}"
        for key, shape in expected.items()
        if key not in found or found[key].shape != shape
    ]
    wrong += [f"{key} left over" for key in found if key not in expected]
    if wrong:
        raise ConversionError(
            f"{len(wrong)} arrays do not fit the first {weights.num_sections} sections of the cfg: "
            f"{'; '.join(wrong[:10])}. Check the cfg and its number of classes."
        )
    seen = "<q" if _has_long_count(weights.version) else "<i"
    header = struct.pack("<3i", *weights.version) + struct.pack(seen, weights.images_seen)
    body = (np.ascontiguousarray(found[key], _FLOAT).tobytes() for key in expected)
    write_bytes(path, header + b"".join(body))


def count_floats(sections: Sequence[Section]) -> int:
    """Returns how many floats a ``.weights`` file has for these sections.

    >>> count_floats([Convolutional(in_channels=3, filters=2, size=1, stride=1,
    ...                             batch_normalize=True, activation="leaky")])
    14
    """
    return sum(math.prod(shape) for _, shape in _tensors(sections))


def _tensors(sections: Sequence[Section]) -> list[tuple[str, tuple[int, ...]]]:
    """Returns key and shape of every array, in the order of the file."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for index, section in enumerate(sections):
        if not isinstance(section, Convolutional):
            continue
        stem, filters = f"module_list.{index}", section.filters
        if section.batch_normalize:
            found += [(f"{stem}.BatchNorm2d.{leaf}", (filters,)) for leaf in _BATCH_NORM]
        else:
            found.append((f"{stem}.Conv2d.bias", (filters,)))
        kernel = (filters, section.in_channels, section.size, section.size)
        found.append((f"{stem}.Conv2d.weight", kernel))
    return found


def _has_long_count(version: Sequence[int]) -> bool:
    """Tells whether the number of images seen has 64 bits; a larger number marks old files."""
    major, minor, _ = version
    return 10 * major + minor >= 2 and major < 1000 and minor < 1000


def _header(path: pathlib.Path, content: bytes) -> tuple[tuple[int, int, int], int, int]:
    """Returns version, number of images seen, and the header's length in bytes."""
    try:
        major, minor, revision = struct.unpack_from("<3i", content)
        version = (major, minor, revision)
        seen = "<q" if _has_long_count(version) else "<i"
        (images_seen,) = struct.unpack_from(seen, content, 12)
    except struct.error as error:
        raise ConversionError(
            f"{path} has {len(content)} bytes, less than a header; expected darknet weights. "
            "Download it again."
        ) from error
    return version, images_seen, 12 + struct.calcsize(seen)


def _covered(
    path: pathlib.Path, num_bytes: int, sections: Sequence[Section], wanted: int | None
) -> int:
    """Returns how many sections a file with so many bytes behind its header covers."""
    places = [len(sections), *(n for n in BACKBONE_SECTIONS if n < len(sections))]
    expected = {
        place: count_floats(sections[:place]) for place in (places if wanted is None else [wanted])
    }
    for place, floats in expected.items():
        if num_bytes == floats * _FLOAT.itemsize:
            return place
    choices = " or ".join(f"{n} (the first {place} sections)" for place, n in expected.items())
    cause = "truncated or " if num_bytes < max(expected.values()) * _FLOAT.itemsize else ""
    raise ConversionError(
        f"{path} has {num_bytes / _FLOAT.itemsize:.12g} floats behind its header; expected "
        f"{choices}. It is {cause}of another cfg: check the file's size, the cfg and its number "
        "of classes, or give num_sections."
    )
