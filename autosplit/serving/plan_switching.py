"""Plan switching: which of the saved plans to use at the measured rate, with hysteresis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from autosplit.errors import InputError
from autosplit.execution.manifest import Manifest
from autosplit.profiling.plan import plan_from_json
from autosplit.serving.link import plan_network


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanLine:
    """What a plan takes at an uplink rate: ``fixed_s + sent_bits / rate``.

    Attributes:
      fixed_s: computation, packing and round trip.
      sent_bits: over the link, both ways; 0 for an edge-only plan.
    """

    fixed_s: float
    sent_bits: float

    def latency_s(self, bits_per_s: float) -> float:
        """Returns the seconds of one request.

        >>> PlanLine(fixed_s=0.5, sent_bits=1e6).latency_s(2e6)
        1.0
        """
        return self.fixed_s + self.sent_bits / bits_per_s


def plan_line(manifest: Manifest) -> PlanLine:
    """Reads the line of a saved plan off its manifest.

    The saved splits of a plan table, made by `autosplit.solvers.plan_table`, give
    the table again: at every rate the lowest line is that of the table's plan.

    Args:
      manifest: of a split that was made from a solved plan.

    Returns:
      The line, with the downlink of the plan's network where that has a rate of its own.

    Raises:
      InputError: the split was made at a bare cut and has no predicted times.
      ArtefactError: the manifest's plan or network is not one of this version.
    """
    if manifest.plan is None or not manifest.network:
        raise InputError(
            f"Split {manifest.split_id[:12]} ({manifest.label}) holds no solved plan, so nothing "
            "says at which bandwidth it is the fastest. Split at a plan that `solve` returned."
        )
    plan = plan_from_json(manifest.plan, f"the manifest of split {manifest.split_id[:12]}")
    network = plan_network(manifest)
    fixed_s = plan.edge_s + plan.pack_s + plan.unpack_s + plan.cloud_s + plan.round_trip_s
    if not manifest.crossing:
        return PlanLine(fixed_s=fixed_s, sent_bits=0.0)
    sent_bytes = plan.uplink_bytes + network.message_overhead_bytes
    if network.downlink_bits_per_s is None:
        sent_bytes += plan.downlink_bytes + network.message_overhead_bytes
    else:
        fixed_s += plan.downlink_s
    return PlanLine(fixed_s=fixed_s, sent_bits=8.0 * sent_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwitchRule:
    """When another plan replaces the present one.

    Attributes:
      least_gain: share of the present plan's latency that the other must save, 0 to 1.
      hold_s: for how long some other must have saved that, without a break.
    """

    least_gain: float = 0.1
    hold_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least_gain < 1 or not self.hold_s >= 0:
            raise InputError(
                f"The rule is {self}; expected a gain from 0 to below 1 and a time of at least 0 s."
            )


USUAL_RULE = SwitchRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The plan in use.

    Attributes:
      plan: its position.
      worse_since_s: since when another has been faster by the rule's gain; None: none is.
    """

    plan: int
    worse_since_s: float | None = None


def next_choice(
    choice: Choice,
    lines: Sequence[PlanLine],
    bits_per_s: float,
    *,
    rule: SwitchRule,
    now_s: float,
) -> Choice:
    """Returns which plan to use now.

    At a rate that swings around a breakpoint the two plans are nearly equal, so neither
    saves enough to replace the other; a short dip or burst ends before ``hold_s``.

    >>> lines = [PlanLine(fixed_s=0.1, sent_bits=1e6), PlanLine(fixed_s=0.5, sent_bits=1e3)]
    >>> rule = SwitchRule(hold_s=1.0)
    >>> slow = next_choice(Choice(plan=0), lines, 1e5, rule=rule, now_s=7.0)
    >>> slow.plan, slow.worse_since_s
    (0, 7.0)
    >>> next_choice(slow, lines, 1e5, rule=rule, now_s=8.0).plan
    1

    Args:
      choice: the previous one.
      lines: of the plans, in their order.
      bits_per_s: the measured rate, above 0.
      rule: the hysteresis.
      now_s: of any clock that does not go back.

    Returns:
      The choice; equal to the previous one where nothing changed.
    """
    latencies_s = [line.latency_s(bits_per_s) for line in lines]
    best = min(range(len(lines)), key=latencies_s.__getitem__)
    if latencies_s[best] >= (1 - rule.least_gain) * latencies_s[choice.plan]:
        return Choice(plan=choice.plan)
    since_s = now_s if choice.worse_since_s is None else choice.worse_since_s
    if now_s - since_s >= rule.hold_s:
        return Choice(plan=best)
    return Choice(plan=choice.plan, worse_since_s=since_s)
