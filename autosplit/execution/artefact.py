"""Reads a saved split; the model's Python code is not needed."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import ArtefactError, InputError
from autosplit.execution.export import MANIFEST, file_digest, program_file, weights_file
from autosplit.execution.halves import Half, Split
from autosplit.execution.manifest import ArraySpec, Manifest, read_manifest, unnest
from autosplit.execution.weights import PackedWeight, unpack_weights

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
        packed={},
        unflatten=lambda leaves: unnest(manifest.structure, list(leaves)),
    )


def _load_half(folder: pathlib.Path, manifest: Manifest, side: str) -> Half:
    for name in (program_file(side), weights_file(side)):
        found, expected = file_digest(folder / name), manifest.files.get(name)
        if found != expected:
            raise ArtefactError(
                f"{folder / name} was truncated or changed: its SHA-256 is {found[:12]}..., the "
                f"manifest says {str(expected)[:12]}.... Copy or save the split again."
            )
    try:
        exported = jax.export.deserialize(bytearray((folder / program_file(side)).read_bytes()))
    except Exception as error:
        raise ArtefactError(
            f"{folder / program_file(side)} cannot be read by this version of JAX "
            f"({jax.__version__}): {error}. Save the split again with it."
        ) from error
    specs = manifest.edge_arrays if side == "edge" else manifest.cloud_arrays
    weights = _read_arrays((folder / weights_file(side)).read_bytes(), specs)
    if side == "edge":
        weights = _unpacked(manifest, weights)
    return Half(call=jax.jit(exported.call), weights=weights)


def _read_arrays(data: bytes, specs: Sequence[ArraySpec]) -> dict[str, Any]:
    named = {}
    for spec in specs:
        part = np.frombuffer(data[spec.offset : spec.offset + spec.num_bytes], spec.dtype)
        named[spec.key] = jnp.asarray(part.reshape(spec.shape))
    return named


def _unpacked(manifest: Manifest, named: Mapping[str, Any]) -> dict[str, Any]:
    """Unpacks the quantized weights and puts them in the place of levels and clips."""
    packed = {
        stored.key: PackedWeight(
            levels=named[f"{stored.source}.levels"],
            clip=named[f"{stored.source}.clip"],
            bits=stored.bits,
            shape=stored.shape,
            dtype=stored.dtype,
        )
        for stored in manifest.edge_weights
    }
    replaced = {f"{s.source}.{part}" for s in manifest.edge_weights for part in ("levels", "clip")}
    kept = {key: value for key, value in named.items() if key not in replaced}
    return {**kept, **unpack_weights(packed)}
