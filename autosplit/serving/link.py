"""A link of chosen rates and round trip, imitated in the client by sleeping."""

from __future__ import annotations

import dataclasses
import time

from autosplit.errors import ArtefactError
from autosplit.execution.manifest import Manifest
from autosplit.hardware.network import Network


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
