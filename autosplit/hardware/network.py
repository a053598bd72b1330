"""The link between edge and cloud."""

from __future__ import annotations

import dataclasses
import math
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
      uplink_j_per_bit: what the edge device's radio spends to send a bit; None means
        that it is not known.
      downlink_j_per_bit: the same to receive one.
      name: for tables and reports.
    """

    uplink_bits_per_s: float
    downlink_bits_per_s: float | None = None
    round_trip_s: float = 0.0
    message_overhead_bytes: int = 0
    uplink_j_per_bit: float | None = None
    downlink_j_per_bit: float | None = None
    name: str = "network"

    def __post_init__(self) -> None:
        rates = {"uplink_bits_per_s": self.uplink_bits_per_s}
        if self.downlink_bits_per_s is not None:
            rates["downlink_bits_per_s"] = self.downlink_bits_per_s
        for field, rate in rates.items():
            if not 0 < rate < math.inf:
                raise InputError(
                    f"Network.{field} is {rate}; expected a finite rate above 0 bits/s. "
                    "A link that is down has no latency: leave its plans out."
                )
        energies = ("uplink_j_per_bit", "downlink_j_per_bit")
        for field in ("round_trip_s", "message_overhead_bytes", *energies):
            value = getattr(self, field)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(
                    f"Network.{field} is {value}; expected a finite number of 0 or more. "
                    "Check its unit, which the field's name states."
                )

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

    def uplink_j(self, payload_bytes: Any) -> Any:
        """Returns the joules that the edge device spends to send a request, NaN where unknown.

        >>> Network(uplink_bits_per_s=8e6, uplink_j_per_bit=0.5e-6).uplink_j(1_000_000)
        4.0
        """
        return self._radio_j(payload_bytes, self.uplink_j_per_bit)

    def downlink_j(self, payload_bytes: Any) -> Any:
        """Returns the joules that it spends to receive a response, NaN where unknown."""
        return self._radio_j(payload_bytes, self.downlink_j_per_bit)

    def _radio_j(self, payload_bytes: Any, j_per_bit: float | None) -> Any:
        joules = math.nan if j_per_bit is None else j_per_bit
        return (payload_bytes + self.message_overhead_bytes) * 8 * joules
