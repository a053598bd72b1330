"""Draws mixed bit-widths: of any mean, or all of the same mean."""

from __future__ import annotations

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.table import Profile
from autosplit.workload import FLOAT_BITS


def drawn_bits(
    profile: Profile, rng: np.random.Generator, spread_bits: float, mean_bits: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws bits around a mean, normally distributed and rounded to the next candidates.

    Args:
      profile: with the candidates.
      rng: source of the draw.
      spread_bits: standard deviation.
      mean_bits: drawn too, evenly over the candidates without the lowest, if not given.

    Returns:
      i64[L] and i64[T], `FLOAT_BITS` where there is nothing to quantize.
    """
    if mean_bits is None:
        mean_bits = rng.uniform(profile.bits[min(1, len(profile.bits) - 1)], profile.bits[-1])
    free = free_places(profile)
    drawn = rng.normal(mean_bits, spread_bits, free.sum())
    nearest = np.abs(drawn[:, None] - profile.bits).argmin(axis=1)
    return _placed(profile, free, profile.bits[nearest])


def drawn_bits_of_mean(
    profile: Profile, rng: np.random.Generator, spread_bits: float, mean_bits: float
) -> tuple[np.ndarray, np.ndarray]:
    """As `drawn_bits`, then moves single bits up or down until the mean is as asked for.

    Raises:
      InputError: the mean is out of the candidates' range.
    """
    low, high = profile.bits[[0, -1]]
    if not low <= mean_bits <= high:
        raise InputError(f"The mean is {mean_bits} bits; expected {low} to {high}.")
    free = free_places(profile)
    column = np.searchsorted(
        profile.bits, np.concatenate(drawn_bits(profile, rng, spread_bits, mean_bits))[free]
    )
    wanted = mean_bits * free.sum()
    while True:
        missing = wanted - profile.bits[column].sum()
        step = int(np.sign(missing))
        movable = np.flatnonzero((column + step >= 0) & (column + step < len(profile.bits)))
        place = rng.choice(movable)
        change = profile.bits[column[place] + step] - profile.bits[column[place]]
        # As near as it gets: the next step would lead away.
        if step == 0 or abs(missing - change) >= abs(missing):
            return _placed(profile, free, profile.bits[column])
        column[place] += step


def free_places(profile: Profile) -> np.ndarray:
    """Returns bool[L + T]: weights, and tensors that a layer writes and that make an error."""
    made = (profile.producer >= 0) & (profile.activation_gain > 0).any(axis=1)
    return np.concatenate([profile.has_weight, made])


def _placed(profile: Profile, free: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    every = np.full(len(free), FLOAT_BITS, np.int64)
    every[free] = bits
    layers = len(profile.macs)
    return every[:layers], every[layers:]
