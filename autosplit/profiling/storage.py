"""Keeps a profile as one npz file."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from typing import Any

import numpy as np

from autosplit.errors import ArtefactError
from autosplit.files import write_bytes
from autosplit.hardware import Network
from autosplit.profiling.table import InputEncoding, Profile, Unquantized

VERSION = 3
UNQUANTIZED = "unquantized."
UNQUANTIZED_ARRAYS = tuple(f.name for f in dataclasses.fields(Unquantized) if f.name != "bits")


def save_profile(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Writes a profile: its arrays, and the rest as JSON in the entry ``about``.

    Args:
      profile: what `autosplit.profile` returned.
      path: npz file.
    """
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {"version": VERSION}
    for field in dataclasses.fields(profile):
        value = getattr(profile, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif field.name == "unquantized":
            about["unquantized_bits"] = value.bits
            arrays |= {f"{UNQUANTIZED}{name}": getattr(value, name) for name in UNQUANTIZED_ARRAYS}
        elif field.name == "network":
            about[field.name] = dataclasses.asdict(value)
        elif field.name == "input_encodings":
            about[field.name] = [dataclasses.asdict(e) for e in value]
        else:
            about[field.name] = value
    stream = io.BytesIO()
    np.savez_compressed(stream, about=np.array(json.dumps(about)), **arrays)
    write_bytes(path, stream.getvalue())


def load_profile(path: str | os.PathLike[str]) -> Profile:
    """Reads what `save_profile` wrote.

    Raises:
      ArtefactError: missing, truncated, changed, or of another format version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(str(arrays.pop("about")))
        if about.pop("version") != VERSION:
            raise ArtefactError(f"{path} has another format version. Profile the graph again.")
        wide = {name: arrays.pop(f"{UNQUANTIZED}{name}") for name in UNQUANTIZED_ARRAYS}
        about["unquantized"] = Unquantized(bits=about.pop("unquantized_bits"), **wide)
        about["network"] = Network(**about["network"])
        about["input_encodings"] = tuple(InputEncoding(**e) for e in about["input_encodings"])
        lists = {name: tuple(value) for name, value in about.items() if isinstance(value, list)}
        return Profile(**{**about, **lists, **arrays})
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ArtefactError(
            f"{path} holds no complete profile ({error}). Profile the graph again."
        ) from error
