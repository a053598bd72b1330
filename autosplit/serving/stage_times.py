"""StageTimes: where the time of one inference went."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from autosplit.errors import InputError, ProtocolError

_CLOCK_DRIFT = 1.01  # two machines' clocks may run at rates that differ by a little


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds of each stage of one inference, under the names of the plan's prediction.

    Stages do not overlap; what lies between them (a few Python calls, and in a stream the
    wait for one's turn) is in ``total_s`` alone.

    Attributes:
      edge_s: layers on the edge.
      pack_s: codes to packed bytes.
      uplink_s: the request on the link, without its half of the round trip.
      queue_s: waiting in the server, for its turn and for a batch to fill.
      unpack_s: packed bytes to codes, measured in the server.
      cloud_s: layers in the cloud, measured in the server.
      downlink_s: the response on the link, without its half of the round trip; with
        it, all that the real connection took beyond the imitated link.
      round_trip_s: propagation of the imitated link, both ways; 0 without one. In a
        stream over a real link, what was measured of an empty message.
      total_s: from inputs to outputs by the edge's clock.
    """

    edge_s: float
    pack_s: float
    uplink_s: float
    queue_s: float = 0.0
    unpack_s: float
    cloud_s: float
    downlink_s: float
    round_trip_s: float
    total_s: float


def check_server_times(stages_s: Sequence[float], waited_s: float, address: str) -> None:
    """Raises unless the times that a server reports fit into the call.

    >>> check_server_times((0.0, 0.1, 0.2), 0.5, "127.0.0.1:1")

    Args:
      stages_s: of the response.
      waited_s: from request to response, by the edge's clock.
      address: of the server, for the message.

    Raises:
      ProtocolError: a time that is negative or not finite, or more together than the call.
    """
    plausible = all(math.isfinite(one) and one >= 0 for one in stages_s)
    if not plausible or sum(stages_s) > waited_s * _CLOCK_DRIFT:
        raise ProtocolError(
            f"The server reports stages of {tuple(stages_s)} s for a call that took {waited_s} s; "
            f"expected times within the call. Check the clock of {address}."
        )


def median_times(times: Sequence[StageTimes]) -> StageTimes:
    """Returns the median of each stage over many inferences.

    Medians of stages need not add up to the median of the total.

    Args:
      times: one per inference, at least one.

    Returns:
      Each field's own median.

    Raises:
      InputError: ``times`` is empty.
    """
    if not times:
        raise InputError("No stage times to take a median of; expected at least one inference.")
    fields = [field.name for field in dataclasses.fields(StageTimes)]
    return StageTimes(
        **{name: statistics.median(getattr(one, name) for one in times) for name in fields}
    )


def stage_table(measured: StageTimes, predicted: Mapping[str, float]) -> str:
    """Returns a table of measured beside predicted milliseconds, a row per stage.

    Args:
      measured: usually from `median_times`.
      predicted: seconds from ``manifest.predicted``; a stage that it lacks shows as ``-``.

    Returns:
      Lines of equal width.
    """
    rows = [f"{'stage':<12}{'measured ms':>14}{'predicted ms':>14}"]
    for field in dataclasses.fields(StageTimes):
        predicted_s = predicted.get("latency_s" if field.name == "total_s" else field.name)
        shown = "-" if predicted_s is None else f"{predicted_s * 1e3:.3f}"
        stage = field.name.removesuffix("_s")
        rows.append(f"{stage:<12}{getattr(measured, field.name) * 1e3:>14.3f}{shown:>14}")
    return "\n".join(rows)
