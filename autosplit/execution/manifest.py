"""The manifest of a split: what both halves must agree on, as JSON."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from autosplit.errors import ArtefactError
from autosplit.files import read_document, write_document

KIND = "autosplit.split"
FORMAT_VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Form of one tensor that enters, crosses or leaves a split.

    Attributes:
      name: of the tensor.
      shape: of the unpacked value.
      dtype: NumPy name of the unpacked value: ``uint8`` for codes.
      bits: 1 to 8 for packed codes; 32 where the raw bytes of ``dtype`` are sent.
      payload_bytes: exact size of what is sent.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: int
    payload_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """Place and form of one array in a weights file; equal arrays may share a place.

    Attributes:
      key: what it is.
      dtype, shape: of the array.
      offset, num_bytes: in the file.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a split but its weights and programs.

    Attributes:
      split_id: SHA-256 over plan, graph and weights; equal on both sides.
      label, cut_name, fingerprint: of the plan.
      plan: the plan as JSON; None for a bare cut.
      inputs, crossing, outputs: flat tensor lists.
      structure: nesting of the outputs (see `nest`); a flat tuple where the
        function's own containers have no JSON form.
      network: fields of the plan's network; empty for a bare cut.
      predicted: seconds of each stage; empty for a bare cut.
      edge_arrays, cloud_arrays: contents of the weights files.
      files: SHA-256 by file name.
    """

    split_id: str
    label: str
    cut_name: str
    fingerprint: str
    plan: Mapping[str, Any] | None
    inputs: tuple[TensorSpec, ...]
    crossing: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    structure: Any
    network: Mapping[str, Any]
    predicted: Mapping[str, float]
    edge_arrays: tuple[ArraySpec, ...] = ()
    cloud_arrays: tuple[ArraySpec, ...] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


_NESTED = {
    "inputs": TensorSpec,
    "crossing": TensorSpec,
    "outputs": TensorSpec,
    "edge_arrays": ArraySpec,
    "cloud_arrays": ArraySpec,
}


def write_manifest(path: pathlib.Path, manifest: Manifest) -> None:
    """Writes a manifest, with a checksum over its own contents."""
    write_document(path, KIND, FORMAT_VERSION, json.loads(json.dumps(dataclasses.asdict(manifest))))


def read_manifest(path: pathlib.Path) -> Manifest:
    """Reads a manifest.

    Raises:
      ArtefactError: missing, not JSON, changed, of an unknown version, or fields missing.
    """
    fields = read_document(path, KIND, FORMAT_VERSION)
    try:
        for name, kind in _NESTED.items():
            fields[name] = tuple(kind(**{**f, "shape": tuple(f["shape"])}) for f in fields[name])
        return Manifest(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{path} is no manifest of a split ({error}). Save the split again."
        ) from error


def nest(structure: Any) -> Any:
    """Turns nested tuples, lists and dicts of leaf numbers into JSON.

    Raises:
      TypeError: another container.

    >>> nest({"a": (0, [1])})
    {'dict': {'a': {'tuple': [0, {'list': [1]}]}}}
    """
    if structure is None or isinstance(structure, int):
        return structure
    if type(structure) in (list, tuple):
        items = [nest(item) for item in structure]
        return {type(structure).__name__: items}
    if type(structure) is dict and all(isinstance(key, str) for key in structure):
        return {"dict": {key: nest(item) for key, item in structure.items()}}
    raise TypeError(f"{type(structure).__name__} has no JSON form")


def unnest(structure: Any, leaves: list[Any]) -> Any:
    """Puts leaves into the containers that `nest` described."""
    if structure is None:
        return None
    if isinstance(structure, int):
        return leaves[structure]
    (kind, items), = structure.items()
    if kind == "dict":
        return {key: unnest(item, leaves) for key, item in items.items()}
    values = [unnest(item, leaves) for item in items]
    return tuple(values) if kind == "tuple" else values
