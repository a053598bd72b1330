"""Dominance: which points of a set are not beaten in every coordinate."""

from __future__ import annotations

import numpy as np

BLOCK = 256


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Finds the points that no other point beats (all coordinates minimised).

    Of equal points the first is kept.

    Args:
      points: f64[N, D], infinities allowed.

    Returns:
      i64[M], ascending indices of the points that are kept.

    >>> non_dominated(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 4.0], [1.0, 3.0]])).tolist()
    [0, 1]
    """
    order = np.lexsort(points.T[::-1])
    ranked = points[order]
    if points.shape[1] == 1:
        return order[:1]
    if points.shape[1] == 2:
        before = np.concatenate([[np.inf], np.minimum.accumulate(ranked[:-1, 1])])
        first = np.arange(len(order)) == 0
        return np.sort(order[(ranked[:, 1] < before) | first])
    if points.shape[1] == 3:
        return np.sort(order[_filter_staircase(ranked)])
    return np.sort(order[_filter_blocks(ranked)])


def _filter_staircase(ranked: np.ndarray) -> np.ndarray:
    """As `_filter_blocks` for three coordinates.

    Earlier points are no worse in the first. Of the others, only the lower left
    staircase matters, on which one search tells whether a point is beaten.
    """
    kept: list[np.ndarray] = []
    stairs = np.zeros((0, 2))
    for start in range(0, len(ranked), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(ranked)))
        step = np.searchsorted(stairs[:, 0], ranked[block, 1], side="right") - 1
        if len(stairs):
            block = block[(step < 0) | ~(stairs[step, 1] <= ranked[block, 2])]
        earlier = np.tri(len(block), k=-1, dtype=bool)
        inside = _covers(ranked[block], ranked[block]) & earlier
        block = block[~inside.any(axis=1)]
        kept.append(block)
        stairs = np.concatenate([stairs, ranked[block, 1:]])
        stairs = stairs[np.lexsort(stairs.T[::-1])]
        lowest = np.minimum.accumulate(stairs[:, 1])
        first = np.concatenate([[True], lowest[1:] < lowest[:-1]])
        stairs = stairs[first]
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)


def _filter_blocks(ranked: np.ndarray) -> np.ndarray:
    """Returns the kept positions of lexicographically sorted points, block by block."""
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(ranked), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(ranked)))
        block = block[~_covers(ranked[kept], ranked[block]).any(axis=1)]
        earlier = np.tri(len(block), k=-1, dtype=bool)
        inside = _covers(ranked[block], ranked[block]) & earlier
        kept = np.concatenate([kept, block[~inside.any(axis=1)]])
    return kept


def _covers(better: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns bool[points, better]: no worse in the coordinates after the first."""
    covers = np.ones((len(points), len(better)), dtype=bool)
    for mine, theirs in zip(points.T[1:], better.T[1:], strict=True):
        covers &= theirs <= mine[:, None]
    return covers
