"""Bandwidth: the rate of the link, read off the requests that travelled over it."""

from __future__ import annotations

import dataclasses
import math

MEMORY_S = 1.5
"""What the link did this long ago counts 1/e of what it does now."""

LEAST_BUSY_S = 1e-4
"""A long transfer is never counted as shorter than that, though others arrived just before."""


LEAST_NOISE_S = 5e-3
"""Less than this, or than half a round trip, beyond a round trip says little of the rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
    """One request and its response, by the clock of the edge.

    Attributes:
      sent_s: when the request was handed to the connection.
      received_s: when its response had arrived.
      server_s: that the server held it: queue and computation.
      message_bytes: of request and response together.
    """

    sent_s: float
    received_s: float
    server_s: float
    message_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BandwidthEstimate:
    """What is known of the rate of a link: bits over the seconds in which it was busy with them.

    Requests of a stream queue behind each other, so the seconds from sending to receiving
    say little. With ``t_i = received_i - server_i`` of request i, the link was busy with it for

        min(t_i - sent_i - round_trip, t_i - t_(i-1)):

    the time that it took, or the time since the link was done with the one before.
    Bits and busy seconds are summed apart, both forgotten at `MEMORY_S`, so large messages
    count more than small ones and reordered responses average out.

    A transfer that took hardly longer than an empty message was delayed by threads, queues and
    radio more than by its bits: it only shows that the rate is about ``bits / noise`` or
    more. It raises the estimate to that, and never lowers it. So while messages are small
    for the link, the estimate is a lower bound, under which no time is predicted wrong by more
    than the noise.

    Both directions are counted as one link of one rate. Deviation: where the downlink
    is faster, its bytes make the estimate a little too high; responses are small.

    Attributes:
      round_trip_s: of an empty message.
      bits, busy_s: sums, discounted.
      last_s: ``t`` of the latest transfer.
    """

    round_trip_s: float
    bits: float = 0.0
    busy_s: float = 0.0
    last_s: float = -math.inf

    @property
    def bits_per_s(self) -> float | None:
        """The rate; None as long as nothing was sent."""
        return self.bits / self.busy_s if self.busy_s > 0 else None

    def after(self, transfer: Transfer) -> BandwidthEstimate:
        """Returns the estimate with one more transfer.

        >>> estimate = BandwidthEstimate(round_trip_s=0.5)
        >>> one = Transfer(sent_s=0.0, received_s=1.75, server_s=0.25, message_bytes=1000)
        >>> estimate.after(one).bits_per_s
        8000.0
        """
        done_s = transfer.received_s - transfer.server_s
        bits = 8.0 * transfer.message_bytes
        own_s = done_s - transfer.sent_s - self.round_trip_s
        last_s = max(self.last_s, done_s)
        if own_s < self.noise_s:
            known = self.bits_per_s
            if known is not None and known >= bits / self.noise_s:
                return dataclasses.replace(self, last_s=last_s)
            return dataclasses.replace(self, bits=bits, busy_s=self.noise_s, last_s=last_s)
        busy_s = max(LEAST_BUSY_S, min(own_s, done_s - self.last_s))
        kept = math.exp(-max(0.0, done_s - self.last_s) / MEMORY_S)
        return dataclasses.replace(
            self, bits=kept * self.bits + bits, busy_s=kept * self.busy_s + busy_s, last_s=last_s
        )

    @property
    def noise_s(self) -> float:
        """Time that a transfer may take for other reasons than its bits."""
        return max(LEAST_NOISE_S, self.round_trip_s / 2)

    def while_waiting(
        self, message_bytes: int, sent_s: float, server_s: float, now_s: float
    ) -> float | None:
        """Returns the rate, lowered where a request under way shows that it has fallen.

        A link that slows down a hundredfold is noticed before the answer comes: what has
        not arrived by now has not travelled faster than its bits over the time since.

        Args:
          message_bytes: of the oldest request without an answer.
          sent_s: when it was sent.
          server_s: that the server is expected to hold it.
          now_s: on the same clock.
        """
        if self.bits_per_s is None:
            return None
        busy_s = now_s - max(sent_s, self.last_s) - self.round_trip_s - server_s
        if busy_s <= self.noise_s:
            return self.bits_per_s
        return min(self.bits_per_s, 8.0 * message_bytes / busy_s)
