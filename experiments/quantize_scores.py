"""Runs a quantized network on photographs, few at a time, and scores what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import autosplit
from autosplit.errors import InputError
from autosplit.evaluation import agreement, output_error, top_k_accuracy
from autosplit.graph.running import GraphWeights, prepare
from autosplit.models.preprocessing import TORCHVISION
from autosplit.profiling.assignment import Quantized, assignment_outputs, float_outputs
from experiments.photograph_chunks import filled_chunks
from experiments.steps import load_job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A traced network and photographs, those that calibrate apart from those that are scored.

    Attributes:
      graph, params: of the network.
      weights: from `prepare`, in float.
      calibration: f32[n, H, W, 3].
      calibration_labels: i64[n], or None.
      images: u8[N, H, W, 3], which are scored.
      labels: i64[N], or None.
      chunk: images that run together.
      normalize: u8[..., 3] to what the network takes.
      reference: f32[N, classes], the outputs in float.
    """

    graph: autosplit.LayerGraph
    params: Any
    weights: GraphWeights
    calibration: np.ndarray
    calibration_labels: np.ndarray | None
    images: np.ndarray
    labels: np.ndarray | None
    chunk: int
    normalize: Callable[[np.ndarray], np.ndarray]
    reference: np.ndarray


def load_bench(config: ml_collections.ConfigDict) -> Bench:
    """Loads the network and the photographs, and runs them in float.

    Args:
      config: see ``configs/quantize``.

    Raises:
      AutosplitError: no such model, weights or images, or none are left to score.
    """
    job = load_job(config)
    photographs = job.photographs
    chosen = calibrating(len(photographs), config.images.calibration)
    rest = np.setdiff1d(np.arange(len(photographs)), chosen)
    if not len(rest) or config.chunk < 1:
        raise InputError(
            f"config.images.calibration is {len(chosen)} of {len(photographs)} photographs and "
            f"config.chunk is {config.chunk}; expected photographs that are left to score, and 1 "
            "or more of them at a time."
        )
    labels = photographs.labels
    graph = autosplit.trace(job.apply, job.variables, job.inputs[:1])
    weights = prepare(graph, job.variables)
    images = photographs.images[rest]
    return Bench(
        graph=graph,
        params=job.variables,
        weights=weights,
        calibration=job.normalize(photographs.images[chosen]),
        calibration_labels=None if labels is None else labels[chosen],
        images=images,
        labels=None if labels is None else labels[rest],
        chunk=config.chunk,
        normalize=job.normalize,
        reference=in_chunks(
            lambda calls: float_outputs(graph, weights, calls), images, config.chunk,
            job.normalize,
        ),
    )


def calibrating(count: int, calibration: int) -> np.ndarray:
    """Returns which of the photographs calibrate, evenly over all: they lie sorted by class.

    >>> calibrating(10, 3)
    array([0, 3, 6])
    """
    return np.arange(calibration) * count // calibration


def in_chunks(
    run: Callable[[Sequence[jax.Array]], Sequence[jax.Array]],
    images: np.ndarray,
    chunk: int,
    normalize: Callable[[np.ndarray], np.ndarray] = TORCHVISION.normalize,
) -> np.ndarray:
    """Runs a classifier over photographs by one program: the last chunk is filled up.

    Args:
      run: calls ``[m, 1, H, W, 3]`` -> flat outputs, the first of which is returned.
      images: u8[N, H, W, 3].
      chunk: m.
      normalize: u8[..., 3] to what the network takes.

    Returns:
      f32[N, classes].
    """
    found = []
    for part, count in filled_chunks(images, chunk):
        outputs = run([jnp.asarray(normalize(part)[:, None])])
        found.append(np.asarray(outputs[0])[:count, 0])
    return np.concatenate(found)


def quantized_logits(bench: Bench, quantized: Quantized) -> np.ndarray:
    """Returns what a quantized network answers on the photographs, f32[N, classes]."""
    return in_chunks(
        lambda calls: assignment_outputs(
            bench.graph, quantized.weights, quantized.assignment, calls
        ),
        bench.images,
        bench.chunk,
        bench.normalize,
    )


def score(bench: Bench, logits: np.ndarray) -> dict[str, Any]:
    """Scores outputs on the photographs of a bench, as `score_logits`."""
    return score_logits(bench.reference, bench.labels, logits)


def score_logits(
    reference: np.ndarray, labels: np.ndarray | None, logits: np.ndarray
) -> dict[str, Any]:
    """Scores outputs on photographs.

    Args:
      reference: f32[N, classes], the outputs in float.
      labels: i64[N], or None.
      logits: f32[N, classes].

    Returns:
      ``images``, ``top1`` and ``top5`` (None without labels), ``agreement`` with the most
      probable class in float, and ``output_error`` against the outputs in float. Outputs that
      are not finite count as wrong, and their error is infinite.
    """
    count = len(logits)
    broken = ~np.isfinite(logits).all()
    usable = np.nan_to_num(logits, nan=-1e30, posinf=1e30, neginf=-1e30)
    return {
        "images": count,
        "top1": None if labels is None else top_k_accuracy(usable, labels, 1),
        "top5": None if labels is None else top_k_accuracy(usable, labels, 5),
        "agreement": agreement(reference, usable),
        "output_error": float("inf") if broken else output_error(reference, logits),
    }
