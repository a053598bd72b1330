"""Bandwidth over time: how long a transfer takes when the link changes under it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.files import write_text

HEADER = "time_s,bits_per_s"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BandwidthTrace:
    """A rate that is constant between two times and starts over when the trace ends.

    A row's rate holds until the next row's time, the last row's for as long as the
    one before it (one second if it is alone). A rate of 0 is an outage: transfers
    wait.

    ``transfer`` of b bits from time t ends at the first e with
    ``integral of rate over [t, e] = b``.

    Attributes:
      times_s: f64[N], rising.
      bits_per_s: f64[N], 0 or more, one at the least above 0.
      name: for tables and reports.

    >>> trace = BandwidthTrace(times_s=[0, 1, 2], bits_per_s=[8e6, 0, 4e6])
    >>> trace.transfer_s(1_000_000, np.array([0.0, 0.5, 2.0]))
    array([1. , 2.5, 1.5])
    """

    times_s: np.ndarray
    bits_per_s: np.ndarray
    name: str = "trace"

    def __post_init__(self) -> None:
        times_s, rates = (np.array(a, np.float64) for a in (self.times_s, self.bits_per_s))
        if times_s.ndim != 1 or times_s.shape != rates.shape:
            raise InputError(
                f"BandwidthTrace has times of shape {times_s.shape} and rates of shape "
                f"{rates.shape}; expected two vectors of one length."
            )
        _check_rows(times_s, rates, "BandwidthTrace", lambda row: f"BandwidthTrace, row {row}")
        for field, values in (("times_s", times_s), ("bits_per_s", rates)):
            values.flags.writeable = False
            object.__setattr__(self, field, values)

    @property
    def period_s(self) -> float:
        """Seconds after which the trace starts over."""
        return float(self._knots_s[-1])

    @property
    def mean_bits_per_s(self) -> float:
        """Bits of one period over its duration, outages included."""
        return float(self._sent_bits[-1] / self.period_s)

    @property
    def _knots_s(self) -> np.ndarray:
        """f64[N + 1], where rates change, from the first time on; the end is the last."""
        since = self.times_s - self.times_s[0]
        last = since[-1] - since[-2] if len(since) > 1 else 1.0
        return np.append(since, since[-1] + last)

    @property
    def _sent_bits(self) -> np.ndarray:
        """f64[N + 1], bits that the link carries from the first time to each knot."""
        return np.append(0.0, np.cumsum(self.bits_per_s * np.diff(self._knots_s)))

    def transfer_s(self, num_bytes: ArrayLike, start_s: ArrayLike) -> np.ndarray:
        """Returns seconds from ``start_s`` until the last of ``num_bytes`` has left.

        Nothing is added for headers or round trips: that is `Network`'s part, whose
        `uplink_s` this equals on a constant trace.

        Args:
          num_bytes: sizes; 0 takes no time.
          start_s: times on the trace's own clock, before its first or after its last
            row too; of a shape that broadcasts with the sizes.

        Returns:
          f64, of the shape to which the arguments broadcast.

        Raises:
          InputError: a size that is negative or a time that is not finite.
        """
        size = np.asarray(num_bytes, np.float64)
        start = np.asarray(start_s, np.float64)
        if not np.all((size >= 0) & np.isfinite(size)):
            raise InputError(f"num_bytes is {size}; expected finite sizes of 0 or more.")
        if not np.all(np.isfinite(start)):
            raise InputError(f"start_s is {start}; expected finite times.")
        knots, sent = self._knots_s, self._sent_bits
        phase = np.mod(start - self.times_s[0], knots[-1])
        goal = np.interp(phase, knots, sent) + size * 8
        # The last bit leaves within a period, its very end included.
        periods = np.ceil(goal / sent[-1]) - 1
        rest = np.clip(goal - periods * sent[-1], np.finfo(np.float64).tiny, sent[-1])
        # The first knot with as many bits sent: behind it is a segment that sends, never an outage.
        row = np.searchsorted(sent, rest, side="left") - 1
        end = periods * knots[-1] + knots[row] + (rest - sent[row]) / self.bits_per_s[row]
        return np.where(size > 0, np.maximum(end - phase, 0.0), 0.0)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes what `load_trace` reads; floats are kept exactly."""
        rows = zip(self.times_s.tolist(), self.bits_per_s.tolist(), strict=True)
        write_text(path, "\n".join([HEADER, *(f"{time!r},{rate!r}" for time, rate in rows)]) + "\n")


def load_trace(path: str | os.PathLike[str]) -> BandwidthTrace:
    r"""Reads a trace from CSV: the header ``time_s,bits_per_s``, then a row for each change.

    Empty lines and lines that start with ``#`` are skipped. The trace takes the file's
    name without its suffix.

    >>> import tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "lift.csv"
    >>> _ = file.write_text("# into the lift and out\ntime_s,bits_per_s\n0,8e6\n5,0\n20,8e6\n")
    >>> trace = load_trace(file)
    >>> trace.name, trace.period_s, trace.mean_bits_per_s
    ('lift', 35.0, 4571428.571428572)

    Raises:
      InputError: the file is missing, no text or has no row; a header or a column is wrong;
        numbers are no numbers, negative or not finite; times do not rise; all rates are 0.
        The message names the line.
    """
    file = pathlib.Path(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a trace as CSV.") from error
    kept = [(n, line.strip()) for n, line in enumerate(lines, start=1)]
    kept = [(n, line) for n, line in kept if line and not line.startswith("#")]
    if len(kept) < 2:
        raise InputError(
            f"{path} has {len(kept)} lines beside comments; expected the header {HEADER!r} and a "
            "row for each change of the rate."
        )
    header_line, header = kept[0]
    if [column.strip() for column in header.split(",")] != HEADER.split(","):
        raise InputError(
            f"{path}, line {header_line}: the header is {header!r}; expected {HEADER!r}."
        )
    numbers = [n for n, _ in kept[1:]]
    table = np.array([_parse(line, f"{path}, line {n}") for n, line in kept[1:]])
    _check_rows(table[:, 0], table[:, 1], str(path), lambda row: f"{path}, line {numbers[row]}")
    return BandwidthTrace(times_s=table[:, 0], bits_per_s=table[:, 1], name=file.stem)


def synthetic_trace(
    mean_bits_per_s: float,
    *,
    duration_s: float = 600.0,
    step_s: float = 1.0,
    spread: float = 0.5,
    correlation_s: float = 10.0,
    outage_share: float = 0.02,
    outage_s: float = 3.0,
    seed: int = 0,
) -> BandwidthTrace:
    """Draws a made-up trace of a mobile link, for tests and demonstrations.

    No measurement is behind it. The logarithm of the rate is an autoregressive
    process of the first order, outages a Markov chain of two states; the whole is
    scaled to the mean.

    ``x' = r x + sqrt(1 - r^2) n, r = exp(-step / correlation), rate ~ on * exp(spread x)``

    >>> trace = synthetic_trace(5e6, seed=1)
    >>> trace.name, len(trace.times_s), round(trace.mean_bits_per_s)
    ('synthetic', 600, 5000000)

    Args:
      mean_bits_per_s: over the whole trace, outages included.
      duration_s: of the trace.
      step_s: time between two rates.
      spread: standard deviation of the logarithm of the rate, 0 or more.
      correlation_s: time in which the correlation of the logarithm falls to 1 / e.
      outage_share: fraction of time without any rate, 0 to below 1; it starts without.
      outage_s: mean length of an outage, at the least the step.
      seed: of all draws.

    Raises:
      InputError: an argument out of its range.
    """
    steps = _check_synthetic(mean_bits_per_s, duration_s, step_s, spread, correlation_s)
    if not (0 <= outage_share < 1 and step_s <= outage_s < np.inf):
        raise InputError(
            f"outage_share is {outage_share} and outage_s {outage_s}; expected 0 to below 1, and "
            f"a finite length of one step ({step_s} s) or more."
        )
    generator = np.random.default_rng(seed)
    back = step_s / outage_s
    away = back * outage_share / (1 - outage_share)
    if away > 1:
        raise InputError(
            f"Outages of {outage_s} s cannot fill {outage_share} of the time when some step lies "
            "between two of them; expected longer outages or a smaller share."
        )
    keep = np.exp(-step_s / correlation_s)
    level, on = generator.normal(), True
    rates = np.zeros(steps)
    for step in range(steps):
        rates[step] = on * np.exp(spread * level)
        level = keep * level + np.sqrt(1 - keep**2) * generator.normal()
        on = generator.random() >= away if on else generator.random() < back
    rates *= mean_bits_per_s / rates.mean()
    return BandwidthTrace(times_s=np.arange(steps) * step_s, bits_per_s=rates, name="synthetic")


def _parse(line: str, where: str) -> tuple[float, float]:
    columns = line.split(",")
    if len(columns) != 2:
        raise InputError(
            f"{where}: {line!r} has {len(columns)} columns; expected 2, {HEADER!r}."
        )
    try:
        return float(columns[0]), float(columns[1])
    except ValueError:
        raise InputError(f"{where}: {line!r} holds no two numbers; expected {HEADER!r}.") from None


def _check_rows(
    times_s: np.ndarray, rates: np.ndarray, owner: str, where: Callable[[int], str]
) -> None:
    """Raises `InputError` for the first row that is wrong, or where all are useless."""
    endless = ~np.isfinite(times_s)
    if endless.any():
        row = int(endless.argmax())
        raise InputError(f"{where(row)}: the time is {times_s[row]}; expected a finite number.")
    wrong = ~((rates >= 0) & np.isfinite(rates))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{where(row)}: the rate is {rates[row]}; expected a finite number of 0 (an outage) or "
            "more, in bits/s."
        )
    falling = np.diff(times_s) <= 0
    if falling.any():
        row = int(falling.argmax()) + 1
        raise InputError(
            f"{where(row)}: the time {times_s[row]} s follows {times_s[row - 1]} s; expected times "
            "that rise. Sort the rows and drop doubles."
        )
    if not np.any(rates > 0):
        raise InputError(
            f"{owner} never has a rate above 0, so no transfer would end; expected one at the "
            "least. Check the unit and the column."
        )


def _check_synthetic(
    mean_bits_per_s: float, duration_s: float, step_s: float, spread: float, correlation_s: float
) -> int:
    """Returns the number of steps."""
    positive = {
        "mean_bits_per_s": mean_bits_per_s,
        "duration_s": duration_s,
        "step_s": step_s,
        "correlation_s": correlation_s,
    }
    for argument, value in positive.items():
        if not 0 < value < np.inf:
            raise InputError(f"{argument} is {value}; expected a finite number above 0.")
    if not 0 <= spread < np.inf:
        raise InputError(f"spread is {spread}; expected a finite number of 0 or more.")
    if duration_s < step_s:
        raise InputError(
            f"duration_s is {duration_s} and step_s {step_s}; expected one step at the least."
        )
    return round(duration_s / step_s)
