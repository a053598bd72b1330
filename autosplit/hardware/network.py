"""The link between edge and cloud."""

from __future__ import annotations

import dataclasses
from typing import Any

from autosplit.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A link with fixed rates, a round trip and a cost per message.

    One inference is one request and one response: it pays one round trip and
    one overhead in each direction.

    Attributes:
      uplink_bits_per_s: edge to cloud.
      downlink_bits_per_s: cloud to edge; None means equal to the uplink.
      round_trip_s: time of an empty request and its empty response.
      message_overhead_bytes: framing and headers of one message (gRPC, TLS, IP).
      name: for tables and reports.
    """

    uplink_bits_per_s: float
    downlink_bits_per_s: float | None = None
    round_trip_s: float = 0.0
    message_overhead_bytes: int = 0
    name: str = "network"

    def __post_init__(self) -> None:
        rates = {"uplink_bits_per_s": self.uplink_bits_per_s}
        if self.downlink_bits_per_s is not None:
            rates["downlink_bits_per_s"] = self.downlink_bits_per_s
        for field, rate in rates.items():
            if not rate > 0:
                raise InputError(f"Network.{field} is {rate}; expected a rate above 0 bits/s.")
        for field in ("round_trip_s", "message_overhead_bytes"):
            if getattr(self, field) < 0:
                raise InputError(f"Network.{field} is {getattr(self, field)}; expected 0 or more.")

    def uplink_s(self, payload_bytes: Any) -> Any:
        """Returns the seconds that a request of ``payload_bytes`` occupies the uplink.

        >>> Network(uplink_bits_per_s=8e6).uplink_s(1_000_000)
        1.0
        """
        return (payload_bytes + self.message_overhead_bytes) * 8 / self.uplink_bits_per_s

    def downlink_s(self, payload_bytes: Any) -> Any:
        """Returns the seconds that a response of ``payload_bytes`` occupies the downlink."""
        rate = self.downlink_bits_per_s or self.uplink_bits_per_s
        return (payload_bytes + self.message_overhead_bytes) * 8 / rate
