"""Metrics of the server for Prometheus: requests, time of each stage, bytes, queue, batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from autosplit.errors import InputError
from autosplit.serving import split_inference_pb2 as pb2

_STAGE_BOUNDS_S = tuple(base * 10.0**power for power in range(-5, 2) for base in (1, 2.5, 5))
_SHOWN_CHARS = 12  # of a split's id: enough to tell splits apart


class Metrics:
    """Counters of one server, apart from those of any other in this process.

    Args:
      queued: returns how many requests wait.
      splits: returns how many splits are served.
    """

    def __init__(self, queued: Callable[[], int], splits: Callable[[], int]) -> None:
        self.registry = own = CollectorRegistry()
        self._requests = Counter(
            "autosplit_requests", "Requests by their gRPC status.", ("split", "status"),
            registry=own,
        )  # fmt: skip
        self._repeated = Counter(
            "autosplit_repeated_requests", "Answered without computing again.", registry=own
        )
        self._bytes = Counter(
            "autosplit_bytes", "Serialized messages.", ("split", "direction"), registry=own
        )
        self._stages = Histogram(
            "autosplit_stage_seconds", "Time of each stage of a computed request.",
            ("split", "stage"), buckets=_STAGE_BOUNDS_S, registry=own,
        )  # fmt: skip
        self._batches = Histogram(
            "autosplit_batch_requests", "Requests that were computed together, per request.",
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=own,
        )  # fmt: skip
        waiting = Gauge("autosplit_queued_requests", "Requests that wait.", registry=own)
        waiting.set_function(queued)
        Gauge("autosplit_splits", "Splits that are served.", registry=own).set_function(splits)

    def count(self, split_id: str, status: str) -> None:
        """Counts a request that got its answer or refusal; ``split_id`` is one that is served."""
        self._requests.labels(split_id[:_SHOWN_CHARS], status).inc()

    def repeat(self) -> None:
        """Counts a request that joined one under way or got a kept answer."""
        self._repeated.inc()

    def received(self, split_id: str, num_bytes: int) -> None:
        """Counts the bytes of a request."""
        self._bytes.labels(split_id[:_SHOWN_CHARS], "in").inc(num_bytes)

    def computed(self, split_id: str, response: pb2.InferResponse, total_s: float) -> None:
        """Records the stages of a request, from its own response.

        Args:
          split_id: that was asked for.
          response: with its stages and the size of its batch.
          total_s: from the request's arrival to its response.
        """
        label = split_id[:_SHOWN_CHARS]
        stages_s = {"queue": response.queue_s, "unpack": response.unpack_s,
                    "cloud": response.cloud_s, "total": total_s}  # fmt: skip
        for stage, seconds in stages_s.items():
            self._stages.labels(label, stage).observe(seconds)
        self._batches.observe(response.batch)
        self._bytes.labels(label, "out").inc(response.ByteSize())


@contextlib.contextmanager
def served_metrics(metrics: Metrics, address: str | None) -> Iterator[str | None]:
    """Serves metrics over HTTP while the block runs.

    Args:
      metrics: of the server.
      address: ``host:port``; port 0 takes a free one; None serves nothing.

    Yields:
      The bound ``host:port``, or None.

    Raises:
      InputError: the address cannot be bound.
    """
    if address is None:
        yield None
        return
    host, _, digits = address.rpartition(":")
    try:
        server, thread = start_http_server(int(digits), host, metrics.registry)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"Cannot serve metrics on {address!r} ({error}). Give host:port with a host of this "
            "machine and a free port, such as 127.0.0.1:0."
        ) from error
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
