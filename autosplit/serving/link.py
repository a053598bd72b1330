"""What a link does to bytes: the plan's, imitated by sleeping, and worse ones for the shaper."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np

from autosplit.errors import ArtefactError, InputError
from autosplit.execution.manifest import Manifest
from autosplit.hardware.bandwidth_trace import BandwidthTrace
from autosplit.hardware.network import Network

PACKET_BYTES = 1448
"""What a TCP packet carries on Ethernet: 1500 less 20 of IPv4 and 32 of TCP with time stamps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapedLink:
    """Makes a fast connection take as long as a message takes on ``network``.

    A request of n bytes arrives (n + overhead) * 8 / uplink + round_trip / 2 seconds
    after it was ready to send; a response likewise with the downlink. Time that the
    real connection took counts towards it: only the remainder is slept.

    Accuracy: a leg never takes less than it should. It takes more by the lateness of
    ``time.sleep`` (about 0.1 ms on an idle Linux host, milliseconds on a loaded one),
    or by the whole excess where the real connection is slower than the imitated one.
    Rates are constant: no loss, jitter, slow start or queueing. The request leg is
    slept before the bytes are handed to gRPC, so what loopback needs in either
    direction counts towards the response leg.

    Attributes:
      network: the link to imitate.
    """

    network: Network

    def request_s(self, message_bytes: int) -> float:
        """Returns the seconds from ready on the edge to arrived in the cloud.

        >>> slow = Network(uplink_bits_per_s=8e3, downlink_bits_per_s=8e6, round_trip_s=0.5)
        >>> ShapedLink(network=slow).request_s(1000)
        1.25

        Args:
          message_bytes: of the serialized request.

        Returns:
          Transmission and half of the round trip.
        """
        return self.network.uplink_s(message_bytes) + self.network.round_trip_s / 2

    def response_s(self, message_bytes: int) -> float:
        """Returns the seconds from ready in the cloud to arrived on the edge.

        Args:
          message_bytes: of the serialized response.

        Returns:
          Transmission and half of the round trip.
        """
        return self.network.downlink_s(message_bytes) + self.network.round_trip_s / 2


def sleep_until(deadline_s: float) -> None:
    """Returns no earlier than ``deadline_s``, at once if that has passed.

    Args:
      deadline_s: on the clock of ``time.perf_counter``.
    """
    while (remaining_s := deadline_s - time.perf_counter()) > 0:
        time.sleep(remaining_s)


def plan_network(manifest: Manifest) -> Network:
    """Returns the link that the split was planned for.

    Args:
      manifest: of the split.

    Returns:
      The plan's network.

    Raises:
      ArtefactError: the manifest's fields are not those of `Network`.
    """
    try:
        return Network(**manifest.network)
    except TypeError as error:
        raise ArtefactError(
            f"The manifest of split {manifest.split_id[:12]} holds the network fields "
            f"{sorted(manifest.network)}, which do not make a Network ({error}). "
            "Save the split again with this version of autosplit."
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinkConditions:
    """What `autosplit.serving.shaper` does to the bytes of every connection.

    Both directions know nothing of each other; within one, all connections share the
    rate, first come, first served.

    Attributes:
      uplink: rate over time, edge to cloud; a rate of 0 is an outage, in which bytes wait.
      downlink: the same, cloud to edge.
      delay_s: propagation, one way.
      jitter_s: added to the delay of each piece, uniform from 0 to this; bytes of a
        connection stay in order.
      loss: probability that a packet is lost, 0 to below 1. A lost one uses the rate
        again, and it and all behind it on its connection arrive ``retransmit_s`` later.
      retransmit_s: until TCP sends a lost packet again; 0.2 is the least that Linux waits
        where no later packet tells of the loss.
      packet_header_bytes: that use the rate with every `PACKET_BYTES`.
    """

    uplink: BandwidthTrace
    downlink: BandwidthTrace
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    retransmit_s: float = 0.2
    packet_header_bytes: int = 0

    def __post_init__(self) -> None:
        for field in ("delay_s", "jitter_s", "retransmit_s", "packet_header_bytes"):
            value = getattr(self, field)
            if not 0 <= value < math.inf:
                raise InputError(
                    f"LinkConditions.{field} is {value}; expected a finite number of 0 or more. "
                    "Check its unit, which the field's name states."
                )
        if not 0 <= self.loss < 1:
            raise InputError(
                f"LinkConditions.loss is {self.loss}; expected a probability from 0 to below 1. "
                "Where all is lost, cut the link instead."
            )


def steady_conditions(network: Network, **others: Any) -> LinkConditions:
    """Returns the conditions of a link of constant rates.

    >>> conditions = steady_conditions(Network(uplink_bits_per_s=3e6, round_trip_s=0.02))
    >>> conditions.delay_s, conditions.downlink.mean_bits_per_s
    (0.01, 3000000.0)

    Args:
      network: its rates and round trip; what it adds to a message is not taken over, as
        the bytes that really are sent with a message count by themselves.
      **others: further fields of `LinkConditions`.
    """
    return LinkConditions(
        uplink=constant_trace(network.uplink_bits_per_s),
        downlink=constant_trace(network.downlink_bits_per_s or network.uplink_bits_per_s),
        delay_s=network.round_trip_s / 2,
        **others,
    )


def constant_trace(bits_per_s: float) -> BandwidthTrace:
    """Returns a trace of one rate."""
    return BandwidthTrace(
        times_s=np.zeros(1), bits_per_s=np.array([bits_per_s]), name="constant"
    )
