"""Reads the weights of a TensorFlow.js layers model; TensorFlow need not be installed."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from autosplit.converters.foreign_file import existing_file, reading
from autosplit.errors import ArtefactError, ConversionError

KIND = "a TensorFlow.js layers model"
# Shards hold little-endian numbers.
DTYPES = {
    "bool": np.dtype("?"),
    "float32": np.dtype("<f4"),
    "int32": np.dtype("<i4"),
    "uint8": np.dtype("u1"),
}


def read_tfjs(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads ``model.json`` and the shards that it names.

    The manifest lists groups; the shards of a group, put end to end, hold its
    weights in the manifest's order without gaps. The topology is not looked at.

    Args:
      path: of ``model.json``; the shards lie beside it or below.

    Returns:
      Arrays by name, in the manifest's order and TensorFlow's layout.

    Raises:
      InputError: there is no such file.
      ArtefactError: a file is damaged, or a shard is missing or of another length.
      ConversionError: the weights are quantized.
    """
    path = existing_file(path, f"the model.json of {KIND}")
    weights: dict[str, np.ndarray] = {}
    with reading(path, KIND):
        for group in json.loads(path.read_bytes())["weightsManifest"]:
            content = b"".join(_shard(path.parent, name).read_bytes() for name in group["paths"])
            weights.update(_arrays(group["weights"], content))
    return weights


def _shard(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns a shard's path; a manifest must not name files elsewhere on the machine."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ArtefactError(f"it names the shard {name!r}; expected a path below its own folder.")
    if not path.is_file():
        raise ArtefactError(f"there is no shard {path}; expected it beside model.json.")
    return path


def _arrays(entries: list[Mapping[str, Any]], content: bytes) -> dict[str, np.ndarray]:
    """Cuts the bytes of a group into its weights."""
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for entry in entries:
        if "quantization" in entry:
            raise ConversionError(
                f"the weight {entry['name']} is quantized; expected floating-point numbers. "
                "Convert the original model again without quantization."
            )
        name, dtype, shape = entry["name"], DTYPES[entry["dtype"]], tuple(entry["shape"])
        if name in arrays or min(shape, default=0) < 0:
            raise ArtefactError(f"the weight {name!r} {shape} stands twice or has no such shape.")
        stop = start + math.prod(shape) * dtype.itemsize
        arrays[name] = np.frombuffer(content[start:stop], dtype).reshape(shape)
        start = stop
    if start != len(content):
        raise ArtefactError(
            f"the shards hold {len(content)} bytes; expected {start}, the length of their "
            "weights. Download all files again."
        )
    return arrays
