"""Reads a saved split; the model's Python code is not needed."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import ArtefactError, InputError
from autosplit.execution.export import (
    BATCH,
    MANIFEST,
    PACKED_PARTS,
    UNPACK,
    file_digest,
    program_file,
    weights_file,
)
from autosplit.execution.halves import Half, Split
from autosplit.execution.manifest import ArraySpec, Manifest, read_manifest, unnest

SIDES = ("edge", "cloud")


def load(path: str | pathlib.Path, sides: Sequence[str] = SIDES) -> Split:
    """Loads a split that `Split.save` wrote.

    Args:
      path: directory.
      sides: which halves to load: ``"edge"``, ``"cloud"`` or both.

    Returns:
      The split; a side that was not loaded raises when it is called.

    Raises:
      ArtefactError: a file is missing, truncated, changed, or of another format version.
      InputError: an unknown side.
    """
    folder = pathlib.Path(path)
    if unknown := set(sides) - set(SIDES):
        raise InputError(f"Unknown sides {sorted(unknown)}; expected some of {SIDES}.")
    manifest = read_manifest(folder / MANIFEST)
    edge_only = not manifest.crossing
    halves = {
        side: _load_half(folder, manifest, side)
        for side in sides
        if not (side == "cloud" and edge_only)
    }
    return Split(
        manifest=manifest,
        edge_half=halves.get("edge"),
        cloud_half=halves.get("cloud"),
        unflatten=lambda leaves: unnest(manifest.structure, list(leaves)),
    )


def _load_half(folder: pathlib.Path, manifest: Manifest, side: str) -> Half:
    program = _load_program(folder, manifest, side)
    specs = manifest.edge_arrays if side == "edge" else manifest.cloud_arrays
    _check_file(folder, manifest, weights_file(side))
    weights = _read_arrays((folder / weights_file(side)).read_bytes(), specs)
    if side == "edge" and program_file(UNPACK) in manifest.files:
        packed = {key: x for key, x in weights.items() if key.endswith(PACKED_PARTS)}
        kept = {key: x for key, x in weights.items() if key not in packed}
        weights = {**kept, **_load_program(folder, manifest, UNPACK)(packed)}
    batched = None
    if side == "cloud" and program_file(BATCH) in manifest.files:  # not in those of version 0.1
        batched = _load_program(folder, manifest, BATCH)
    return Half(call=program, batched=batched, weights=weights)


def _check_file(folder: pathlib.Path, manifest: Manifest, name: str) -> None:
    found, expected = file_digest(folder / name), manifest.files.get(name)
    if found != expected:
        raise ArtefactError(
            f"{folder / name} was truncated or changed: its SHA-256 is {found[:12]}..., the "
            f"manifest says {str(expected)[:12]}.... Copy or save the split again."
        )


def _load_program(folder: pathlib.Path, manifest: Manifest, name: str) -> Any:
    path = folder / program_file(name)
    _check_file(folder, manifest, path.name)
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:
        raise ArtefactError(
            f"{path} cannot be read by this version of JAX ({jax.__version__}): {error}. Save the "
            "split again with it."
        ) from error
    return jax.jit(exported.call)


def _read_arrays(data: bytes, specs: Sequence[ArraySpec]) -> dict[str, Any]:
    named = {}
    for spec in specs:
        part = np.frombuffer(data[spec.offset : spec.offset + spec.num_bytes], spec.dtype)
        named[spec.key] = jnp.asarray(part.reshape(spec.shape))
    return named
