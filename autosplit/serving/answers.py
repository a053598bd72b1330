"""Answers: every request is computed once, however often its client sends it."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable

from autosplit.errors import ProtocolError
from autosplit.serving import split_inference_pb2 as pb2

Key = tuple[bytes, int]
"""client_id and request_id of a request."""


@dataclasses.dataclass(kw_only=True, eq=False)
class Answer:
    """The answer of one request, under way or kept.

    Attributes:
      same: split and checksum of the request: a repetition must have the same.
      response: done when the request is; holds its message, or the error that refused it.
      deadline_s: latest of those who wait, on the clock of ``time.monotonic``; the scheduler
        reads it.
      kept_until_s: when a kept answer may be forgotten; infinite while under way.
      num_bytes: of the kept message.
    """

    same: tuple[str, int]
    response: asyncio.Future[pb2.InferResponse]
    deadline_s: float
    kept_until_s: float = float("inf")
    num_bytes: int = 0


class Answers:
    """Requests under way, and the answers of the last ones that were computed.

    A refused request is forgotten at once: its client may send it again and have it computed.
    Within the bounds of bytes and age, the oldest answer goes first. One event loop owns it.

    Args:
      kept_bytes: most bytes of kept messages.
      kept_s: longest time that an answer is kept.
      clock: seconds; `time.monotonic`, or a test's.
    """

    def __init__(
        self, kept_bytes: int, kept_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_bytes, self._kept_s, self._clock = kept_bytes, kept_s, clock
        self._answers: dict[Key, Answer] = {}
        self._kept: collections.deque[Key] = collections.deque()  # oldest first
        self.kept_bytes = 0

    def find(self, key: Key, same: tuple[str, int], deadline_s: float) -> Answer | None:
        """Returns the answer of a request that was accepted before, if it was.

        Args:
          key: of the request.
          same: its split and checksum.
          deadline_s: until when its client waits now; prolongs that of a waiting request.

        Returns:
          The answer, done or not; None for a new request.

        Raises:
          ProtocolError: the same key came with another split or other data before.
        """
        self._forget()
        answer = self._answers.get(key)
        if answer is None:
            return None
        if answer.same != same:
            raise ProtocolError(
                f"Request {key[1]} of this client was sent before with other data or for another "
                "split; expected a repetition. Give every request its own request_id."
            )
        answer.deadline_s = max(answer.deadline_s, deadline_s)
        return answer

    def open(self, key: Key, same: tuple[str, int], deadline_s: float) -> Answer:
        """Returns the answer of a new request, to be filled in.

        Args:
          key: of the request; not one that `find` finds.
          same: its split and checksum.
          deadline_s: until when its client waits.
        """
        future: asyncio.Future[pb2.InferResponse] = asyncio.get_running_loop().create_future()
        answer = Answer(same=same, response=future, deadline_s=deadline_s)
        self._answers[key] = answer
        return answer

    def keep(self, key: Key, response: pb2.InferResponse) -> None:
        """Ends a request with its response, which is kept for repetitions."""
        answer = self._answers[key]
        answer.num_bytes = response.ByteSize()
        answer.kept_until_s = self._clock() + self._kept_s
        answer.response.set_result(response)
        self.kept_bytes += answer.num_bytes
        self._kept.append(key)
        self._forget()

    def drop(self, key: Key, error: Exception) -> None:
        """Ends a request with an error, for all that wait for it now, and forgets it."""
        answer = self._answers.pop(key)
        answer.response.set_exception(error)
        answer.response.exception()  # marks it as seen: perhaps no client waits any more

    def _forget(self) -> None:
        while self._kept:
            oldest = self._answers[self._kept[0]]
            if self.kept_bytes <= self._limit_bytes and oldest.kept_until_s > self._clock():
                return
            self.kept_bytes -= oldest.num_bytes
            del self._answers[self._kept.popleft()]
