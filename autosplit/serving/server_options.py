"""ServerOptions: how a cloud server queues, batches, keeps answers and stops."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from autosplit.errors import InputError

if TYPE_CHECKING:
    from autosplit.serving.quotas import Quotas
    from autosplit.serving.security import ServerSecurity

MIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How `serving` behaves; the defaults suit one machine on loopback.

    >>> ServerOptions(max_batch=4).batch_sizes
    (1, 2, 4)

    Attributes:
      max_batch: most requests that are computed together; 1 turns batching off. A size is used
        only where it was measured to pay (see `autosplit.serving.registry`).
      max_wait_s: longest that a request waits, on an idle device, for others to be computed with
        it; only while requests arrive together.
      queue: most requests that wait, over all splits; the next one is refused.
      queue_bytes: most bytes of payload that wait.
      stream_requests: most requests of one stream that are accepted and not yet read back by
        its client; the server reads no more of that stream until then.
      drain_s: how long accepted requests may still take when the server stops.
      kept_bytes, kept_s: how much of the answers is kept, and for how long, for clients that
        ask again.
      devices: how many JAX devices to spread the requests over; None takes all.
      watch_s: time between two looks at a directory of splits.
      message_bytes: longest message that a split loaded later may need.
      security: certificates and tokens; None serves in plain text to everybody.
      allow_insecure: serve without security on an address that others can reach.
      quotas: of each client; None sets no limit.
      metrics_address: ``host:port`` of Prometheus metrics over HTTP; None serves none.
      reflection: tell any client the names of the services and their messages.
    """

    max_batch: int = 8
    max_wait_s: float = 0.002
    queue: int = 256
    queue_bytes: int = 256 * MIB
    stream_requests: int = 32
    drain_s: float = 10.0
    kept_bytes: int = 64 * MIB
    kept_s: float = 60.0
    devices: int | None = None
    watch_s: float = 1.0
    message_bytes: int = 64 * MIB
    security: ServerSecurity | None = None
    allow_insecure: bool = False
    quotas: Quotas | None = None
    metrics_address: str | None = None
    reflection: bool = True

    def __post_init__(self) -> None:
        """Raises `InputError` where a number is out of its range."""
        least = {"max_batch": 1, "queue": 1, "stream_requests": 1, "devices": 1, "watch_s": 0.001}
        counted = ("queue_bytes", "drain_s", "max_wait_s", "kept_bytes", "kept_s", "message_bytes")
        for name, lowest in {**least, **dict.fromkeys(counted, 0)}.items():
            value = getattr(self, name)
            if value is not None and not value >= lowest:
                raise InputError(f"{name} is {value}; expected at least {lowest}. Change it.")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Powers of two up to `max_batch`: what a batch is padded to."""
        return tuple(2**power for power in range(self.max_batch.bit_length()))
