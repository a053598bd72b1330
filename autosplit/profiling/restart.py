"""A file from which statistics that were interrupted go on.

It is written whole after each chunk and removed once the tables are there: what it is for is
done then, and a later run of other data would have to refuse it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from autosplit.errors import ArtefactError, PlanMismatchError
from autosplit.files import write_bytes
from autosplit.graph import LayerGraph
from autosplit.graph.running import GraphWeights
from autosplit.profiling.statistics import TensorStatistics

_KIND, _VERSION = "autosplit.statistics", 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a file was made with; another run has to have the same.

    Attributes:
      fingerprint: of the graph.
      weights: SHA-256 of the folded weights.
      bits: the candidates.
      clipping: the methods.
      chunk_calls: calls of a chunk, which memory and devices decide.
    """

    fingerprint: str
    weights: str
    bits: tuple[int, ...]
    clipping: tuple[str, ...]
    chunk_calls: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
      statistics: of the first ``chunks`` chunks; None before the first.
      chunks: how many are in the statistics.
      digest: SHA-256 of their inputs; empty where no file is kept.
      squares: f64[F, C], sums of squared errors at C choices of clip and bits; None
        while statistics are gathered.
      measured: bool[n], the chunks that are in the squares.
    """

    statistics: TensorStatistics | None = None
    chunks: int = 0
    digest: str = ""
    squares: np.ndarray | None = None
    measured: np.ndarray | None = None


def settings_of(
    graph: LayerGraph,
    weights: GraphWeights,
    bits: Iterable[int],
    clipping: Iterable[str],
    chunk_calls: int,
) -> Settings:
    """Returns the settings of a run."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(weights):
        digest.update(np.asarray(leaf).tobytes())
    return Settings(
        fingerprint=graph.fingerprint,
        weights=digest.hexdigest(),
        bits=tuple(int(b) for b in bits),
        clipping=tuple(clipping),
        chunk_calls=chunk_calls,
    )


def save_progress(path: pathlib.Path, settings: Settings, progress: Progress) -> None:
    """Writes a file that nobody ever sees half-written."""
    statistics = progress.statistics
    arrays = {} if statistics is None else dataclasses.asdict(statistics)
    arrays |= {"squares": progress.squares, "measured": progress.measured}
    header = {
        "kind": _KIND,
        "version": _VERSION,
        "settings": dataclasses.asdict(settings),
        "chunks": progress.chunks,
        "digest": progress.digest,
    }
    content = io.BytesIO()
    present: dict[str, Any] = {n: np.asarray(a) for n, a in arrays.items() if a is not None}
    np.savez(content, header=np.array(json.dumps(header)), **present)
    write_bytes(path, content.getvalue())


def load_progress(path: pathlib.Path, settings: Settings) -> Progress:
    """Reads how far a run has come; nothing yet if there is no file.

    Raises:
      ArtefactError: truncated, or no file of this kind and version.
      PlanMismatchError: made with other settings.
    """
    if not path.exists():
        return Progress()
    header, arrays = _read(path)
    wanted = json.loads(json.dumps(dataclasses.asdict(settings)))
    found = header["settings"]
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if other:
        raise PlanMismatchError(
            f"{path} holds statistics of another run: "
            + "; ".join(f"{name} was {found.get(name)}, now {wanted[name]}" for name in other)
            + ". Give another file, or remove this one to begin anew."
        )
    names = {field.name for field in dataclasses.fields(TensorStatistics)}
    statistics = {name: value for name, value in arrays.items() if name in names}
    statistics["calls"] = int(statistics["calls"])
    return Progress(
        statistics=TensorStatistics(**statistics),
        chunks=header["chunks"],
        digest=header["digest"],
        squares=arrays.get("squares"),
        measured=arrays.get("measured"),
    )


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
        header = json.loads(str(arrays.pop("header")))
        found = (header["kind"], header["version"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ArtefactError(
            f"{path} is no complete file of statistics ({error}). Remove it to begin anew."
        ) from error
    if found != (_KIND, _VERSION):
        raise ArtefactError(
            f"{path} has kind and version {found}; expected {(_KIND, _VERSION)}. Remove it to "
            "begin anew."
        )
    return header, arrays
