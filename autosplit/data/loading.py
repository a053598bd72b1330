"""Reads batches of images in a fixed order, decoded ahead of time by grain.

What is in batch ``b`` follows from the seed, the epoch and ``b`` alone: neither the
number of threads and processes that decode nor an interruption changes it.

Needs grain, which `autosplit.data` does not load: import this module by its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import flags

from autosplit.data.sources import Source
from autosplit.errors import InputError

REMAINDERS = ("pad", "drop")
"""What to do with images that fill no whole batch on every process."""

NO_IMAGE = -1
"""Index and label of a place that is padded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loading:
    """How a source is read.

    Attributes:
      batch_size: images of one batch of one process.
      seed: of the order, 0 or more; None keeps the source's order.
      epoch: with a seed, every epoch has an order of its own.
      process_index, process_count: this process reads every process_count-th image of
        the order, starting with its index; all get equally many batches.
      remainder: ``"pad"`` fills the last batch with places that are not valid,
        ``"drop"`` leaves the last images out.
      threads: that decode, in each worker.
      workers: processes that decode; 0 means only this one.
      prefetch_batches: decoded ahead.
    """

    batch_size: int
    seed: int | None = None
    epoch: int = 0
    process_index: int = 0
    process_count: int = 1
    remainder: str = "pad"
    threads: int = 2
    workers: int = 0
    prefetch_batches: int = 2

    def __post_init__(self) -> None:
        least = {
            "batch_size": 1, "epoch": 0, "process_index": 0, "process_count": 1,
            "threads": 1, "workers": 0, "prefetch_batches": 1,
        }  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"{name} is {getattr(self, name)}; expected {low} or more.")
        if self.seed is not None and self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected 0 or more, or None for no shuffle.")
        if self.process_index >= self.process_count:
            raise InputError(
                f"process_index is {self.process_index}; expected 0 to {self.process_count - 1}, "
                f"as process_count is {self.process_count}."
            )
        if self.remainder not in REMAINDERS:
            raise InputError(f"remainder is {self.remainder!r}; expected one of {REMAINDERS}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one batch.

    Attributes:
      images: u8[B, H, W, 3]; zeros where not valid.
      labels: i64[B], or None where the source has none; -1 where not valid.
      indices: i64[B], places in the source; -1 where not valid.
      valid: bool[B]; False where the last batch was padded.
    """

    images: np.ndarray
    labels: np.ndarray | None
    indices: np.ndarray
    valid: np.ndarray


def batch_indices(images: int, loading: Loading) -> np.ndarray:
    """Returns which images this process reads, batch by batch.

    Args:
      images: length of the source.
      loading: see there.

    Returns:
      i64[batches, batch_size]; -1 where a place is padded.

    Raises:
      InputError: there is no image, or none is left after dropping.

    >>> batch_indices(5, Loading(batch_size=2)).tolist()
    [[0, 1], [2, 3], [4, -1]]
    >>> batch_indices(5, Loading(batch_size=2, process_index=1, process_count=2)).tolist()
    [[1, 3], [-1, -1]]
    """
    step = loading.batch_size * loading.process_count
    batches = images // step if loading.remainder == "drop" else -(-images // step)
    if batches < 1:
        raise InputError(
            f"{images} images fill no batch of {step} ({loading.batch_size} on each of "
            f"{loading.process_count} processes); expected more images, or remainder='pad'."
        )
    order = np.arange(images)
    if loading.seed is not None:
        order = np.random.default_rng((loading.seed, loading.epoch)).permutation(images)
    padding = np.full(max(batches * step - images, 0), NO_IMAGE)
    order = np.concatenate([order, padding])[: batches * step].astype(np.int64)
    return order[loading.process_index :: loading.process_count].reshape(batches, -1)


def load_batches(source: Source, loading: Loading, start: int = 0) -> Iterator[Batch]:
    """Reads one epoch's batches of this process.

    To go on after an interruption pass how many batches were taken as ``start``; those
    are not read again.

    Args:
      source: of the images.
      loading: see there.
      start: first batch, 0 to the number of batches.

    Returns:
      An iterator over batches, all of one size.

    Raises:
      InputError: as `batch_indices`, or start is out of range.
      CalibrationError: an image cannot be decoded; raised where its batch is due.
    """
    indices = batch_indices(len(source), loading)
    if not 0 <= start <= len(indices):
        raise InputError(f"start is {start}; expected 0 to {len(indices)}, the number of batches.")
    return _read(source, loading, indices[start:].ravel())


def _read(source: Source, loading: Loading, order: np.ndarray) -> Iterator[Batch]:
    if not len(order):
        return
    dataset = (
        grain.MapDataset.source(_Order(indices=order))
        .map(functools.partial(_record, source=source))
        .batch(loading.batch_size, batch_fn=_stack)
        .to_iter_dataset(
            grain.ReadOptions(
                num_threads=loading.threads, prefetch_buffer_size=loading.prefetch_batches
            )
        )
    )
    if loading.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads its own, which only a program parses
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=loading.workers))
    with contextlib.closing(iter(dataset)) as iterator:  # else workers outlive a reader that stops
        for arrays in iterator:
            # Copied, as a worker's arrays lie in shared memory that is freed with the original.
            images, labels, indices = map(np.array, arrays)
            yield Batch(
                images=images,
                labels=labels if source.has_labels else None,
                indices=indices,
                valid=indices != NO_IMAGE,
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Order:
    """The indices as a source of grain's."""

    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> int:
        return int(self.indices[position])


_Record = tuple[np.ndarray, int, int]


def _record(index: int, source: Source) -> _Record:
    if index == NO_IMAGE:
        return np.zeros(source.shape, np.uint8), NO_IMAGE, NO_IMAGE
    return *source[index], index


def _stack(records: Sequence[_Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, labels, indices = zip(*records, strict=True)
    return np.stack(images), np.array(labels, np.int64), np.array(indices, np.int64)
