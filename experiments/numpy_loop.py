"""The same errors by plain NumPy: what the benchmark compares `autosplit.profile` with.

    python -m experiments.numpy_loop --folder DIR

Two ways, for every tensor and bit-width:
  - the loop: quantize and dequantize the whole tensor at every ratio of a grid, then at
    those around the best, and keep the least mean squared error;
  - the histogram: autosplit's algorithm in NumPy, so that what comes from the
    algorithm and what from XLA can be told apart.

DIR/tensors.json describes the .npy files beside it; DIR/loop.json is written. The
benchmark starts this in a process of its own, where nothing imports JAX: its memory
would count.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from experiments.timing import added_memory, copy_bytes_per_s, reset_peak_memory

BINS = 1024
TINY = np.finfo(np.float32).tiny
PROGRESS_S = 10.0

Search = Callable[[np.ndarray, "Job", Sequence[int]], list[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is done to the tensors.

    Attributes:
      bits: K bit-widths.
      ratios: parts of the range that are tried.
      factors: tried around the best of these.
      passes: how often the loop and the histogram go over all tensors.
      copy_bytes: size of the reference copy.
      tensors: ``file`` and ``channel_axes`` of each; None for an activation.
    """

    bits: tuple[int, ...]
    ratios: tuple[float, ...]
    factors: tuple[float, ...]
    passes: dict[str, int]
    copy_bytes: int
    tensors: tuple[dict[str, Any], ...]


def activation_error(
    x: np.ndarray, low: float, high: float, bits: int, scratch: np.ndarray
) -> float:
    """Returns the mean squared error of an asymmetric quantization to ``2^bits`` levels.

    Args:
      x: f32, contiguous.
      low, high: the clip; widened to hold zero.
      bits: 1 to 8.
      scratch: of the shape of ``x``; overwritten.
    """
    low, high, last = min(low, 0.0), max(high, 0.0), 2**bits - 1
    scale = (high - low) / last
    scale = np.float32(scale if scale > TINY else 1.0)
    zero_point = np.float32(np.rint(-low / scale))
    np.divide(x, scale, out=scratch)
    np.rint(scratch, out=scratch)
    scratch += zero_point
    np.clip(scratch, 0, last, out=scratch)
    scratch -= zero_point
    scratch *= scale
    return _mean_square_difference(scratch, x)


def weight_error(
    weight: np.ndarray, clip: np.ndarray, bits: int, scratch: np.ndarray
) -> float:
    """Returns the mean squared error of a symmetric quantization by channel.

    Args:
      weight: f32, contiguous.
      clip: f32, broadcastable to ``weight``.
      bits: 1 to 8.
      scratch: of the shape of ``weight``; overwritten.
    """
    last = max(2 ** (bits - 1) - 1, 1)
    scale = np.maximum(clip / np.float32(last), TINY)
    if bits == 1:
        scratch[...] = np.where(weight < 0, -scale, scale)
    else:
        np.divide(weight, scale, out=scratch)
        np.rint(scratch, out=scratch)
        np.clip(scratch, -last, last, out=scratch)
        scratch *= scale
    return _mean_square_difference(scratch, weight)


def _mean_square_difference(value: np.ndarray, exact: np.ndarray) -> float:
    value -= exact
    flat = value.reshape(-1)
    return float(np.dot(flat, flat)) / max(flat.size, 1)


def measure_at(
    x: np.ndarray, axes: Sequence[int] | None, scratch: np.ndarray
) -> Callable[[float, int], float]:
    """Returns ``(ratio, bits) -> error`` of one tensor, its range found once."""
    if axes is None:
        low, high = float(x.min()), float(x.max())
        return lambda ratio, bits: activation_error(x, ratio * low, ratio * high, bits, scratch)
    reach = channel_reach(x, axes)
    return lambda ratio, bits: weight_error(x, np.float32(ratio) * reach, bits, scratch)


def channel_reach(weight: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Returns the largest magnitude of each output channel, broadcastable."""
    others = tuple(axis for axis in range(weight.ndim) if axis not in axes)
    return np.abs(weight).max(axis=others, keepdims=True)


def search_all(x: np.ndarray, job: Job, axes: Sequence[int] | None) -> list[float]:
    """Returns the least error over all ratios at each bit-width: the plain loop."""
    error = measure_at(x, axes, np.empty_like(x))
    best = []
    for bits in job.bits:
        tried = {ratio: error(ratio, bits) for ratio in job.ratios}
        middle = min(tried, key=lambda ratio: tried[ratio])
        finer = [error(min(middle * factor, 1.0), bits) for factor in job.factors]
        best.append(min(tried[middle], *finer))
    return best


def search_histogram(x: np.ndarray, job: Job, axes: Sequence[int] | None) -> list[float]:
    """Returns the error at the ratio that a histogram says is best, at each bit-width."""
    if axes is None:
        values, share = x, None
    else:
        # Channels brought to one range and weighted by its square share a histogram.
        reach = channel_reach(x, axes)
        values = x / np.maximum(reach, TINY)
        share = np.broadcast_to((reach / max(reach.max(), TINY)) ** 2, x.shape)
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(
        values, BINS, range=(low, high if high > low else low + 1.0), weights=share
    )

    def best_of(ratios: np.ndarray, bits: int) -> float:
        found = expected_error(edges, ratios[:, None], bits, symmetric=axes is not None)
        return float(ratios[np.argmin(found @ counts)])

    error = measure_at(x, axes, np.empty_like(x))
    best = []
    for bits in job.bits:
        middle = best_of(np.array(job.ratios), bits)
        best.append(error(best_of(np.minimum(middle * np.array(job.factors), 1.0), bits), bits))
    return best


def expected_error(
    edges: np.ndarray, ratios: np.ndarray, bits: int, *, symmetric: bool
) -> np.ndarray:
    """Returns the mean squared error in each bin, [ratios, bins], values uniform in it.

    Args:
      edges: f64[bins + 1].
      ratios: f64[ratios, 1], parts of the range.
      bits: 1 to 8.
      symmetric: levels of weights; otherwise of activations.
    """
    low, high = edges[0] * ratios, edges[-1] * ratios
    if not symmetric:
        return _rounding_error(edges, *_activation_levels(low, high, bits))
    scale, first, last = _weight_levels(np.maximum(-low, high), bits)
    if bits == 1:
        return (np.abs((edges[:-1] + edges[1:]) / 2) - last) ** 2
    return _rounding_error(edges, scale, first, last)


def _activation_levels(low: np.ndarray, high: np.ndarray, bits: int) -> tuple[np.ndarray, ...]:
    low, high, last = np.minimum(low, 0.0), np.maximum(high, 0.0), 2**bits - 1
    scale = (high - low) / last
    scale = np.where(scale > TINY, scale, 1.0)
    zero_point = np.rint(-low / scale)
    return scale, -zero_point * scale, (last - zero_point) * scale


def _weight_levels(clip: np.ndarray, bits: int) -> tuple[np.ndarray, ...]:
    last = max(2 ** (bits - 1) - 1, 1)
    scale = np.maximum(clip / last, TINY)
    return scale, -last * scale, last * scale


def _rounding_error(
    edges: np.ndarray, scale: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    left, right = edges[:-1], edges[1:]

    def integral(x: np.ndarray) -> np.ndarray:
        t = x / scale
        whole = np.rint(t)
        return scale**3 * (whole / 12 + (t - whole) ** 3 / 3)

    total = integral(np.clip(right, first, last)) - integral(np.clip(left, first, last))
    total += (np.maximum(first - left, 0) ** 3 - np.maximum(first - right, 0) ** 3) / 3
    total += (np.maximum(right - last, 0) ** 3 - np.maximum(left - last, 0) ** 3) / 3
    return total / (right - left)


def run_passes(folder: pathlib.Path, job: Job, name: str, search: Search) -> dict[str, Any]:
    """Goes over all tensors, one at a time; reading them from disk does not count.

    Returns:
      ``errors`` [tensors, K], ``pass_s`` and ``pass_cpu_s`` (one for each pass), and
      ``added_bytes``, a tensor's own memory included.
    """
    pass_s, pass_cpu_s = [], []
    sizes = [np.load(folder / t["file"], mmap_mode="r").size for t in job.tensors]
    before = reset_peak_memory()
    for _ in range(job.passes[name]):
        errors, wall_s, cpu_s, told_s = [], 0.0, 0.0, 0.0
        for index, tensor in enumerate(job.tensors):
            x = np.load(folder / tensor["file"])
            start, start_cpu = time.perf_counter(), time.process_time()
            errors.append(search(x, job, tensor["channel_axes"]))
            wall_s += time.perf_counter() - start
            cpu_s += time.process_time() - start_cpu
            if wall_s - told_s > PROGRESS_S:
                told_s = wall_s
                share = sum(sizes[: index + 1]) / sum(sizes)
                print(f"   {name}: {share:.0%} of the elements in {wall_s:.0f} s", flush=True)
        pass_s.append(wall_s)
        pass_cpu_s.append(cpu_s)
    return {"errors": errors, "pass_s": pass_s, "pass_cpu_s": pass_cpu_s,
            "added_bytes": added_memory(before)}  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Reads the job, runs both ways, writes the results."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    folder = pathlib.Path(flags.FLAGS.folder)
    job = Job(**json.loads((folder / "tensors.json").read_text()))
    copy_before = copy_bytes_per_s(job.copy_bytes)
    results = {
        "loop": run_passes(folder, job, "loop", search_all),
        "histogram": run_passes(folder, job, "histogram", search_histogram),
        "copy_bytes_per_s": [copy_before, copy_bytes_per_s(job.copy_bytes)],
    }
    unfinished = folder / "loop.json.tmp"
    unfinished.write_text(json.dumps(results))
    os.replace(unfinished, folder / "loop.json")


if __name__ == "__main__":
    flags.DEFINE_string("folder", None, "Directory with tensors.json.", required=True)
    app.run(main)
