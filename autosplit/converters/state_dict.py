"""Converts state dicts of torchvision's models to Linen variables and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from autosplit.errors import ConversionError

Path = tuple[str, ...]

# Last part of a key by Linen collection and leaf.
LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
# Counts training steps; torch itself reads it only where momentum is None.
STEP_COUNTER = "num_batches_tracked"


def torch_key(path: Path) -> str:
    """Returns the state dict's key of a Linen variable.

    The models of `autosplit.models` are named so that one rule serves all: modules
    are joined by dots, and ``_N`` stands for ``.N``.

    Args:
      path: collection, modules, leaf.

    Returns:
      The key.

    Raises:
      ConversionError: no leaf of that name is known.

    >>> torch_key(("params", "layer1_0", "downsample_0", "kernel"))
    'layer1.0.downsample.0.weight'
    """
    leaf = LEAVES.get((path[0], path[-1]))
    if leaf is None:
        raise ConversionError(
            f"the variable {'/'.join(path)} has no counterpart in PyTorch; "
            f"expected {', '.join('/'.join(k) for k in LEAVES)}."
        )
    return ".".join((*(re.sub(r"_(?=\d)", ".", module) for module in path[1:-1]), leaf))


def convert(state_dict: Mapping[str, np.ndarray], template: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a state dict to Linen variables; uses every key or raises.

    Convolutions go from [out, in, height, width] to [height, width, in, out],
    linear weights from [out, in] to [in, out]. ``num_batches_tracked`` is ignored.

    Args:
      state_dict: arrays by key, as `autosplit.converters.read_state_dict` returns it.
      template: ``{"params": ..., "batch_stats": ...}`` with shape and dtype in every
        leaf, as `autosplit.models.variable_shapes` returns it.

    Returns:
      Variables of the template's structure, shapes and dtypes, as NumPy arrays.

    Raises:
      ConversionError: names the keys that are missing, left over, misshapen or no
        floating-point numbers.

    >>> template = {"params": {"fc": {"kernel": jax.ShapeDtypeStruct((3, 2), np.float32)}}}
    >>> variables = convert({"fc.weight": np.ones((2, 3), np.float32)}, template)
    >>> variables["params"]["fc"]["kernel"].shape
    (3, 2)
    """
    expected = {torch_key(p): (p, leaf) for p, leaf in traverse_util.flatten_dict(template).items()}
    found = {k: np.asarray(v) for k, v in state_dict.items() if not _is_step_counter(k)}
    _require_match(found, {key: _torch_shape(*item) for key, item in expected.items()})
    return traverse_util.unflatten_dict(
        {
            path: np.ascontiguousarray(_to_linen(path, found[key]), dtype=leaf.dtype)
            for key, (path, leaf) in expected.items()
        }
    )


def to_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts Linen variables to a state dict; the inverse of `convert`.

    ``model.load_state_dict({k: torch.from_numpy(v) for k, v in ...}, strict=True)``
    accepts it. Every batch norm gets a ``num_batches_tracked`` of 0.

    Args:
      variables: ``{"params": ..., "batch_stats": ...}`` of a model of `autosplit.models`.

    Returns:
      Contiguous arrays by key.

    Raises:
      ConversionError: a variable has no counterpart in PyTorch.

    >>> to_state_dict({"params": {"fc": {"kernel": np.ones((3, 2))}}})["fc.weight"].shape
    (2, 3)
    """
    state_dict: dict[str, np.ndarray] = {}
    for path, leaf in traverse_util.flatten_dict(variables).items():
        key = torch_key(path)
        axes = _torch_axes(path, np.ndim(leaf))
        state_dict[key] = np.array(np.transpose(np.asarray(leaf), axes), order="C")
        if key.endswith("running_var"):
            counter = key.removesuffix("running_var") + STEP_COUNTER
            state_dict[counter] = np.zeros((), np.int64)
    return state_dict


def _is_step_counter(key: str) -> bool:
    return key.rpartition(".")[2] == STEP_COUNTER


def _torch_axes(path: Path, ndim: int) -> tuple[int, ...]:
    """Returns, for every axis of the torch tensor, the axis of the Linen variable."""
    if path[-1] != "kernel":
        return tuple(range(ndim))
    return (ndim - 1, ndim - 2, *range(ndim - 2))


def _torch_shape(path: Path, leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape[axis] for axis in _torch_axes(path, len(leaf.shape)))


def _to_linen(path: Path, tensor: np.ndarray) -> np.ndarray:
    return np.transpose(tensor, np.argsort(_torch_axes(path, tensor.ndim)))


def _require_match(found: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ConversionError unless keys, shapes and kinds of number agree."""
    common = [key for key in shapes if key in found]
    problems = {
        "missing": [key for key in shapes if key not in found],
        "left over": [key for key in found if key not in shapes],
        "of another shape": [
            f"{key} {found[key].shape}, expected {shapes[key]}"
            for key in common
            if found[key].shape != shapes[key]
        ],
        "no floating-point numbers": [
            f"{key} {found[key].dtype}"
            for key in common
            # Not np.issubdtype: it does not know bfloat16.
            if not jax.numpy.issubdtype(found[key].dtype, np.floating)
        ],
    }
    if any(problems.values()):
        listing = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:10])}{', ...' if len(keys) > 10 else ''}"
            for what, keys in problems.items()
            if keys
        )
        raise ConversionError(
            f"the state dict does not fit the model: {listing}. "
            "Check the name of the model and its number of classes."
        )
