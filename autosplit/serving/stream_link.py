"""Stream link: keeps one stream to the server open, through broken connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from autosplit.errors import CloudUnavailableError
from autosplit.execution.halves import Split
from autosplit.hardware.network import Network
from autosplit.serving import protocol, retries
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.in_flight import InFlight
from autosplit.serving.link import ShapedLink, sleep_until
from autosplit.serving.retries import Metadata, RetryPolicy

GREETING_S = 5.0
"""Longest wait for a server to describe itself on a new connection."""


class StreamLink:
    """The thread that opens connections, and sends and receives over the one that is open.

    After a failure it waits as the policy says, opens a new channel (the old one may sit
    on a connection that is dead without knowing), checks again what the server serves,
    and sends again whatever has no answer.

    Attributes:
      round_trip_s: of a small message on the present connection, by the greeting; 0 before.
      served: positions of the splits that the server has.
      lost_since_s: since when there is no connection; None while there is one.
      received_s: when the last response came or the connection was opened.
      failure: what ended the stream for good.
    """

    def __init__(
        self,
        *,
        splits: Sequence[Split],
        open_channel: Callable[[], grpc.Channel],
        metadata: Metadata,
        link: ShapedLink | None,
        address: str,
        retry: RetryPolicy,
        in_flight: InFlight,
        accept: Callable[[pb2.InferResponse, float], None],
    ):
        self.round_trip_s = 0.0
        self.served: frozenset[int] = frozenset()
        self.lost_since_s: float | None = time.perf_counter()
        self.received_s = time.perf_counter()
        self.failure: Exception | None = None
        self._splits = splits
        self._open_channel = open_channel
        self._metadata = tuple(metadata)
        self._link = link
        self._address = address
        self._retry = retry
        self._in_flight = in_flight
        self._accept = accept
        self._call: Any = None
        self._channel: Any = None
        self._left_s: dict[int, float] = {}
        self._downlink_free_s = 0.0
        self._answered = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    def break_off(self) -> None:
        """Gives the present connection up; the next one is opened after a pause."""
        with self._in_flight.changed:
            self.received_s = time.perf_counter()
            if self._call is not None:
                self._call.cancel()

    def close(self) -> None:
        """Ends the stream and waits for the thread."""
        with self._in_flight.changed:
            self._closing.set()
            self._in_flight.close()
            if self._channel is not None:
                self._channel.close()
        self._thread.join()

    def _run(self) -> None:
        waits_s = self._retry.waits_s()
        while not self._closing.is_set() and not self._in_flight.ended:
            self._answered, told_s = False, 0.0
            try:
                with self._open_channel() as self._channel:
                    self._talk(pb2_grpc.SplitInferenceStub(self._channel))
            except Exception as error:
                if self._closing.is_set():  # closing ends whatever call was under way
                    return
                wait_s = self._may_continue(error)
                if wait_s is None:
                    return
                told_s = wait_s
            if self._answered:  # it had worked: begin with short waits again
                waits_s = self._retry.waits_s()
            self._pause(max(told_s, next(waits_s)))

    def _pause(self, pause_s: float) -> None:
        with self._in_flight.changed:
            self._call = None
            if self.lost_since_s is None:
                self.lost_since_s = time.perf_counter()
            self._in_flight.changed.notify_all()
            self._in_flight.changed.wait_for(
                lambda: self._closing.is_set() or self._in_flight.ended, timeout=pause_s
            )

    def _may_continue(self, error: Exception) -> float | None:
        """Returns how long the server asks to wait; None where a repetition cannot help."""
        if isinstance(error, grpc.RpcError):
            told_s = retries.repeat_after_s(error, 0.0)
            known = retries.failure(error, self._address, GREETING_S)
            if told_s is not None or isinstance(known, CloudUnavailableError):
                return told_s or 0.0
            error = known
        if isinstance(error, CloudUnavailableError):
            return 0.0
        with self._in_flight.changed:
            self.failure = error
            self._in_flight.changed.notify_all()
        return None

    def _talk(self, stub: Any) -> None:
        served, round_trip_s = self._greet(stub)
        with self._in_flight.changed:
            if self._closing.is_set():
                return
            self.served, self.round_trip_s = served, round_trip_s
            self.received_s, self.lost_since_s = time.perf_counter(), None
            connection = self._in_flight.connect()
            self._call = stub.InferStream(self._outgoing(connection), metadata=self._metadata)
        for response in self._call:
            if self._link is not None:
                sleep_until(self._arrival_s(response, self._link.network))
            self.received_s, self._answered = time.perf_counter(), True
            self._accept(response, self.received_s)

    def _arrival_s(self, response: pb2.InferResponse, network: Network) -> float:
        """Returns when a response is on the edge over an imitated link.

        Reckoned from when its request left, not from now: this thread slept meanwhile.
        """
        left_s = self._left_s.pop(response.request_id, time.perf_counter())
        ready_s = left_s + response.queue_s + response.unpack_s + response.cloud_s
        begins_s = max(ready_s + network.round_trip_s / 2, self._downlink_free_s)
        self._downlink_free_s = begins_s + network.downlink_s(response.ByteSize())
        return self._downlink_free_s + network.round_trip_s / 2

    def _greet(self, stub: Any) -> tuple[frozenset[int], float]:
        """Returns which splits the server has, and the time of a small message."""
        served, last = set(), ""
        for position, split in enumerate(self._splits):
            if split.manifest.crossing and self._describes(stub, split):
                served.add(position)
                last = split.manifest.split_id
        if not served:
            raise CloudUnavailableError(
                f"The server at {self._address} serves none of the splits of this client. Put "
                "their directories where it looks for splits."
            )
        asked = pb2.DescribeRequest(protocol_version=protocol.PROTOCOL_VERSION, split_id=last)
        before_s = time.perf_counter()
        stub.Describe(asked, timeout=GREETING_S, metadata=self._metadata)
        round_trip_s = time.perf_counter() - before_s
        imitated_s = 0.0 if self._link is None else self._link.network.round_trip_s
        return frozenset(served), round_trip_s + imitated_s

    def _describes(self, stub: Any, split: Split) -> bool:
        asked = pb2.DescribeRequest(
            protocol_version=protocol.PROTOCOL_VERSION, split_id=split.manifest.split_id
        )
        try:
            described = stub.Describe(asked, timeout=GREETING_S, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        protocol.check_description(described, split.manifest)
        return True

    def _outgoing(self, connection: int) -> Iterator[pb2.InferRequest]:
        """Yields the requests of one connection; gRPC asks for the next when one is on its way."""
        while (request := self._in_flight.next_to_send(connection)) is not None:
            request.sent_now()
            if self._link is not None:
                left_s = request.sent_s + self._link.network.uplink_s(request.message_bytes)
                self._left_s[request.request_id] = left_s
                sleep_until(left_s)
            yield request.message
