"""Images by index, decoded and brought to one size when asked for.

`autosplit.data.loading` reads batches out of them, in any order and from many threads.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import PIL.Image

from autosplit.data.decoding import decode_image
from autosplit.errors import InputError

Prepare = Callable[[PIL.Image.Image], np.ndarray]
"""Brings a decoded image of any size to u8[H, W, 3]."""


class Source(Protocol):
    """N images of one shape.

    Attributes:
      shape: H, W, 3.
      has_labels: every image has a label.
    """

    shape: tuple[int, int, int]

    @property
    def has_labels(self) -> bool: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns u8[H, W, 3] and the label, -1 where there is none."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSource:
    """Image files.

    Attributes:
      paths: N files.
      prepare: see `Prepare`; e.g. `resize_and_crop`.
      shape: what it gives.
      labels: i64[N], or None.
    """

    paths: Sequence[str | os.PathLike[str]]
    prepare: Prepare
    shape: tuple[int, int, int]
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and np.shape(self.labels) != (len(self.paths),):
            raise InputError(
                f"{len(self.paths)} files have labels of shape {np.shape(self.labels)}; expected "
                f"({len(self.paths)},)."
            )

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path = self.paths[index]
        image = _prepared(decode_image(path), self.prepare, self.shape, os.fspath(path))
        return image, -1 if self.labels is None else int(self.labels[index])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSource:
    """Records with an encoded ``image`` and perhaps a ``label``.

    Attributes:
      records: N, by index; what `autosplit.data.builders.encoded_records` returns.
      prepare, shape: as of `FileSource`.
      has_labels: the records have labels.
    """

    records: Sequence[Mapping[str, Any]]
    prepare: Prepare
    shape: tuple[int, int, int]
    has_labels: bool = False

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        record, name = self.records[index], f"record {index}"
        decoded = decode_image(bytes(record["image"]), name)
        image = _prepared(decoded, self.prepare, self.shape, name)
        return image, int(record["label"]) if self.has_labels else -1


def _prepared(
    image: PIL.Image.Image, prepare: Prepare, shape: tuple[int, int, int], name: str
) -> np.ndarray:
    pixels = prepare(image)
    if pixels.shape != tuple(shape) or pixels.dtype != np.uint8:
        raise InputError(
            f"{name} was prepared as {pixels.dtype}{list(pixels.shape)}; expected "
            f"uint8{list(shape)}. Does `prepare` bring every image to one size?"
        )
    return pixels
