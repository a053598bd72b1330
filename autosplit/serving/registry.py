"""SplitRegistry: the splits that are served; a directory of them is watched.

A split that appears in the directory is loaded and compiled on a thread while the others
serve; one that disappears takes no new requests, and its memory is freed after its last one.
A folder that is being copied fails its checksums and is tried again when it has changed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import pathlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

import jax

from autosplit.errors import AutosplitError, InputError
from autosplit.execution import artefact
from autosplit.execution.export import MANIFEST
from autosplit.execution.halves import Split
from autosplit.execution.manifest import read_manifest
from autosplit.serving import codec, protocol
from autosplit.serving.logs import log
from autosplit.serving.served_split import ServedSplit, compile_split

Splits = Split | Sequence[Split] | str | os.PathLike[str]
"""One split, several, the directory of one, or a directory of such directories."""

_Stamp = tuple[tuple[str, int, int, int], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Folder:
    """What was found in a folder: its files then, and the split, if it could be loaded."""

    stamp: _Stamp
    split_id: str | None


class SplitRegistry:
    """The splits that are served. Read on the event loop, filled by `load` and `watch`.

    Args:
      devices: that compute.
      batch_sizes: to compile, as far as they pay.
      message_bytes: longest message that the server receives; a split that needs a longer one
        is not served.
    """

    def __init__(
        self, devices: Sequence[jax.Device], batch_sizes: Sequence[int], message_bytes: int
    ) -> None:
        self._devices, self._batch_sizes = devices, batch_sizes
        self._message_bytes = message_bytes
        self._served: dict[str, ServedSplit] = {}
        self._folders: dict[pathlib.Path, _Folder] = {}

    @property
    def served(self) -> Mapping[str, ServedSplit]:
        """The splits by their ``split_id``."""
        return MappingProxyType(self._served)

    def find(self, split_id: str) -> ServedSplit:
        """Returns a split.

        Raises:
          UnknownSplitError: it is not served.
        """
        if split_id not in self._served:
            raise protocol.UnknownSplitError(
                f"The client names split {protocol.shown(split_id)}; this server holds "
                f"{[one[:12] for one in self._served]}. Start both from the same saved split, or "
                "copy it into the server's directory."
            )
        return self._served[split_id]

    def add(self, split: Split) -> None:
        """Compiles a split and serves it from then on.

        Raises:
          InputError: nothing crosses its cut, or its messages are longer than the server takes.
          ProtocolError: its outputs differ from its manifest.
        """
        needed_bytes = codec.message_limit_bytes(split.manifest.crossing)
        if needed_bytes > self._message_bytes:
            raise InputError(
                f"Split {split.manifest.split_id} needs messages of {needed_bytes} bytes; the "
                f"server takes {self._message_bytes}. Start it with a larger message_bytes."
            )
        served = compile_split(split, self._devices, self._batch_sizes)
        self._served[split.manifest.split_id] = served
        log(
            logging.INFO, "split loaded", split=split.manifest.split_id,
            batch_ms={size: round(s * 1e3, 3) for size, s in served.batch_s.items()},
        )  # fmt: skip

    def look(self, directory: pathlib.Path) -> bool:
        """Loads what appeared or changed in a directory of splits, and drops what disappeared.

        Takes seconds where there is something to compile: call it on a thread.

        Args:
          directory: every folder in it that has a manifest is a split, but for hidden ones.

        Returns:
          Whether the served splits changed.
        """
        stamps = {folder: _stamp(folder) for folder in _folders(directory)}
        before = dict(self._served)
        for folder in self._folders.keys() - stamps.keys():
            del self._folders[folder]
        for folder, stamp in stamps.items():
            if folder not in self._folders or self._folders[folder].stamp != stamp:
                self._folders[folder] = _Folder(stamp=stamp, split_id=self._load(folder))
        kept = {folder.split_id for folder in self._folders.values()}
        for split_id in before.keys() - kept:
            del self._served[split_id]
            log(logging.INFO, "split dropped", split=split_id)
        return before != self._served

    async def watch(
        self, directory: pathlib.Path, every_s: float, changed: Callable[[], Awaitable[None]]
    ) -> None:
        """Looks at a directory again and again, until it is cancelled.

        Args:
          directory: of splits.
          every_s: time between two looks.
          changed: called on the event loop after the served splits changed.
        """
        while True:
            await asyncio.sleep(every_s)
            try:
                if await asyncio.to_thread(self.look, directory):
                    await changed()
            except OSError as error:  # perhaps unmounted for a moment: what is loaded serves on
                log(logging.ERROR, "directory not readable", path=directory, error=error)

    def _load(self, folder: pathlib.Path) -> str | None:
        """Returns the id of the split in a folder; of one that cannot be served, None."""
        try:
            split_id = read_manifest(folder / MANIFEST).split_id
            if split_id not in self._served:
                self.add(artefact.load(folder, sides=("cloud",)))
            return split_id
        except (AutosplitError, OSError) as error:
            log(logging.WARNING, "split not loaded", path=folder, error=error)
            return None


def open_splits(splits: Splits) -> tuple[list[Split], pathlib.Path | None]:
    """Returns the splits that are given, or the directory to watch.

    Args:
      splits: one split, several, the directory of one, or a directory of such directories.

    Returns:
      Splits to serve until the end, and a directory of which the splits change.

    Raises:
      ArtefactError: the split in a directory cannot be read.
      InputError: no such directory, or no split is given.
    """
    if not isinstance(splits, str | os.PathLike):
        given: list[Split] = [*splits] if isinstance(splits, Sequence) else [splits]
        if not given:
            raise InputError("No split to serve; expected at least one, or a directory to watch.")
        return given, None
    directory = pathlib.Path(splits)
    if (directory / MANIFEST).exists():
        return [artefact.load(directory, sides=("cloud",))], None
    if not directory.is_dir() or (not _folders(directory) and any(directory.iterdir())):
        raise InputError(
            f"{directory / MANIFEST} is no file, and no folder in {directory} has one; expected a "
            "saved split, a directory of saved splits, or an empty one to be filled."
        )
    return [], directory


def _folders(directory: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        folder for folder in directory.iterdir()
        if not folder.name.startswith(".") and (folder / MANIFEST).is_file()
    )  # fmt: skip


def _stamp(folder: pathlib.Path) -> _Stamp:
    """Returns what changes when a file of the folder does."""
    found = []
    for entry in os.scandir(folder):
        status = entry.stat()
        found.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(sorted(found))
