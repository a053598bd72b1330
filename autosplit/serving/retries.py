"""Retries: which failures may be repeated, how long to wait between, and the call that does so."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from autosplit.errors import CloudUnavailableError, InputError, ProtocolError

REPEATABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)
"""A connection that broke or a server that stops: the same request may be sent again."""

REJECTED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
"""The server answers, and would say the same to a repetition."""

RETRY_AFTER = "retry-after-s"
"""Trailing metadata of a busy server: seconds after which it may be asked again."""

Metadata = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often to try, and how long to wait before each further attempt.

    The n-th wait is ``min(longest_s, first_s * factor**n)``, of which a random share of up to
    ``jitter`` is left out, so that clients of one lost server do not return all at once.

    Attributes:
      attempts: of one request without an answer, at least 1. A stream has no such limit:
        there the time allowed for a frame ends its attempts.
      first_s: before the second attempt.
      factor: from one wait to the next, at least 1.
      longest_s: no wait is longer.
      jitter: 0 to 1.
    """

    attempts: int = 4
    first_s: float = 0.05
    factor: float = 2.0
    longest_s: float = 2.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        good = self.attempts >= 1 and self.factor >= 1 and 0 <= self.jitter <= 1
        if not good or not 0 < self.first_s <= self.longest_s:
            raise InputError(
                f"The policy is {self}; expected at least 1 attempt, a factor of at least 1, a "
                "jitter from 0 to 1, and 0 < first_s <= longest_s."
            )

    def waits_s(self, draw: Callable[[], float] = random.random) -> Iterator[float]:
        """Yields the waits, without end.

        >>> from itertools import islice
        >>> policy = RetryPolicy(first_s=0.1, longest_s=0.4, jitter=0.5)
        >>> list(islice(policy.waits_s(draw=lambda: 0.0), 4))
        [0.1, 0.2, 0.4, 0.4]

        Args:
          draw: gives random numbers from 0 to 1.
        """
        wait_s = self.first_s
        while True:
            yield wait_s * (1 - self.jitter * draw())
            wait_s = min(self.longest_s, wait_s * self.factor)


USUAL_RETRY = RetryPolicy()


def call(
    method: Callable[..., Any],
    request: Any,
    *,
    address: str,
    timeout_s: float,
    policy: RetryPolicy,
    metadata: Metadata = (),
) -> Any:
    """Returns the response of a remote procedure; repeats the same message where that is safe.

    Safe is a broken connection, a server that stops, and a busy one that says when to come
    back: a request names itself, and the server answers a repetition with what it
    has. All attempts together keep within ``timeout_s``.

    Args:
      method: of the stub.
      request: sent unchanged each time.
      address: of the server, for messages.
      timeout_s: for all attempts and waits.
      policy: how often, and how long to wait.
      metadata: of the call.

    Raises:
      ProtocolError: the server rejected the request.
      CloudUnavailableError: no answer in time, or after ``policy.attempts``.
    """
    deadline_s = time.monotonic() + timeout_s
    waits_s = policy.waits_s()
    for attempt in range(1, policy.attempts + 1):
        try:
            remaining_s = max(0.001, deadline_s - time.monotonic())
            return method(request, timeout=remaining_s, metadata=tuple(metadata))
        except grpc.RpcError as error:
            wait_s = repeat_after_s(error, next(waits_s))
            late = wait_s is None or time.monotonic() + wait_s >= deadline_s
            if wait_s is None or late or attempt == policy.attempts:
                raise failure(error, address, timeout_s) from error
            time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def repeat_after_s(error: Any, wait_s: float) -> float | None:
    """Returns how long to wait before the same request may be sent again; None means never.

    Args:
      error: of a gRPC call.
      wait_s: where the server does not say.
    """
    if error.code() in REPEATABLE:
        return wait_s
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    told = dict(error.trailing_metadata() or ()).get(RETRY_AFTER)
    try:  # without it, the message is too long for the server, and stays so
        return None if told is None else max(0.0, float(told))
    except ValueError:
        return wait_s


def failure(error: Any, address: str, timeout_s: float) -> ProtocolError | CloudUnavailableError:
    """Returns the error of this library for that of a gRPC call.

    Args:
      error: of the call.
      address: of the server.
      timeout_s: that the call was given.
    """
    status, words = error.code(), error.details()
    busy = RETRY_AFTER in dict(error.trailing_metadata() or ())
    if status in REJECTED and not busy:
        return ProtocolError(
            f"The server at {address} rejected the request ({status.name}): {words}"
        )
    return CloudUnavailableError(
        f"The cloud server at {address} did not answer ({status.name}: {words}; the limit is "
        f"{timeout_s} s). Start it with `python -m experiments.serve_cloud --split DIR "
        "--address HOST:PORT`, or look at its log if it runs."
    )
