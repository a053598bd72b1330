"""What the benchmark is made of: the plain loop, its photographs and its clock."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from experiments import numpy_loop
from experiments.benchmark_case import photograph_like
from experiments.benchmark_report import excess_of
from experiments.timing import added_memory, reset_peak_memory, timed

BITS = (1, 2, 4, 8)


@pytest.mark.parametrize("bits", BITS)
def test_activation_error_is_the_distance_to_the_nearest_level(bits: int) -> None:
    x = np.random.default_rng(0).normal(size=500).astype(np.float32)
    low, high = -1.0, 1.5
    scale = (high - low) / (2**bits - 1)
    levels = (np.arange(2**bits) - np.rint(-low / scale)) * scale
    nearest = np.abs(x[:, None] - levels).min(axis=1)
    error = numpy_loop.activation_error(x, low, high, bits, np.empty_like(x))
    assert error == pytest.approx(np.mean(nearest**2), rel=1e-4)


@pytest.mark.parametrize("bits", BITS)
def test_weight_error_is_the_distance_to_the_nearest_level_of_the_channel(bits: int) -> None:
    weight = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    clip = np.array([[0.5, 1.0, 4.0]], np.float32)
    steps = np.array([-1, 1]) if bits == 1 else np.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1))
    levels = steps * clip[..., None] / np.abs(steps).max()
    nearest = np.abs(weight[..., None] - levels).min(axis=-1)
    error = numpy_loop.weight_error(weight, clip, bits, np.empty_like(weight))
    assert error == pytest.approx(np.mean(nearest**2), rel=1e-4)


@pytest.mark.parametrize("axes", [None, [1]])
def test_histogram_search_comes_near_the_grid_search(axes: list[int] | None) -> None:
    x = np.random.default_rng(0).standard_t(4, size=(400, 5)).astype(np.float32)
    job = numpy_loop.Job(
        bits=BITS, ratios=tuple(np.geomspace(0.02, 1.0, 48).tolist()), factors=(1.0,),
        passes={}, copy_bytes=1, tensors=(),
    )  # fmt: skip
    best = np.array(numpy_loop.search_all(x, job, axes))
    found = np.array(numpy_loop.search_histogram(x, job, axes))
    assert (found >= best).all()
    assert (found <= 1.05 * best).all()


# ---- Measuring


def test_timed_calls_once_more_than_it_repeats() -> None:
    calls = []
    result, timing = timed(lambda: calls.append(1) or len(calls), repeats=3)
    assert result == len(calls) == 4
    assert len(timing.warm_s) == len(timing.warm_cpu_s) == 3


def test_peak_memory_is_that_of_what_was_held() -> None:
    before = reset_peak_memory()
    if before is None:
        pytest.skip("this system does not tell the peak of resident memory")
    # A mapping of its own: an array could reuse memory that is already resident.
    size = 64 << 20
    with mmap.mmap(-1, size) as held:
        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1
    assert size * 0.9 < added_memory(before) < size * 1.5


def test_excess_of_a_constant_tensor_is_zero() -> None:
    assert excess_of([[0.0, 1.1]], [[0.0, 1.0]])["smallest"] == 0.0


def test_photographs_are_smooth_and_repeatable() -> None:
    images = photograph_like(2, 64, seed=1).astype(float)
    neighbours = np.corrcoef(images[:, 1:].ravel(), images[:, :-1].ravel())[0, 1]
    assert neighbours > 0.6
    assert (images == photograph_like(2, 64, seed=1)).all()
    assert (images != photograph_like(2, 64, seed=2)).any()
