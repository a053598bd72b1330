"""Puts a shaped link in front of a server until it is stopped.

    python -m experiments.shape_link --target HOST:PORT [--address 127.0.0.1:0] \
        [--uplink_bits_per_s 3e6] [--downlink_bits_per_s 3e6] [--round_trip_s 0.02] \
        [--uplink_trace FILE.csv] [--downlink_trace FILE.csv] \
        [--jitter_s 0] [--loss 0] [--retransmit_s 0.2] [--outage 10:15 ...] [--ready_file FILE]

Prints one line with the bound address; clients connect to that. A trace takes the place of a
rate (`autosplit.hardware.bandwidth_trace`, CSV of ``time_s,bits_per_s``), starts with the program
and starts over when it ends. In an outage, given as first and last second since the start,
nothing passes and connections stay. SIGTERM or Ctrl-C stops it and prints what it carried.
"""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Sequence

from absl import app, flags

from autosplit.errors import AutosplitError, InputError
from autosplit.files import write_text
from autosplit.hardware.bandwidth_trace import BandwidthTrace, load_trace
from autosplit.serving.link import LinkConditions, constant_trace
from autosplit.serving.shaper import ShapedProxy, shaping

DEMO_BITS_PER_S = 3e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapeOptions:
    """What the flags say.

    Attributes:
      target, address: ``host:port`` to connect to, and to listen at.
      conditions: of the link.
      outages: first and last second of each since the start, in order.
      ready_file: holds the bound address while the link is there; None for none.
      seed: of losses and jitter.
    """

    target: str
    address: str
    conditions: LinkConditions
    outages: tuple[tuple[float, float], ...]
    ready_file: pathlib.Path | None
    seed: int


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    flags.DEFINE_string("target", None, "host:port of the server behind the link.", required=True)
    flags.DEFINE_string("address", "127.0.0.1:0", "host:port to listen on; port 0 takes a free one")
    flags.DEFINE_float("uplink_bits_per_s", DEMO_BITS_PER_S, "Rate, edge to cloud.")
    flags.DEFINE_float("downlink_bits_per_s", None, "Rate, cloud to edge; by default the uplink's.")
    flags.DEFINE_string("uplink_trace", None, "CSV file in place of the uplink's rate.")
    flags.DEFINE_string("downlink_trace", None, "CSV file in place of the downlink's rate.")
    flags.DEFINE_float("round_trip_s", 0.02, "Propagation, both ways.")
    flags.DEFINE_float("jitter_s", 0.0, "Most that is added to a delay.")
    flags.DEFINE_float("loss", 0.0, "Probability that a packet is lost.")
    flags.DEFINE_float("retransmit_s", 0.2, "Until a lost packet is sent again.")
    flags.DEFINE_multi_string("outage", [], "FIRST:LAST second of an outage; may be repeated.")
    flags.DEFINE_string("ready_file", None, "Write the bound address here when ready.")
    flags.DEFINE_integer("seed", 0, "Of losses and jitter.")


def run(options: ShapeOptions) -> None:
    """Carries bytes until SIGTERM or SIGINT arrives.

    Args:
      options: see `ShapeOptions`.

    Raises:
      AutosplitError: the address cannot be listened at.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with shaping(
        options.target, options.conditions, options.address, seed=options.seed
    ) as proxy:
        print(f"The link to {options.target} is at {proxy.address}", flush=True)
        if options.ready_file is not None:
            write_text(options.ready_file, f"{proxy.address}\n")
        try:
            _play_outages(proxy, options.outages, stopped)
            stopped.wait()
        finally:
            if options.ready_file is not None:
                options.ready_file.unlink(missing_ok=True)
        traffic = proxy.traffic()
    print(
        f"Carried {traffic.uplink_bytes} bytes up and {traffic.downlink_bytes} down on "
        f"{traffic.connections} connections; {traffic.lost_packets} packets were lost.",
        flush=True,
    )


def _play_outages(
    proxy: ShapedProxy, outages: Sequence[tuple[float, float]], stopped: threading.Event
) -> None:
    start_s = time.monotonic()
    for first_s, last_s in outages:
        for when_s, change in ((first_s, proxy.cut), (last_s, proxy.restore)):
            if stopped.wait(max(start_s + when_s - time.monotonic(), 0.0)):
                return
            change()
            print(f"{when_s:g} s: {change.__name__}", flush=True)


def parse_outages(texts: Sequence[str]) -> tuple[tuple[float, float], ...]:
    """Returns first and last second of each outage.

    >>> parse_outages(["1:2.5", "4:5"])
    ((1.0, 2.5), (4.0, 5.0))

    Raises:
      InputError: another form, or times that do not rise.
    """
    last_s, outages = 0.0, []
    for text in texts:
        try:
            first_s, end_s = (float(part) for part in text.split(":"))
        except ValueError:
            first_s = end_s = float("nan")
        if not last_s <= first_s < end_s < float("inf"):
            raise InputError(
                f"--outage is {text!r}; expected FIRST:LAST in seconds since the start, each "
                "after the one before, e.g. --outage=10:15 --outage=30:31."
            )
        outages.append((first_s, end_s))
        last_s = end_s
    return tuple(outages)


def _rate(bits_per_s: float, trace: str | None) -> BandwidthTrace:
    return load_trace(trace) if trace else constant_trace(bits_per_s)


def _options() -> ShapeOptions:
    values = flags.FLAGS
    down_bits_per_s = values.downlink_bits_per_s or values.uplink_bits_per_s
    return ShapeOptions(
        target=values.target,
        address=values.address,
        conditions=LinkConditions(
            uplink=_rate(values.uplink_bits_per_s, values.uplink_trace),
            downlink=_rate(down_bits_per_s, values.downlink_trace),
            delay_s=values.round_trip_s / 2,
            jitter_s=values.jitter_s,
            loss=values.loss,
            retransmit_s=values.retransmit_s,
        ),
        outages=parse_outages(values.outage),
        ready_file=pathlib.Path(values.ready_file) if values.ready_file else None,
        seed=values.seed,
    )


def main(argv: Sequence[str]) -> None:
    """Reads the flags and carries bytes."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    try:
        run(_options())
    except (AutosplitError, OSError) as error:
        sys.exit(f"shape_link: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
