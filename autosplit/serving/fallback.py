"""Fallback: the edge computes alone, because its plan says so or because the link is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError, ProtocolError
from autosplit.execution.halves import Split
from autosplit.serving import codec
from autosplit.serving.stage_times import StageTimes

Outputs = tuple[np.ndarray, ...]


def edge_only(splits: Sequence[Split]) -> Split | None:
    """Returns the first split of which nothing crosses: what answers while the link is down.

    Args:
      splits: of one function.
    """
    return next((split for split in splits if not split.manifest.crossing), None)


def infer_on_edge(split: Split, *inputs: ArrayLike) -> tuple[Outputs, StageTimes]:
    """Returns the outputs of a split of which nothing crosses, without a server.

    Args:
      split: without crossing tensors.
      *inputs: one array per ``manifest.inputs``, with its exact shape.

    Returns:
      The flat outputs, and the times: all but the edge and the total are 0.

    Raises:
      InputError: the inputs are not those of the manifest, or tensors cross the cut.
      ProtocolError: the split's outputs differ from its manifest.
    """
    if split.manifest.crossing:
        raise InputError(
            f"Split {split.manifest.split_id} sends "
            f"{[spec.name for spec in split.manifest.crossing]}: the edge cannot finish alone. "
            "Start a cloud server and connect to it."
        )
    check_inputs(split, inputs)
    started_s = time.perf_counter()
    outputs, edge_s = timed(split.edge_layers, *inputs)
    outputs = codec.check_values(split.manifest.outputs, outputs)
    total_s = time.perf_counter() - started_s
    idle = dict.fromkeys(("pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s"), 0.0)
    return outputs, StageTimes(edge_s=edge_s, round_trip_s=0.0, total_s=total_s, **idle)


def check_inputs(split: Split, inputs: tuple[ArrayLike, ...]) -> None:
    """Raises unless ``inputs`` have the count, shapes and types of the manifest.

    Args:
      split: whose inputs they are to be.
      inputs: flat.

    Raises:
      InputError: another count, shape or type, which would compile another program.
    """
    try:
        codec.check_values(split.manifest.inputs, inputs)
    except ProtocolError as error:
        raise InputError(f"The inputs do not fit the split. {error}") from error


def timed(stage: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Returns what a stage computes, once it is there, and the seconds that it took."""
    started_s = time.perf_counter()
    result = jax.block_until_ready(stage(*arguments))
    return result, time.perf_counter() - started_s
