"""Reads checkpoint files of PyTorch as NumPy arrays; PyTorch need not be installed."""

from __future__ import annotations

import io
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from autosplit.converters.foreign_file import existing_file, optional_library, reading
from autosplit.converters.torch_pickle import (
    TensorUnpickler,
    TensorView,
    is_legacy,
    read_legacy,
    require_little_endian,
    to_array,
)
from autosplit.errors import ArtefactError, ConversionError

T = TypeVar("T")

KIND = "a PyTorch checkpoint"
SAFETENSORS_SUFFIX = ".safetensors"
# Training scripts put the state dict under one of these keys, beside epoch and optimizer.
WRAPPERS = ("state_dict", "model_state_dict", "model")
ZIP_MAGIC = b"PK\x03\x04"
# torch.nn.DataParallel puts this before every key.
DATA_PARALLEL_PREFIX = "module."


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a ``.pth``, ``.pt``, ``.pkl`` or ``.safetensors`` file.

    Reads what ``torch.save`` writes (zip, and the format before PyTorch 1.6) and a
    plain pickle of a state dict. Nothing of the file is executed: its pickle may
    name tensors and ordered dictionaries only. A state dict under one of `WRAPPERS`
    is unwrapped, and a ``module.`` before every key is taken off.

    Args:
      path: of the file; the content decides on the format, save for ``.safetensors``.

    Returns:
      Arrays by key, in the file's order.

    Raises:
      InputError: there is no such file.
      ArtefactError: the file is truncated or damaged.
      ConversionError: it holds something else than tensors.
    """
    path = existing_file(path, KIND)
    with reading(path, KIND):
        if path.suffix == SAFETENSORS_SUFFIX:
            return _read_safetensors(path)
        value, contents = _read_torch(io.BytesIO(path.read_bytes()))
        return {k: to_array(t, contents) for k, t in _tensors(value).items()}


def _read_torch(stream: io.BytesIO) -> tuple[Any, dict[str, bytes]]:
    if stream.getvalue().startswith(ZIP_MAGIC):
        return _read_zip(stream)
    if is_legacy(stream):
        return read_legacy(stream)
    return TensorUnpickler(stream).load(), {}


def _read_zip(stream: io.BytesIO) -> tuple[Any, dict[str, bytes]]:
    """Reads ``ROOT/data.pkl`` and the storages ``ROOT/data/KEY`` that it names."""
    with zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
        pickles = [n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ArtefactError(
                f"the archive has {len(pickles)} entries named data.pkl; expected one, "
                "as torch.save writes it."
            )
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names:
            require_little_endian(archive.read(f"{root}byteorder").decode())
        unpickler = TensorUnpickler(io.BytesIO(archive.read(pickles[0])))
        value = unpickler.load()
        return value, {key: archive.read(f"{root}data/{key}") for key in unpickler.storages}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    with optional_library(SAFETENSORS_SUFFIX):
        import safetensors.numpy
    return _without_prefix(safetensors.numpy.load_file(path))


def _tensors(value: Any) -> dict[str, TensorView]:
    """Returns the state dict in an unpickled object, unwrapped."""
    if not isinstance(value, dict):
        raise ConversionError(f"the file holds a {type(value).__name__}; expected a state dict.")
    # dict's own methods: a pickle can hide those of an OrderedDict behind attributes.
    for key in WRAPPERS:
        inner = dict.get(value, key)
        if isinstance(inner, dict):
            return _tensors(inner)
    entries = dict(dict.items(value))
    other = [key for key, tensor in entries.items() if not isinstance(tensor, TensorView)]
    if other or not entries:
        raise ConversionError(
            f"{len(entries)} entries, of which these are no tensors: {other[:8]}; expected a "
            f"dictionary of tensors, or one under a key of {', '.join(WRAPPERS)}."
        )
    return _without_prefix(entries)


def _without_prefix(entries: Mapping[str, T]) -> dict[str, T]:
    if all(key.startswith(DATA_PARALLEL_PREFIX) for key in entries):
        return {k.removeprefix(DATA_PARALLEL_PREFIX): v for k, v in entries.items()}
    return dict(entries)
