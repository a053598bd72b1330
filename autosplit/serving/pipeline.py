"""Pipeline: frames in, answers out in the same order, several under way at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Literal

import grpc

from autosplit.errors import AutosplitError, CloudUnavailableError, ProtocolError
from autosplit.execution.halves import Split
from autosplit.serving import codec, retries
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.bandwidth import Transfer
from autosplit.serving.fallback import Outputs, check_inputs, edge_only, infer_on_edge, timed
from autosplit.serving.in_flight import InFlight, Request
from autosplit.serving.link import ShapedLink
from autosplit.serving.plan_chooser import PlanChooser
from autosplit.serving.protocol import ChecksumError
from autosplit.serving.retries import Metadata, RetryPolicy
from autosplit.serving.stage_times import StageTimes, check_server_times
from autosplit.serving.stream_link import StreamLink
from autosplit.serving.streaming import Answer, StreamOptions

_STATUS_OF = {status.value[0]: status for status in grpc.StatusCode}
_REPEATABLE = (*retries.REPEATABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


class Pipeline:
    """One stream. A thread computes, one sends and receives; the caller takes the answers."""

    def __init__(
        self,
        *,
        splits: Sequence[Split],
        open_channel: Callable[[], grpc.Channel],
        metadata: Metadata,
        link: ShapedLink | None,
        address: str,
        timeout_s: float,
        retry: RetryPolicy,
        client_id: bytes,
        request_ids: Iterator[int],
        options: StreamOptions,
    ):
        """Prepares a stream; see `EdgeClient` for the arguments."""
        self._splits = splits
        self._address = address
        self._timeout_s = timeout_s
        self._retry = retry
        self._client_id = client_id
        self._request_ids = request_ids
        self._options = options
        self._edge_only = edge_only(splits)
        self._chooser = PlanChooser(splits, options.rule)
        self._probed_s = time.perf_counter()
        self._fell_back = False
        self._stall_s = options.stall_s
        self._answers: dict[int, Answer] = {}
        self._taken = self._consumed = 0
        self._ended = self._closed = False
        self._failure: Exception | None = None
        self._in_flight = InFlight()
        self._changed = self._in_flight.changed
        self._link = StreamLink(
            splits=splits,
            open_channel=open_channel,
            metadata=metadata,
            link=link,
            address=address,
            retry=retry,
            in_flight=self._in_flight,
            accept=self._accept,
        )

    def answers(self, frames: Iterable[Any]) -> Generator[Answer, None, None]:
        """Yields the answer to each frame; see `EdgeClient.stream`."""
        producer = threading.Thread(
            target=self._produce, args=(iter(frames),), name="edge", daemon=True
        )
        self._link.start()
        producer.start()
        try:
            while (answer := self._next_answer()) is not None:
                yield answer
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._link.close()
            producer.join(self._timeout_s)  # a camera may be slow to give the frame it was asked

    # ---- The thread that computes

    def _produce(self, frames: Iterator[Any]) -> None:
        try:
            while self._has_room():
                try:
                    inputs = next(frames)
                except StopIteration:
                    break
                self._begin(inputs if isinstance(inputs, tuple) else (inputs,))
        except Exception as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._in_flight.end()

    def _has_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._taken - self._consumed < self._options.in_flight
            )
            return not self._closed

    def _begin(self, inputs: tuple[Any, ...]) -> None:
        """Answers a frame on the edge, or sends it on its way to the cloud."""
        check_inputs(self._splits[0], inputs)
        frame, plan = self._taken, self._choose()
        if not self._splits[plan].manifest.crossing:
            self._answer_on_edge(frame, inputs, "edge")
        elif self._cloud_is_out():
            self._answer_on_edge(frame, inputs, "fallback")
        else:
            self._in_flight.add(self._encode(plan, frame, inputs))
        with self._changed:
            self._taken += 1
            self._changed.notify_all()
        self._probe(plan, inputs)

    def _probe(self, plan: int, inputs: tuple[Any, ...]) -> None:
        """Sends a frame by another plan, where it is time to, only to measure the link."""
        waited_s = time.perf_counter() - self._probed_s
        with self._changed:
            under_way = (*self._in_flight.waiting(), *self._in_flight.sent())
            busy = self._link.lost_since_s is not None or any(x.frame is None for x in under_way)
            served = self._link.served
        if not busy and waited_s >= self._options.probe_s:
            probe_plan = self._chooser.probe(plan, served, waited_s)
            if probe_plan is not None:
                self._probed_s = time.perf_counter()
                self._in_flight.add(self._encode(probe_plan, None, inputs))

    def _choose(self) -> int:
        with self._changed:
            lost = self._link.lost_since_s is not None
            return self._chooser.choose(self._oldest(), None if lost else self._link.served)

    def _oldest(self) -> Request | None:
        """Returns the oldest request on the link; a link that is lost says nothing of its rate."""
        with self._changed:
            sent = self._in_flight.sent()
            return sent[0] if sent and self._link.lost_since_s is None else None

    def _cloud_is_out(self) -> bool:
        """Returns whether to spare a frame the wait for the cloud.

        It is out while the connection has been lost for longer than a frame waits, and, once a
        frame was answered in its stead, until it answers again or the connection is a new one.
        """
        if self._edge_only is None or self._options.patience_s is None:
            return False
        with self._changed:
            lost_since_s = self._link.lost_since_s
            if lost_since_s is not None:
                lost_s = time.perf_counter() - lost_since_s
                return self._fell_back or lost_s > self._options.patience_s
            self._fell_back = self._fell_back and bool(self._in_flight.sent())
            return self._fell_back

    def _encode(self, plan: int, frame: int | None, inputs: tuple[Any, ...]) -> Request:
        split = self._splits[plan]
        started_s = time.perf_counter()
        codes, edge_s = timed(split.edge_layers, *inputs)
        payload, pack_s = timed(split.pack, codes)
        request_id, coding = next(self._request_ids), None
        if self._options.code_losslessly:
            coding = self._chooser.coding(plan, payload, self._oldest())
        message = codec.encode_request(
            split.manifest, payload, self._client_id, request_id, coding
        )
        return Request(
            request_id=request_id,
            frame=frame,
            plan=plan,
            inputs=inputs,
            message=message,
            message_bytes=message.ByteSize(),
            started_s=started_s,
            ready_s=time.perf_counter(),
            edge_s=edge_s,
            pack_s=pack_s,
        )

    def _answer_on_edge(
        self, frame: int, inputs: tuple[Any, ...], source: Literal["edge", "fallback"]
    ) -> None:
        assert self._edge_only is not None
        outputs, times = infer_on_edge(self._edge_only, *inputs)
        plan = next(at for at, one in enumerate(self._splits) if one is self._edge_only)
        self._store(frame, plan, source, outputs=outputs, times=times)

    # ---- The thread that receives

    def _accept(self, response: pb2.InferResponse, received_s: float) -> None:
        """Takes one response: an answer, a refusal, or one too many."""
        with self._changed:
            request, awaited = self._in_flight.settle(response.request_id)
            if request is None:
                return
            self._stall_s = self._options.stall_s
            if response.status:
                self._refused(request, awaited, response)
                return
            self._fell_back = False
            error: ProtocolError | None = None
            outputs = times = None
            try:
                outputs, times = self._read(request, response, received_s)
            except ChecksumError as found:  # the server has kept the answer
                if awaited and request.attempts < self._retry.attempts:
                    self._in_flight.postpone(request, 0.0)
                    return
                error = found
            except ProtocolError as found:
                error = found
            if awaited and request.frame is not None:
                self._store(
                    request.frame, request.plan, "cloud", outputs=outputs, times=times,
                    error=error, request=request, response=response,
                )  # fmt: skip

    def _read(
        self, request: Request, response: pb2.InferResponse, received_s: float
    ) -> tuple[Outputs, StageTimes]:
        outputs = codec.decode_response(self._splits[request.plan].manifest, response)
        server = (response.queue_s, response.unpack_s, response.cloud_s)
        # The answer may be to an earlier attempt, and was kept.
        check_server_times(server, received_s - request.first_sent_s, self._address)
        response_bytes = response.ByteSize()
        if request.attempts == 1:
            transfer = Transfer(
                sent_s=request.sent_s,
                received_s=received_s,
                server_s=sum(server),
                message_bytes=request.message_bytes + response_bytes,
            )
            self._chooser.note(transfer, self._link.round_trip_s)
        wire_s = max(0.0, received_s - request.sent_s - sum(server))
        round_trip_s = min(self._link.round_trip_s, wire_s)
        # One clock cannot tell the directions apart: their bytes do.
        up = request.message_bytes / (request.message_bytes + response_bytes)
        return outputs, StageTimes(
            edge_s=request.edge_s,
            pack_s=request.pack_s,
            uplink_s=(wire_s - round_trip_s) * up,
            queue_s=response.queue_s,
            unpack_s=response.unpack_s,
            cloud_s=response.cloud_s,
            downlink_s=(wire_s - round_trip_s) * (1 - up),
            round_trip_s=round_trip_s,
            total_s=received_s - request.started_s,
        )

    def _refused(self, request: Request, awaited: bool, response: pb2.InferResponse) -> None:
        status = _STATUS_OF.get(response.status, grpc.StatusCode.UNKNOWN)
        if status in _REPEATABLE:
            if awaited and request.frame is not None:
                waits_s = self._retry.waits_s()
                wait_s = [next(waits_s) for _ in range(min(max(1, request.attempts), 30))][-1]
                self._in_flight.postpone(request, max(response.retry_after_s, wait_s))
            return
        words = f"request {request.request_id} ({status.name}): {response.message}"
        error: AutosplitError = CloudUnavailableError(
            f"The cloud server at {self._address} did not compute {words}. Look at its log."
        )
        if status in retries.REJECTED:
            error = ProtocolError(f"The server at {self._address} rejected {words}")
        if awaited and request.frame is not None:
            self._store(request.frame, request.plan, "cloud", error=error, request=request)

    # ---- The caller's thread

    def _next_answer(self) -> Answer | None:
        """Waits for the answer to the frame that is next; None after the last."""
        while True:
            with self._changed:
                frame = self._consumed
                if frame in self._answers:
                    self._consumed += 1
                    self._changed.notify_all()
                    return self._answers.pop(frame)
                if self._link.failure is not None:
                    raise self._link.failure
                if self._ended and frame >= self._taken:
                    if self._failure is not None:
                        raise self._failure
                    return None
                overdue = self._overdue()
                if overdue is None:
                    self._break_silence()
                    self._changed.wait(self._until_next_event_s())
            if overdue is not None:
                self._step_in(overdue)

    def _patience_s(self) -> float:
        patience_s = self._options.patience_s
        if self._edge_only is None or patience_s is None:
            return self._timeout_s
        return 0.0 if self._fell_back else min(patience_s, self._timeout_s)

    def _overdue(self) -> Request | None:
        """Returns a request whose frame has waited long enough."""
        latest_s = time.perf_counter() - self._patience_s()
        return next((one for one in self._frames_waiting() if one.ready_s <= latest_s), None)

    def _frames_waiting(self) -> list[Request]:
        return [one for one in self._in_flight.waiting() if one.frame is not None]

    def _until_next_event_s(self) -> float:
        """Returns how long nothing has to be done, unless something changes."""
        now_s = time.perf_counter()
        events_s = [one.ready_s + self._patience_s() for one in self._frames_waiting()]
        events_s.append(max(self._link.received_s + self._stall_s, now_s + 0.1))
        return max(0.001, min(events_s) - now_s)

    def _break_silence(self) -> None:
        """Opens the connection anew where it has been silent for too long."""
        sent = self._in_flight.sent()
        if not sent or self._link.lost_since_s is not None:
            return
        since_s = max(self._link.received_s, sent[0].sent_s)
        if time.perf_counter() - since_s >= self._stall_s:
            self._stall_s *= 2
            self._link.break_off()

    def _step_in(self, request: Request) -> None:
        """Answers an overdue frame without the cloud, unless its answer has just come."""
        if request.frame is None or not self._in_flight.give_up(request):
            return
        if self._edge_only is not None and self._options.patience_s is not None:
            self._fell_back = True
            self._answer_on_edge(request.frame, request.inputs, "fallback")
            return
        error = CloudUnavailableError(
            f"The cloud server at {self._address} did not answer frame {request.frame} within "
            f"{self._timeout_s} s ({request.attempts} attempts). Start it, or look at its log."
        )
        self._store(request.frame, request.plan, "cloud", error=error, request=request)

    def _store(
        self,
        frame: int,
        plan: int,
        source: Literal["cloud", "edge", "fallback"],
        *,
        outputs: Outputs | None = None,
        times: StageTimes | None = None,
        error: AutosplitError | None = None,
        request: Request | None = None,
        response: pb2.InferResponse | None = None,
    ) -> None:
        with self._changed:
            self._answers[frame] = Answer(
                frame=frame,
                outputs=outputs,
                error=error,
                times=times,
                plan=plan,
                label=self._splits[plan].manifest.label,
                source=source,
                request_bytes=0 if request is None else request.message_bytes,
                response_bytes=0 if response is None else response.ByteSize(),
                attempts=0 if request is None else request.attempts,
                batch=0 if response is None else response.batch,
                bits_per_s=self._chooser.bits_per_s,
            )
            self._changed.notify_all()
