"""Runs frames through a stream and says what became of each of them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from autosplit.execution.halves import Split
from autosplit.serving.edge_client import EdgeClient
from autosplit.serving.protocol import PROTOCOL_VERSION
from autosplit.serving.stage_times import median_times
from autosplit.serving.streaming import Answer, StreamOptions

MOST_KEPT = 10_000
"""Answers of a camera that runs for long; older ones are counted and dropped."""

LOG_EVERY_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamRun:
    """What a stream did.

    Attributes:
      answers: the last `MOST_KEPT`, in order.
      counts: of all answers, by source, and ``"error"``.
      elapsed_s: from the first frame to the last answer.
    """

    answers: Sequence[Answer]
    counts: Mapping[str, int]
    elapsed_s: float


def run_stream(
    client: EdgeClient, frames: Iterable[tuple[np.ndarray, ...]], options: StreamOptions
) -> StreamRun:
    """Sends frames until they end or Ctrl-C is pressed.

    Args:
      client: connected.
      frames: inputs of each request.
      options: of the stream.
    """
    kept: collections.deque[Answer] = collections.deque(maxlen=MOST_KEPT)
    counts: collections.Counter[str] = collections.Counter()
    started_s = logged_s = time.perf_counter()
    with contextlib.closing(client.stream(frames, options)) as answers:
        with contextlib.suppress(KeyboardInterrupt):
            for answer in answers:
                kept.append(answer)
                counts["error" if answer.error else answer.source] += 1
                if time.perf_counter() - logged_s >= LOG_EVERY_S:
                    logged_s = time.perf_counter()
                    _tell(answer, counts.total() / (logged_s - started_s))
        elapsed_s = time.perf_counter() - started_s
    return StreamRun(answers=tuple(kept), counts=dict(counts), elapsed_s=elapsed_s)


def _tell(answer: Answer, frames_per_s: float) -> None:
    rate = "unknown" if answer.bits_per_s is None else f"{answer.bits_per_s / 1e6:.3g} Mbit/s"
    logging.info(
        "frame %d by %s (%s): %.1f frames/s, link %s",
        answer.frame, answer.source, answer.label, frames_per_s, rate,
    )  # fmt: skip


def stream_report(run: StreamRun, splits: Sequence[Split]) -> dict[str, Any]:
    """Returns what is written of a run, as JSON values and dataclasses.

    Args:
      run: with at least one answer.
      splits: of the client, in the order of ``Answer.plan``.
    """
    timed = [answer.times for answer in run.answers if answer.times is not None]
    names = [one.name for one in dataclasses.fields(Answer) if one.name not in ("outputs", "error")]
    answers = [
        {name: getattr(one, name) for name in names} | {"error": one.error and str(one.error)}
        for one in run.answers
    ]
    return {
        "protocol_version": PROTOCOL_VERSION,
        "split_id": splits[0].manifest.split_id,
        "plans": [
            {"split_id": split.manifest.split_id, "label": split.manifest.label} for split in splits
        ],
        "frames": sum(run.counts.values()),
        "frames_per_s": sum(run.counts.values()) / run.elapsed_s,
        "elapsed_s": run.elapsed_s,
        "counts": run.counts,
        "measured": median_times(timed) if timed else None,
        "predicted": splits[0].manifest.predicted,
        "answers": answers,
    }


def stream_outputs(run: StreamRun) -> dict[str, np.ndarray]:
    """Returns the outputs of the answered frames, stacked, and the frames that they belong to."""
    answered = [one for one in run.answers if one.outputs is not None]
    leaves = zip(*(one.outputs or () for one in answered), strict=True)
    stacked = {f"out{index}": np.stack(leaf) for index, leaf in enumerate(leaves)}
    return {**stacked, "frame": np.array([one.frame for one in answered], np.int64)}
