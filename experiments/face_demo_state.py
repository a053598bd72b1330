"""What the demonstration's page sees and sets: settings, checked, and results, as they come."""

from __future__ import annotations

import collections
import dataclasses
import json
import statistics
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from autosplit.errors import InputError

WINDOW = 15
"""Frames over which the page's figures are taken; so few follow the slider at once."""
STAGES = ("edge", "pack", "uplink", "round_trip", "unpack", "cloud", "downlink", "rest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the page may change.

    Attributes:
      uplink_bits_per_s: of the link of each pane.
      jpeg_quality: of cloud-only.
      paused: no frames are taken.
    """

    uplink_bits_per_s: float
    jpeg_quality: int
    paused: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What the settings may be.

    Attributes:
      lowest_bits_per_s, highest_bits_per_s: of the uplink.
      jpeg_qualities: that cloud-only may have.
    """

    lowest_bits_per_s: float
    highest_bits_per_s: float
    jpeg_qualities: Sequence[int]

    def changed(self, settings: Settings, body: bytes) -> Settings:
        """Returns the settings with what a request asks for.

        Args:
          settings: at present.
          body: a JSON object with some of the fields of `Settings`.

        Raises:
          InputError: it is none, or a field is unknown or out of its range.
        """
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or too deep
            raise InputError(f"The request is no JSON ({error}); expected an object.") from error
        names = {field.name for field in dataclasses.fields(Settings)}
        if not isinstance(asked, dict) or not asked or not set(asked) <= names:
            raise InputError(
                f"The request sets {sorted(asked) if isinstance(asked, dict) else 'no object'}; "
                f"expected an object with some of {sorted(names)}."
            )
        for name, value in asked.items():
            self._check(name, value)
        return dataclasses.replace(settings, **asked)

    def _check(self, name: str, value: Any) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        low, high = self.lowest_bits_per_s, self.highest_bits_per_s
        fits, expected = {
            "uplink_bits_per_s": (
                number and low <= value <= high,
                f"{low:g} to {high:g} bits/s",
            ),
            "jpeg_quality": (
                isinstance(value, int) and number and value in self.jpeg_qualities,
                f"one of {sorted(self.jpeg_qualities)}",
            ),
            "paused": (isinstance(value, bool), "true or false"),
        }[name]
        if not fits:
            raise InputError(f"{name} is {value!r:.60}; expected {expected}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """One object in a frame.

    Attributes:
      name: of its class.
      score: 0 to 1.
      box: left, top, right, bottom, 0 to 1 of the frame.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameResult:
    """What a solution found in a frame, and what that took.

    Attributes:
      found: objects.
      stages_s: seconds of each of `STAGES`.
      sent_bytes: on the uplink, with all headers above TCP.
      payload_bytes: of it the tensor or the picture.
      plan: position of the plan; None for cloud-only.
    """

    found: Sequence[Found]
    stages_s: Mapping[str, float]
    sent_bytes: int
    payload_bytes: int
    plan: int | None = None

    @property
    def total_s(self) -> float:
        """From the frame to its boxes."""
        return sum(self.stages_s.values())


class Board:
    """Settings and results, shared by the thread that works and those that serve the page."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self.limits = limits
        self._settings = settings
        self._changed = threading.Condition()
        self._latest: dict[str, tuple[int, dict[str, Any]]] = {}
        self._recent: dict[str, collections.deque[FrameResult]] = {}
        self._count = 0
        self._closed = False
        with self._changed:
            self._tell("settings", dataclasses.asdict(settings))

    @property
    def settings(self) -> Settings:
        """The present ones."""
        with self._changed:
            return self._settings

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Tells all who wait that nothing more comes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def change(self, body: bytes) -> Settings:
        """Applies a request of the page; raises `InputError` and changes nothing if it is wrong."""
        with self._changed:
            settings = self.limits.changed(self._settings, body)
            if settings != self._settings:
                self._recent.clear()  # medians of other settings say nothing now
            self._settings = settings
            self._tell("settings", dataclasses.asdict(settings))
            return settings

    def publish(self, pane: str, number: int, picture: str, result: FrameResult) -> None:
        """Shows a result; a page that is slow misses some.

        Args:
          pane: ``"split"`` or ``"cloud"``.
          number: of the frame.
          picture: of the frame, a data URL.
          result: of the frame.
        """
        with self._changed:
            recent = self._recent.setdefault(pane, collections.deque(maxlen=WINDOW))
            recent.append(result)
            self._tell(pane, {
                "frame": number,
                "picture": picture,
                "found": [dataclasses.asdict(one) for one in result.found],
                "plan": result.plan,
                "stages_ms": {name: median_ms(r.stages_s[name] for r in recent) for name in STAGES},
                "total_ms": median_ms(r.total_s for r in recent),
                "sent_bytes": statistics.median(r.sent_bytes for r in recent),
                "payload_bytes": statistics.median(r.payload_bytes for r in recent),
            })  # fmt: skip

    def fail(self, pane: str, message: str) -> None:
        """Shows why a solution has no result."""
        with self._changed:
            self._recent.pop(pane, None)
            self._tell(pane, {"error": message})

    def after(self, count: int, timeout_s: float) -> tuple[int, dict[str, dict[str, Any]]]:
        """Waits for something newer and returns it.

        Args:
          count: of the last call; 0 at first.
          timeout_s: longest wait.

        Returns:
          The count now, and the newest of each kind that is newer, by its name.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._count > count or self._closed, timeout_s)
            newer = {name: data for name, (at, data) in self._latest.items() if at > count}
            return self._count, newer

    def wait_while_paused(self, timeout_s: float) -> None:
        """Returns when frames are wanted, or after a while."""
        with self._changed:
            self._changed.wait_for(lambda: not self._settings.paused or self._closed, timeout_s)

    def _tell(self, name: str, data: dict[str, Any]) -> None:
        self._count += 1
        self._latest[name] = (self._count, data)
        self._changed.notify_all()


def median_ms(seconds: Any) -> float:
    """Returns the median in milliseconds.

    >>> median_ms([0.001, 0.002, 0.009])
    2.0
    """
    return statistics.median(seconds) * 1e3
