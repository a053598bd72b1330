"""In flight: the requests of one stream that have no answer yet."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

from autosplit.errors import ProtocolError


@dataclasses.dataclass(kw_only=True, eq=False)
class Request:
    """One request of a stream, from its encoding to its answer.

    All times are on the clock of ``time.perf_counter``.

    Attributes:
      request_id: repeated by every attempt.
      frame: that it belongs to; None for a probe, whose answer only measures the link.
      plan: position of the split that it was computed with.
      inputs: of the frame, for an answer by the edge.
      message: sent unchanged by every attempt.
      message_bytes: of the message.
      started_s, ready_s: before the edge half ran, and after the message was made.
      edge_s, pack_s: of the edge half.
      attempts: how often it was sent.
      first_sent_s, sent_s: first and latest attempt; 0 before.
      not_before_s: the server asked for this pause.
    """

    request_id: int
    frame: int | None
    plan: int
    inputs: tuple[Any, ...]
    message: Any
    message_bytes: int
    started_s: float
    ready_s: float
    edge_s: float
    pack_s: float
    attempts: int = 0
    first_sent_s: float = 0.0
    sent_s: float = 0.0
    not_before_s: float = 0.0

    def sent_now(self) -> None:
        """Notes one more attempt."""
        self.sent_s = time.perf_counter()
        self.first_sent_s = self.first_sent_s or self.sent_s
        self.attempts += 1


class InFlight:
    """Requests that wait to be sent or answered; every method may be called by any thread.

    A request is in one of three places until its answer comes: to be sent, sent, or
    given up (its frame was answered without it; its own answer is still to come). An answer is
    taken once: a second one finds nothing.

    Attributes:
      changed: held by every method, and notified after every change.
      duplicates: answers to requests that had been answered.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.duplicates = 0
        self._waiting: dict[int, Request] = {}
        self._given_up: dict[int, Request] = {}
        self._unsent: list[Request] = []
        self._issued = range(0)
        self._connection = 0
        self._more = True

    def add(self, request: Request) -> None:
        """Puts a new request behind those that wait to be sent."""
        with self.changed:
            first = self._issued.start if self._issued else request.request_id
            self._issued = range(first, request.request_id + 1)
            self._waiting[request.request_id] = request
            self._unsent.append(request)
            self.changed.notify_all()

    def end(self) -> None:
        """Notes that no more requests come: senders end once all are answered."""
        with self.changed:
            self._more = False
            self.changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether no more requests come and none waits for an answer."""
        with self.changed:
            return not self._more and not self._waiting

    def connect(self) -> int:
        """Starts a new connection: what has no answer is sent again, oldest first.

        Returns:
          Its number for `next_to_send`; older connections send nothing more.
        """
        with self.changed:
            self._connection += 1
            self._given_up.clear()  # the server answers them on a stream that is gone
            probes = [one for one in self._waiting.values() if one.frame is None]
            for probe in probes:  # a repetition would not measure the link
                del self._waiting[probe.request_id]
            self._unsent = list(self._waiting.values())
            self.changed.notify_all()
            return self._connection

    def next_to_send(self, connection: int) -> Request | None:
        """Waits for the next request of a connection; None: the connection ends."""
        with self.changed:
            while connection == self._connection and not self.ended:
                now_s = time.perf_counter()
                due = next((one for one in self._unsent if one.not_before_s <= now_s), None)
                if due is not None:
                    self._unsent.remove(due)
                    return due
                soonest_s = min((one.not_before_s for one in self._unsent), default=None)
                self.changed.wait(None if soonest_s is None else soonest_s - now_s)
            return None

    def close(self) -> None:
        """Drops everything: senders end at once."""
        with self.changed:
            self._waiting.clear()
            self._unsent.clear()
            self._more = False
            self._connection += 1
            self.changed.notify_all()

    def settle(self, request_id: int) -> tuple[Request | None, bool]:
        """Takes a request out, since its answer came.

        Returns:
          The request, and whether its frame waits for the answer; None for a duplicate.

        Raises:
          ProtocolError: this stream never sent such a request.
        """
        with self.changed:
            if request_id not in self._issued:
                raise ProtocolError(
                    f"The server answered request {request_id}, which this stream did not send; "
                    f"expected one from {self._issued.start} to {self._issued.stop - 1}. "
                    "Restart the server."
                )
            self.changed.notify_all()
            if (request := self._waiting.pop(request_id, None)) is not None:
                self._unsent = [one for one in self._unsent if one is not request]
                return request, True
            if (request := self._given_up.pop(request_id, None)) is not None:
                return request, False
            self.duplicates += 1
            return None, False

    def postpone(self, request: Request, wait_s: float) -> None:
        """Puts a settled request back, to be sent again after a pause."""
        with self.changed:
            request.not_before_s = time.perf_counter() + wait_s
            self._waiting[request.request_id] = request
            self._unsent.append(request)
            self.changed.notify_all()

    def give_up(self, request: Request) -> bool:
        """Stops waiting for a request; returns False where its answer was faster."""
        with self.changed:
            if self._waiting.pop(request.request_id, None) is None:
                return False
            if request in self._unsent:
                self._unsent.remove(request)
            else:
                self._given_up[request.request_id] = request
            self.changed.notify_all()
            return True

    def waiting(self) -> list[Request]:
        """Returns the requests whose answers are awaited, oldest first."""
        with self.changed:
            return sorted(self._waiting.values(), key=lambda one: one.request_id)

    def sent(self) -> list[Request]:
        """Returns the requests that are on the link or in the server, oldest first."""
        with self.changed:
            everything = (*self._waiting.values(), *self._given_up.values())
            sent = [one for one in everything if one.attempts and one not in self._unsent]
            return sorted(sent, key=lambda one: one.sent_s)
