"""Saves the variables of a named model with Orbax and loads them again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from autosplit.errors import ArtefactError, InputError
from autosplit.files import read_document, whole_directory, write_document
from autosplit.models.zoo import create_model, variable_shapes

KIND = "autosplit.checkpoint"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model of the zoo and its variables.

    Attributes:
      model_name: key of `autosplit.models.MODELS`.
      num_classes: length of the model's output.
      variables: ``{"params": ..., "batch_stats": ...}``.
    """

    model_name: str
    num_classes: int
    variables: Mapping[str, Any]

    @property
    def model(self) -> nn.Module:
        """The Linen module that the variables belong to."""
        return create_model(self.model_name, self.num_classes)


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes a checkpoint as a directory; either all of it appears or nothing.

    The directory has ``variables``, an Orbax checkpoint, and ``model.json``: format
    version, name, number of classes, and the SHA-256 of every file of ``variables``.

    Args:
      path: of the new directory.
      checkpoint: what to write.

    Raises:
      InputError: the path exists, the name is unknown, or the variables do not fit.
    """
    path = pathlib.Path(path).absolute()
    if path.exists():
        raise InputError(f"{path} exists; expected a new path. Remove it or choose another.")
    _require_fit(checkpoint)
    with whole_directory(path) as draft:
        with _checkpointer() as checkpointer:
            checkpointer.save(draft / "variables", dict(checkpoint.variables))
        about = {
            "model_name": checkpoint.model_name,
            "num_classes": checkpoint.num_classes,
            "sha256": _digests(draft / "variables"),
        }
        write_document(draft / "model.json", KIND, FORMAT_VERSION, about)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads what `save_checkpoint` wrote.

    Args:
      path: of the directory.

    Returns:
      The checkpoint, its variables as JAX arrays.

    Raises:
      InputError: there is no such directory.
      ArtefactError: it is damaged or of another format version.
    """
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise InputError(f"there is no directory {path}; expected one of experiments.convert.")
    about = read_document(path / "model.json", KIND, FORMAT_VERSION)
    try:
        name, classes, sha256 = (about[key] for key in ("model_name", "num_classes", "sha256"))
    except (KeyError, TypeError) as error:
        raise ArtefactError(
            f"{path / 'model.json'} lacks {error}; expected a directory written by "
            "experiments.convert. Convert the checkpoint again."
        ) from error
    # Orbax leaves threads and tasks behind when it fails half way, so damage is found first.
    if _digests(path / "variables") != sha256:
        raise ArtefactError(
            f"the files in {path / 'variables'} differ from those that were written: truncated, "
            "changed or missing. Convert the checkpoint again."
        )
    return Checkpoint(model_name=name, num_classes=classes, variables=_restore(path, name, classes))


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of every file under a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _restore(path: pathlib.Path, name: str, num_classes: int) -> dict[str, Any]:
    template = variable_shapes(create_model(name, num_classes))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), template
    )
    try:
        with _checkpointer() as checkpointer:
            stored = checkpointer.metadata(path / "variables").item_metadata.tree
            differing = _differing(template, stored)
            if not differing:
                return checkpointer.restore(path / "variables", target)
    # Orbax reports a damaged directory by many types of its own and of its storage library.
    except Exception as error:
        raise ArtefactError(
            f"{path / 'variables'} cannot be restored as {name} with {num_classes} classes "
            f"({type(error).__name__}: {error}). Convert the checkpoint again."
        ) from error
    # Orbax must not find this out: it would fail half way.
    raise ArtefactError(
        f"{path / 'variables'} cannot be restored as {name} with {num_classes} classes: "
        f"{', '.join(differing[:8])} differ. Convert the checkpoint again."
    )


def _checkpointer() -> Any:
    import orbax.checkpoint as ocp  # slow to import, and needed only here

    return ocp.StandardCheckpointer()


def _require_fit(checkpoint: Checkpoint) -> None:
    differing = _differing(variable_shapes(checkpoint.model), dict(checkpoint.variables))
    if differing:
        raise InputError(
            f"{len(differing)} variables are not those of {checkpoint.model_name} with "
            f"{checkpoint.num_classes} classes: {', '.join(differing[:8])}. Build the variables "
            "with Checkpoint.model.init or autosplit.converters.convert."
        )


def _differing(expected: Any, found: Any) -> list[str]:
    """Returns the paths of leaves that only one tree has, or that differ in shape."""
    first, second = (
        {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
        for leaves in (jax.tree.leaves_with_path(expected), jax.tree.leaves_with_path(found))
    )
    return sorted(key for key in first | second if first.get(key) != second.get(key))
