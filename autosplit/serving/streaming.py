"""Streaming: how a stream is to behave, and what it says of each frame."""

from __future__ import annotations

import dataclasses
from typing import Literal

from autosplit.errors import AutosplitError, InputError
from autosplit.serving.fallback import Outputs
from autosplit.serving.plan_switching import USUAL_RULE, SwitchRule
from autosplit.serving.stage_times import StageTimes


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a stream works ahead, switches and falls back.

    Attributes:
      in_flight: most frames that are taken and not yet consumed, at least 1; 1 is no
        pipelining. More hide a longer round trip, but wait longer on a slow link.
      patience_s: how long a frame waits for the cloud before the edge-only split answers it;
        None leaves all to ``timeout_s``. Without such a split it has no effect.
      stall_s: a connection that is silent for so long, with requests on it, is opened
        anew; doubled each time that this does not help.
      probe_s: how often, at most, a frame is also sent by a plan that sends more, to
        see whether the link has become faster; less often where that would fill the link.
      rule: of switching between plans.
      code_losslessly: code what is sent with zstd where that saves time at the measured rate.
    """

    in_flight: int = 3
    patience_s: float | None = 1.0
    stall_s: float = 5.0
    probe_s: float = 2.0
    rule: SwitchRule = USUAL_RULE
    code_losslessly: bool = True

    def __post_init__(self) -> None:
        times_s = (self.stall_s, self.probe_s, 1.0 if self.patience_s is None else self.patience_s)
        if self.in_flight < 1 or not all(one > 0 for one in times_s):
            raise InputError(
                f"The options are {self}; expected at least 1 frame in flight, and times above 0 s."
            )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What became of one frame of a stream.

    Attributes:
      frame: its number, from 0.
      outputs: flat; None where ``error`` says why there are none.
      error: what ended the frame.
      times: of each stage; None with an error.
      plan: position of the split that answered: 0 is the client's ``split``, then its
        ``alternatives``.
      label: of that plan.
      source: ``"cloud"``; ``"edge"`` where an edge-only plan was chosen; ``"fallback"``
        where the edge stepped in for the link.
      request_bytes, response_bytes: of the messages; 0 on the edge.
      attempts: how often the request was sent.
      batch: requests that the server computed together with it.
      bits_per_s: the link's measured rate when the frame was answered, a lower bound where
        messages are small for it; None: not yet known.
    """

    frame: int
    outputs: Outputs | None
    error: AutosplitError | None
    times: StageTimes | None
    plan: int
    label: str
    source: Literal["cloud", "edge", "fallback"]
    request_bytes: int
    response_bytes: int
    attempts: int
    batch: int
    bits_per_s: float | None


USUAL_OPTIONS = StreamOptions()
