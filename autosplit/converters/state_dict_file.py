"""Writes state dicts as files that PyTorch programs load."""

from __future__ import annotations

import collections
import io
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from autosplit.converters.foreign_file import optional_library
from autosplit.converters.torch_file import SAFETENSORS_SUFFIX
from autosplit.errors import InputError
from autosplit.files import write_bytes

TORCH_SUFFIXES = (".pth", ".pt")
# What Module.state_dict() adds. torchvision's MNASNet loads nothing without a version of its
# layout, which is 2; other networks do not look at it.
ROOT_METADATA = {"": {"version": 2}}
STATE_DICT_SUFFIXES = (SAFETENSORS_SUFFIX, *TORCH_SUFFIXES)


def write_state_dict(path: str | os.PathLike[str], state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict, all of it or nothing.

    ``.safetensors`` needs the package safetensors, ``.pth`` and ``.pt`` need PyTorch;
    ``torch.load(path, weights_only=True)`` reads the latter. torchvision's MNASNet takes
    these alone: it asks for a version number, for which safetensors has no place.

    Args:
      path: of the file; its suffix decides on the format; an older file is replaced.
      state_dict: arrays by key, as `autosplit.converters.to_state_dict` returns them.

    Raises:
      InputError: the suffix is none of these.
      ConversionError: the library is not installed.

    >>> import tempfile
    >>> from autosplit.converters import read_state_dict
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> write_state_dict(path, {"fc.bias": np.ones(2, np.float32)})
    >>> read_state_dict(path)["fc.bias"].tolist()
    [1.0, 1.0]
    """
    suffix = pathlib.Path(path).suffix
    if suffix not in STATE_DICT_SUFFIXES:
        raise InputError(
            f"{path} ends in {suffix!r}; expected {', '.join(STATE_DICT_SUFFIXES)}, "
            "which names the format."
        )
    # Not ascontiguousarray: it makes a vector of a scalar.
    arrays = {key: np.array(array, order="C") for key, array in state_dict.items()}
    encode = _safetensors if suffix == SAFETENSORS_SUFFIX else _torch
    write_bytes(path, encode(arrays))


def _safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    with optional_library(SAFETENSORS_SUFFIX):
        import safetensors.numpy
    return safetensors.numpy.save(arrays)


def _torch(arrays: dict[str, np.ndarray]) -> bytes:
    with optional_library(" or ".join(TORCH_SUFFIXES)):
        import torch
    tensors = collections.OrderedDict((k, torch.from_numpy(v)) for k, v in arrays.items())
    vars(tensors)["_metadata"] = ROOT_METADATA
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()
