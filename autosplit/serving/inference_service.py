"""InferenceService: the remote procedures of the cloud server, each request computed once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc

from autosplit.errors import AutosplitError
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.answers import Answer, Answers
from autosplit.serving.batching import Scheduler
from autosplit.serving.logs import log
from autosplit.serving.metrics import Metrics
from autosplit.serving.refusals import DrainingError, refusal
from autosplit.serving.registry import SplitRegistry
from autosplit.serving.retries import RETRY_AFTER
from autosplit.serving.served_split import ServedSplit

_RESTART_S = 1.0  # after which a client of a server that stops may look for the next one
_POLL_S = 0.01
_SMALL_BYTES = 2**18  # copied and summed in less time than a thread takes to start on it


class InferenceService:
    """The servicer. One event loop owns it.

    A request is computed in a task of its own: a client that goes away and comes back with
    the same request finds its answer.

    Args:
      registry: of the splits.
      scheduler: computes.
      answers: kept for repetitions.
      metrics: counts.
      stream_requests: most requests of a stream between acceptance and sent answer.
    """

    def __init__(
        self,
        registry: SplitRegistry,
        scheduler: Scheduler,
        answers: Answers,
        metrics: Metrics,
        stream_requests: int,
    ) -> None:
        self._registry, self._scheduler = registry, scheduler
        self._answers, self._metrics = answers, metrics
        self._stream_requests = stream_requests
        self._work: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._draining = False

    # ---- Remote procedures

    async def Describe(  # noqa: N802 (the name is the protocol's)
        self, request: pb2.DescribeRequest, context: grpc.aio.ServicerContext
    ) -> pb2.DescribeResponse:
        """Says which splits are served."""
        try:
            protocol.check_version(request.protocol_version, "client")
            protocol.check_fields(request, "client")
            served = dict(self._registry.served)
            if request.split_id:
                served = {request.split_id: self._registry.find(request.split_id)}
        except AutosplitError as error:
            await _abort(context, error)
        return protocol.describe(one.manifest for one in served.values())

    async def Infer(  # noqa: N802
        self, request: pb2.InferRequest, context: grpc.aio.ServicerContext
    ) -> pb2.InferResponse:
        """Computes one request."""
        with self._call():
            try:
                return await self._answer(request, _deadline_s(context))
            except Exception as error:
                await _abort(context, error)
                raise

    async def InferStream(  # noqa: N802
        self, _: Any, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb2.InferResponse]:
        """Computes the requests of a stream; answers them as they are ready.

        A client that does not read its answers is not read from either.
        """
        ready: asyncio.Queue[pb2.InferResponse | None] = asyncio.Queue()
        window = asyncio.Semaphore(self._stream_requests)
        with self._call():
            accepting = asyncio.create_task(self._accept(context, ready, window))
            try:
                while (response := await ready.get()) is not None:
                    yield response
                    window.release()
            finally:
                accepting.cancel()
            if self._draining:
                await _abort(context, _stopping())

    # ---- The life of a server

    async def drain(self) -> None:
        """Accepts nothing more, and returns when everything accepted is answered."""
        self._draining = True
        for reading in self._reading:
            reading.cancel()
        await asyncio.sleep(_POLL_S)  # those who watch the health are told meanwhile
        while self._work or self._calls:
            await asyncio.sleep(_POLL_S)

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    # ---- Streams

    async def _accept(
        self,
        context: grpc.aio.ServicerContext,
        ready: asyncio.Queue[pb2.InferResponse | None],
        window: asyncio.Semaphore,
    ) -> None:
        """Puts the response of each request of a stream into ``ready``, and None last."""
        pending: set[asyncio.Task[None]] = set()
        deadline_s = _deadline_s(context)

        async def respond(request: pb2.InferRequest) -> None:
            try:
                response = await self._answer(request, deadline_s)
            except Exception as error:
                response = codec.encode_refusal(request.request_id, *refusal(error))
            ready.put_nowait(response)

        async def read() -> None:
            while not self._draining:
                await window.acquire()
                request = await context.read()
                if request is grpc.aio.EOF:
                    return
                task = asyncio.create_task(respond(request))
                pending.add(task)
                task.add_done_callback(pending.discard)

        reading = asyncio.create_task(read())
        self._reading.add(reading)
        try:
            await asyncio.gather(reading, return_exceptions=True)  # its end, or `drain`
            if pending:
                await asyncio.wait(pending)
        finally:
            self._reading.discard(reading)
            reading.cancel()
            ready.put_nowait(None)

    # ---- One request

    async def _answer(self, request: pb2.InferRequest, deadline_s: float) -> pb2.InferResponse:
        """Returns the response to a request; counts and logs it, refused or not."""
        started_s = time.monotonic()
        known, status = "none", grpc.StatusCode.CANCELLED  # unless it ends otherwise
        try:
            protocol.check_version(request.protocol_version, "client")
            served = self._registry.find(request.split_id)
            known = request.split_id
            self._metrics.received(known, request.ByteSize())
            response, repeated = await self._once(served, request, deadline_s)
            if repeated:
                self._metrics.repeat()
            else:
                self._metrics.computed(known, response, time.monotonic() - started_s)
            status = grpc.StatusCode.OK
            return response
        except Exception as error:
            status, words, _ = refusal(error)
            failed = status is grpc.StatusCode.INTERNAL
            log(
                logging.ERROR if failed else logging.INFO, "request refused", traceback=failed,
                split=known, status=status.name, reason=words,
            )  # fmt: skip
            raise
        finally:
            self._metrics.count(known, status.name)
            log(
                logging.DEBUG, "request", split=known, client=request.client_id.hex(),
                request=request.request_id, status=status.name,
                total_ms=round((time.monotonic() - started_s) * 1e3, 3),
            )  # fmt: skip

    async def _once(
        self, served: ServedSplit, request: pb2.InferRequest, deadline_s: float
    ) -> tuple[pb2.InferResponse, bool]:
        """Returns the response, and whether it was computed for an earlier request."""
        key, same = (request.client_id, request.request_id), (request.split_id, request.crc32)
        answer = self._answers.find(key, same, deadline_s)
        if answer is not None:
            return _repeated(await asyncio.shield(answer.response)), True
        if self._draining:
            raise _stopping()
        answer = self._answers.open(key, same, deadline_s)
        task = asyncio.create_task(self._compute(served, request, answer))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(answer.response), False

    async def _compute(
        self, served: ServedSplit, request: pb2.InferRequest, answer: Answer
    ) -> None:
        """Fills in the answer of a request."""
        key, started_s = (request.client_id, request.request_id), time.monotonic()
        manifest = served.manifest
        try:
            payload = await _off_loop(
                request.ByteSize(), lambda: codec.decode_request(manifest, request)
            )
            decoded_s = time.monotonic()
            result = await self._scheduler.submit(served, payload, lambda: answer.deadline_s)
            outputs = result.computed.outputs[result.index]
            response = await _off_loop(
                sum(array.nbytes for array in outputs),
                lambda: codec.encode_response(
                    manifest, request.request_id, outputs, queue_s=result.queue_s,
                    unpack_s=decoded_s - started_s + result.computed.unpack_s,
                    cloud_s=result.computed.cloud_s, batch=result.batch,
                ),
            )  # fmt: skip
        except Exception as error:
            self._answers.drop(key, error)
        else:
            self._answers.keep(key, response)


def _repeated(response: pb2.InferResponse) -> pb2.InferResponse:
    """Returns an answer as it is given again: nothing was computed for this repetition."""
    again = pb2.InferResponse()
    again.CopyFrom(response)
    again.queue_s = again.unpack_s = again.cloud_s = 0.0
    return again


def _stopping() -> DrainingError:
    return DrainingError(
        "The server stops and accepts nothing more. Send it again in a moment, or elsewhere.",
        retry_after_s=_RESTART_S,
    )


def _deadline_s(context: grpc.aio.ServicerContext) -> float:
    """Returns when the client stops waiting, on the clock of ``time.monotonic``."""
    remaining_s = context.time_remaining()
    return float("inf") if remaining_s is None else time.monotonic() + remaining_s


async def _off_loop(size_bytes: int, work: Callable[[], Any]) -> Any:
    """Returns what ``work`` does; on a thread where so many bytes would hold up the loop."""
    return work() if size_bytes <= _SMALL_BYTES else await asyncio.to_thread(work)


async def _abort(context: grpc.aio.ServicerContext, error: Exception) -> None:
    """Ends a call with the status and the words of an error; raises what gRPC expects."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status, words, retry_after_s = refusal(error)
    trailing = ((RETRY_AFTER, f"{retry_after_s:.3f}"),) if retry_after_s else ()
    await context.abort(status, words, trailing)
