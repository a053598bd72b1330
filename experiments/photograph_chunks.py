"""Photographs a few at a time, always as many, so that one program runs them all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def filled_chunks(images: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields ``size`` images at a time, and how many of them count.

    The last chunk is filled up with its last image.

    Args:
      images: [N, ...], at least one.
      size: 1 or more.

    >>> [(part.tolist(), count) for part, count in filled_chunks(np.arange(3), 2)]
    [([0, 1], 2), ([2, 2], 1)]
    """
    for begin in range(0, len(images), size):
        part = images[begin : begin + size]
        yield np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]), len(part)
