"""Load: many clients that keep one cloud server busy, and what they measure."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import grpc
import numpy as np

from autosplit.errors import CloudUnavailableError
from autosplit.execution.halves import Split
from autosplit.serving import codec
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc

LONG_S = 60.0
"""Until a request counts as lost."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent, and for how long.

    Attributes:
      address: ``host:port`` of the server.
      clients: that send at the same time.
      warmup_s: before answers count.
      seconds: for which they count.
    """

    address: str
    clients: int
    warmup_s: float
    seconds: float


async def send_load(split: Split, payload: tuple[np.ndarray, ...], load: Load) -> dict[str, Any]:
    """Keeps all clients busy and returns what they measured.

    Each client has a connection of its own and one request under way: it sends the next one
    when the answer is there.

    Args:
      split: whose cloud half is served.
      payload: of every request.
      load: how many clients, and for how long.

    Returns:
      Answers that counted, the seconds in which they came, and of each the seconds that it
      took (``latency_s``), waited (``queue_s``), was computed (``cloud_s``, its batch as a
      whole) and with how many it was computed (``batch``).

    Raises:
      CloudUnavailableError: the server did not answer a request, or refused it.
    """
    start_s = time.perf_counter() + load.warmup_s
    end_s = start_s + load.seconds
    failures: list[Exception] = []
    try:
        async with asyncio.TaskGroup() as group:
            clients = [
                group.create_task(_client(split, payload, load.address, number, end_s))
                for number in range(load.clients)
            ]
    except* grpc.RpcError as errors:
        failures.extend(errors.exceptions)
    if failures:
        raise CloudUnavailableError(
            f"The cloud server at {load.address} failed under {load.clients} clients "
            f"({failures[0]}); expected every request to be answered. Look at its log."
        ) from failures[0]
    rows = [row for task in clients for row in task.result() if row[0] > start_s]
    names = ("ended_s", "latency_s", "queue_s", "unpack_s", "cloud_s", "batch")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    ended_s = columns.pop("ended_s", (end_s,))
    return {
        "clients": load.clients,
        "answers": len(rows),
        "seconds": max(ended_s) - start_s,
        "request_bytes": codec.encode_request(split.manifest, payload, bytes(16), 1).ByteSize(),
        **columns,
    }


async def _client(
    split: Split, payload: tuple[np.ndarray, ...], address: str, number: int, end_s: float
) -> list[tuple[float, ...]]:
    """Returns when each answer came, and its times."""
    client_id = number.to_bytes(16, "big")
    message = codec.encode_request(split.manifest, payload, client_id, 1)
    # Channels to one address share a connection unless they are told not to.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
               ("grpc.max_receive_message_length", -1))  # fmt: skip
    rows: list[tuple[float, ...]] = []
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = pb2_grpc.SplitInferenceStub(channel)
        started_s = time.perf_counter()
        message.request_id = time.time_ns()  # another run's clients have the same ids
        while started_s < end_s:
            message.request_id += 1
            answer: pb2.InferResponse = await stub.Infer(message, timeout=LONG_S)
            now_s = time.perf_counter()
            rows.append((now_s, now_s - started_s, answer.queue_s, answer.unpack_s,
                         answer.cloud_s, answer.batch))  # fmt: skip
            started_s = now_s
    codec.decode_response(split.manifest, answer)  # the last one: are these the outputs at all?
    return rows
