"""Writes a split to a directory that runs without the model's Python code.

| file | contents |
|---|---|
| ``manifest.json`` | what both sides agree on, the plan, checksums of all files |
| ``edge.stablehlo``, ``cloud.stablehlo`` | the halves, exported by `jax.export` |
| ``cloud_batch.stablehlo`` | the cloud half for many requests at once, of any number |
| ``edge_unpack.stablehlo`` | brings packed weights into the form that the edge half reads |
| ``edge_weights.bin``, ``cloud_weights.bin`` | their arrays; edge weights bit-packed |

The directory appears whole or not at all: it is written under a temporary name
and renamed; an older split keeps its place until then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from autosplit.errors import ArtefactError, InputError
from autosplit.execution.manifest import ArraySpec, write_manifest
from autosplit.files import whole_directory

if TYPE_CHECKING:
    from autosplit.execution.halves import Half, Split

MANIFEST = "manifest.json"
UNPACK = "edge_unpack"
BATCH = "cloud_batch"
PACKED_PARTS = (".weight.levels", ".weight.scale")
PLATFORMS = ("cpu", "cuda", "tpu")


def program_file(name: str) -> str:
    """Returns the name of the file with an exported program: of a side, or `UNPACK`."""
    return f"{name}.stablehlo"


def weights_file(side: str) -> str:
    """Returns the name of the file with a side's arrays."""
    return f"{side}_weights.bin"


def save_split(split: Split, path: pathlib.Path) -> None:
    """Writes a split.

    Args:
      split: made by `autosplit.split`, not loaded.
      path: directory; one that holds an older split is replaced.

    Raises:
      InputError: the split was loaded from disk, or the directory holds something else.
    """
    if split.edge_half is None or split.cloud_half is None or split.manifest.files:
        raise InputError("This split was read from disk; copy its directory to keep it.")
    _check_target(path)
    with whole_directory(path) as draft:
        _write(split, split.edge_half, split.cloud_half, draft)


def _check_target(path: pathlib.Path) -> None:
    """Refuses to replace anything but a split: its directory would be deleted."""
    sides = ("edge", "cloud")
    ours = {MANIFEST, *map(program_file, (*sides, UNPACK, BATCH)), *map(weights_file, sides)}
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; expected a directory, or a name that is free.")
    found = {item.name for item in path.iterdir()} if path.exists() else set()
    if found and not {MANIFEST, program_file("edge")} <= found <= ours:
        odd = sorted(found - ours or found)
        raise InputError(
            f"{path} is not empty and holds no split, or more than one ({', '.join(odd[:5])}); it "
            "would be deleted. Choose another directory."
        )


def _write(split: Split, edge: Half, cloud: Half, draft: pathlib.Path) -> None:
    manifest = split.manifest
    codes = jax.eval_shape(edge.call, edge.weights, _shapes(manifest.inputs))
    _export(edge.call, (edge.weights, _shapes(manifest.inputs)), draft / program_file("edge"))
    if edge.packed:
        _export(edge.unpack, (edge.packed,), draft / program_file(UNPACK))
    if manifest.crossing:
        _export(cloud.call, (cloud.weights, list(codes)), draft / program_file("cloud"))
        # A program without a rule for batches of unknown size is served one request at a time.
        with contextlib.suppress(NotImplementedError, TypeError, ValueError):
            _export(cloud.batched, (cloud.weights, _batches(codes)), draft / program_file(BATCH))
    stored = _stored(edge)
    programs = sorted(item.name for item in draft.iterdir())
    complete = dataclasses.replace(
        manifest,
        edge_arrays=_write_arrays(draft / weights_file("edge"), stored, _twins(stored)),
        cloud_arrays=_write_arrays(draft / weights_file("cloud"), cloud.weights, {}),
    )
    files = (*programs, weights_file("edge"), weights_file("cloud"))
    complete = dataclasses.replace(
        complete, files={name: file_digest(draft / name) for name in files}
    )
    write_manifest(draft / MANIFEST, complete)


def _shapes(specs: Any) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in specs]


def _batches(codes: Any) -> list[jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch of unknown size: one program serves every size."""
    size, = jax.export.symbolic_shape("batch")
    return [jax.ShapeDtypeStruct((size, *one.shape), one.dtype) for one in codes]


def _export(program: Any, arguments: tuple[Any, ...], path: pathlib.Path) -> None:
    exported = jax.export.export(program, platforms=PLATFORMS)(*arguments)
    path.write_bytes(exported.serialize())


def _stored(edge: Half) -> dict[str, Any]:
    """Returns the packed weights and the arrays that are not made of them."""
    made = jax.eval_shape(edge.unpack, edge.packed) if edge.packed else {}
    kept = {key: value for key, value in edge.weights.items() if key not in made}
    return {**kept, **edge.packed}


def _twins(stored: Mapping[str, Any]) -> dict[str, str]:
    """Finds layers that share a weight, and the biases and constants that they share too.

    Returns:
      Name -> name of the equal array of the layer that stores it.
    """
    first: dict[tuple[bytes, ...], str] = {}
    twins = {}
    for key in sorted(stored):
        if not key.endswith(PACKED_PARTS[0]):
            continue
        own = key.removesuffix(PACKED_PARTS[0])
        content = tuple(np.asarray(stored[own + part]).tobytes() for part in PACKED_PARTS)
        source = first.setdefault(content, own)
        names = [name for name in stored if source != own and name.startswith(f"{own}.")]
        for name in names:
            twin = source + name.removeprefix(own)
            if twin in stored and _same(stored[name], stored[twin]):
                twins[name] = twin
    return twins


def _same(one: Any, other: Any) -> bool:
    first, second = np.asarray(one), np.asarray(other)
    same_form = (first.dtype, first.shape) == (second.dtype, second.shape)
    return same_form and first.tobytes() == second.tobytes()


def _write_arrays(
    path: pathlib.Path, named: Mapping[str, Any], twins: Mapping[str, str]
) -> tuple[ArraySpec, ...]:
    specs: dict[str, ArraySpec] = {}
    offset = 0
    with path.open("wb") as file:
        for key in sorted(named, key=lambda name: (name in twins, name)):
            if key in twins:
                specs[key] = dataclasses.replace(specs[twins[key]], key=key)
                continue
            array = np.asarray(named[key])
            data = array.tobytes()
            specs[key] = ArraySpec(
                key=key, dtype=str(array.dtype), shape=array.shape, offset=offset,
                num_bytes=len(data),
            )  # fmt: skip
            file.write(data)
            offset += len(data)
    return tuple(specs[key] for key in sorted(specs))


def file_digest(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file; raises `ArtefactError` where it is missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error}). Save the split again.") from error
