"""Plan chooser: the plan and the coding for the next frame of a stream, by the measured link."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection, Sequence
from typing import Any

from autosplit.execution.halves import Split
from autosplit.serving.bandwidth import BandwidthEstimate, Transfer
from autosplit.serving.coding import Coding, CodingCost, fastest_coding, measure_codings
from autosplit.serving.fallback import edge_only
from autosplit.serving.in_flight import Request
from autosplit.serving.plan_switching import Choice, PlanLine, SwitchRule, next_choice, plan_line

IDLE_SHARE = 0.5
"""Most of the link that probes take while nothing else is sent."""

BUSY_SHARE = 0.05
"""Most of the link that probes take beside frames."""

_QUEUE_FACTOR = 2.0  # a request may be held so much longer than the last one was


class PlanChooser:
    """Follows the link of one stream. The first split is used until something was measured."""

    def __init__(self, splits: Sequence[Split], rule: SwitchRule):
        """Starts with the first split.

        Args:
          splits: plans of one function.
          rule: hysteresis.

        Raises:
          InputError: several plans send something, and one has no predicted times.
        """
        self._splits = splits
        self._rule = rule
        self._lines = _lines(splits)
        self._choice = Choice(plan=0)
        self._estimate = BandwidthEstimate(round_trip_s=0.0)
        self._server_s = 0.0
        self._costs: dict[int, Sequence[CodingCost]] = {}

    @property
    def bits_per_s(self) -> float | None:
        """The measured rate of the link; None before the first measurement."""
        return self._estimate.bits_per_s

    def note(self, transfer: Transfer, round_trip_s: float) -> None:
        """Takes one more transfer into the estimate."""
        estimate = dataclasses.replace(self._estimate, round_trip_s=round_trip_s)
        self._estimate = estimate.after(transfer)
        self._server_s = transfer.server_s

    def rate_now(self, oldest: Request | None) -> float | None:
        """Returns the rate, given the oldest request that is on the link."""
        if oldest is None:
            return self._estimate.bits_per_s
        return self._estimate.while_waiting(
            oldest.message_bytes,
            oldest.sent_s,
            _QUEUE_FACTOR * self._server_s,
            time.perf_counter(),
        )

    def choose(self, oldest: Request | None, served: Collection[int] | None) -> int:
        """Returns the position of the split for the next frame.

        Args:
          oldest: request on the link; None where it is idle.
          served: positions of the splits that the server has; None where that is not known.
        """
        bits_per_s = self.rate_now(oldest)
        if self._lines is not None and bits_per_s is not None:
            self._choice = next_choice(
                self._choice,
                self._lines,
                bits_per_s,
                rule=self._rule,
                now_s=time.perf_counter(),
            )
        plan = self._choice.plan
        if served and plan not in served and self._splits[plan].manifest.crossing:
            return self._lightest(served)
        return plan

    def probe(self, plan: int, served: Collection[int], waited_s: float) -> int | None:
        """Returns the plan with which to measure the link; None: not now.

        What a plan sends can be too little to show that the link has become faster, and an
        edge-only plan sends nothing. So a frame is sent now and then by the lightest plan
        that sends more and would gain by a faster link.

        Args:
          plan: position of the plan in use.
          served: positions of the splits that the server has.
          waited_s: since the last probe.
        """
        if self._lines is None:
            return None
        lines, own = self._lines, self._lines[plan]
        heavier = [
            at for at in served
            if lines[at].sent_bits > own.sent_bits and lines[at].fixed_s < own.fixed_s
        ]  # fmt: skip
        if not heavier:
            return None
        lightest = min(heavier, key=lambda at: lines[at].sent_bits)
        share = BUSY_SHARE if own.sent_bits else IDLE_SHARE
        probe_s = lines[lightest].sent_bits / (self.bits_per_s or math.inf)
        return lightest if probe_s <= share * waited_s else None

    def _lightest(self, served: Collection[int]) -> int:
        """Returns which of the plans sends least."""
        return min(
            served, key=lambda at: sum(s.payload_bytes for s in self._splits[at].manifest.crossing)
        )

    def coding(self, plan: int, payload: Sequence[Any], oldest: Request | None) -> Coding | None:
        """Returns how to code a payload at the rate of the link; None: as it is.

        What each coding takes and saves is measured once per plan, on its first payload.
        """
        bits_per_s = self.rate_now(oldest)
        if bits_per_s is None:
            return None
        if plan not in self._costs:
            self._costs[plan] = measure_codings([payload])
        return fastest_coding(self._costs[plan], bits_per_s / 8).coding


def _lines(splits: Sequence[Split]) -> list[PlanLine] | None:
    """Returns what each plan takes; None where there is nothing to choose by bandwidth.

    One split that sends, with an edge-only one to fall back on, needs no prediction.
    """
    remote = sum(bool(split.manifest.crossing) for split in splits)
    solved = all(split.manifest.plan is not None for split in splits)
    if remote > 1 or (remote and edge_only(splits) is not None and solved):
        return [plan_line(split.manifest) for split in splits]
    return None
