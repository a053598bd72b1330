"""Quotas: how many requests and bytes per second a server takes from each client.

Each client has two buckets, which fill at its rates up to ``burst_s`` seconds' worth. A
request takes one from the first and its bytes from the second. It passes where both hold
enough; one that is larger than a full bucket passes a full one and leaves a debt.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import inspect
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from autosplit.errors import InputError
from autosplit.serving.refusals import RequestRefusedError
from autosplit.serving.retries import RETRY_AFTER
from autosplit.serving.security import ServerSecurity
from autosplit.serving.tokens import CALLER, TokenInterceptor

_CLIENTS = 10_000


class QuotaExceededError(RequestRefusedError):
    """A client asks for more than its quota; after ``retry_after_s`` it may go on."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quotas:
    """What each client may take of a server.

    >>> Quotas(requests_per_s=10).burst_s
    1.0

    Attributes:
      requests_per_s: None sets no limit.
      bytes_per_s: of requests as they are sent; None sets no limit.
      burst_s: a client that was quiet so long may take that much at once.
    """

    requests_per_s: float | None = None
    bytes_per_s: float | None = None
    burst_s: float = 1.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; expected a number above 0. Change it.")


class Ledger:
    """What every client has left of its quotas; may be used from several threads.

    Full buckets need not be remembered, so only the clients seen last are: at most 10,000. A
    client that comes back after 10,000 others starts with full buckets.
    """

    def __init__(self, quotas: Quotas, clock: Callable[[], float] = time.monotonic):
        self._rates = (quotas.requests_per_s, quotas.bytes_per_s)
        self._burst_s = quotas.burst_s
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: collections.OrderedDict[str, tuple[float, list[float]]]
        self._clients = collections.OrderedDict()

    def take(self, client: str, num_bytes: int) -> float:
        """Takes one request from a client's buckets, or nothing where they hold too little.

        >>> ledger = Ledger(Quotas(requests_per_s=2, burst_s=0.5), clock=lambda: 0.0)
        >>> ledger.take("a", 100), ledger.take("a", 100), ledger.take("b", 100)
        (0.0, 0.5, 0.0)

        Args:
          client: name; each has buckets of its own.
          num_bytes: of the request.

        Returns:
          0 where the request may pass; otherwise seconds until it may.
        """
        now_s = self._clock()
        with self._lock:
            full = [(rate or 0.0) * self._burst_s for rate in self._rates]
            seen_s, levels = self._clients.pop(client, (now_s, full))
            passed_s = max(0.0, now_s - seen_s)
            levels = [
                min(most, level + (rate or 0.0) * passed_s)
                for most, level, rate in zip(full, levels, self._rates, strict=True)
            ]
            amounts = (1, num_bytes)
            wait_s = max(
                max(0.0, min(amount, most) - level) / rate if rate else 0.0
                for amount, most, level, rate in zip(
                    amounts, full, levels, self._rates, strict=True
                )
            )
            if wait_s == 0.0:
                levels = [level - amount for level, amount in zip(levels, amounts, strict=True)]
            self._clients[client] = (now_s, levels)
            while len(self._clients) > _CLIENTS:
                self._clients.popitem(last=False)
        return wait_s


def client_name(context: grpc.aio.ServicerContext) -> str:
    """Returns who makes the present call: by token, else by certificate, else by host.

    Args:
      context: of the call.

    Returns:
      ``"token:NAME"``, ``"certificate:NAME"`` or ``"host:ADDRESS"``; no two kinds are equal.
    """
    if (caller := CALLER.get()) is not None:
        return f"token:{caller}"
    if identities := context.peer_identities():
        return f"certificate:{b','.join(identities).decode(errors='replace')}"
    return f"host:{context.peer().rpartition(':')[0]}"


def server_interceptors(
    security: ServerSecurity | None, quotas: Quotas | None
) -> tuple[grpc.aio.ServerInterceptor, ...]:
    """Returns the interceptors of a server, outermost first.

    Args:
      security: None asks for no token.
      quotas: None sets no limits.

    Raises:
      InputError: the file of tokens is missing or of another form.
    """
    tokens = security.tokens if security is not None else None
    asked = (TokenInterceptor(tokens),) if tokens is not None else ()
    return (*asked, *((QuotaInterceptor(quotas),) if quotas is not None else ()))


class QuotaInterceptor(grpc.aio.ServerInterceptor):
    """Holds every client to its quotas.

    A single call over them is refused with RESOURCE_EXHAUSTED and says when to come back. On
    a stream, the next request is not read before it may pass: the flow control of the
    connection slows its client down, and nothing that was sent is lost. Health and reflection
    have no quotas.

    Args:
      quotas: of each client.
      services: beginnings of the methods that have them.
    """

    def __init__(self, quotas: Quotas, services: tuple[str, ...] = ("/autosplit.",)):
        self._ledger = Ledger(quotas)
        self._services = services

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Puts the quotas in front of a method that computes."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._services):
            return handler
        if handler.unary_unary is not None:
            return handler._replace(unary_unary=self._one(handler.unary_unary))
        if handler.stream_stream is not None:
            return handler._replace(stream_stream=self._many(handler.stream_stream))
        return handler

    def _one(self, behavior: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def within_quotas(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if wait_s := self._ledger.take(client_name(context), request.ByteSize()):
                error = QuotaExceededError(
                    f"The client {client_name(context)} is over its quota; expected the request "
                    f"in {wait_s:.3f} s. Wait as long, or ask who runs the server for more.",
                    wait_s,
                )
                after = ((RETRY_AFTER, f"{error.retry_after_s:.3f}"),)
                await context.abort(error.status, str(error), trailing_metadata=after)
            return await behavior(request, context)

        return within_quotas

    def _many(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(behavior):

            async def generating(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
                paced = _Paced(requests, context, self._ledger)
                async for response in behavior(paced.requests(), paced):
                    yield response

            return generating

        async def writing(requests: AsyncIterator[Any], context: Any) -> None:
            paced = _Paced(requests, context, self._ledger)
            await behavior(paced.requests(), paced)

        return writing


class _Paced:
    """The context of a stream; whichever way a handler reads, a request waits for its quota."""

    def __init__(self, requests: AsyncIterator[Any], context: Any, ledger: Ledger):
        self._requests, self._context, self._ledger = requests, context, ledger
        self._client = client_name(context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        request = await self._context.read()
        return request if request is grpc.aio.EOF else await self._paid(request)

    async def requests(self) -> AsyncIterator[Any]:
        async for request in self._requests:
            yield await self._paid(request)

    async def _paid(self, request: Any) -> Any:
        while wait_s := self._ledger.take(self._client, request.ByteSize()):
            await asyncio.sleep(wait_s)
        return request
