"""The report in sentences: what was decided, what it brings, and where it loses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from autosplit.profiling.plan import FLOAT_BITS, SplitPlan
from autosplit.profiling.table import Profile
from autosplit.reporting.families import compared
from autosplit.reporting.formats import (
    format_error,
    format_ms,
    format_number,
    format_percent,
    format_rate,
    format_size,
)
from autosplit.reporting.report_data import Accuracy, ReportData
from autosplit.solvers.constraints import costs, known_error, violations, within

EQUAL = 0.005
"""Relative difference of two latencies below which they count as equal."""


CONSTRAINTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "memory_bytes": ("edge memory", format_size),
    "output_error": ("output error", format_error),
    "quant_mse": ("quant_mse on the edge", format_number),
    "latency_s": ("latency", format_ms),
    "energy_j": ("energy of the edge device", lambda joules: f"{format_number(joules * 1e3)} mJ"),
}
"""Title and way to write the value of each constraint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a baseline does against the chosen plan.

    Attributes:
      text: one sentence.
      verdict: ``faster``, ``equal`` or ``slower``, of the baseline.
    """

    text: str
    verdict: str


def decision(data: ReportData) -> str:
    """Says in words where the network is cut, what runs where and what is sent."""
    plan, profile = data.chosen, data.profile
    link = _link(profile)
    time = f"By simulation one request takes {format_ms(plan.latency_s)} over {link}."
    count, total = sum(plan.on_edge), len(plan.on_edge)
    if count == 0:
        return (
            f"{data.network_name} is not split: all {total} layers run in the cloud "
            f"({profile.cloud_name}) and the edge sends its input as {plan.encoding}, "
            f"{format_size(plan.uplink_bytes)} a request. {time}"
        )
    bits = bits_in_words(plan)
    if count == total:
        return (
            f"{data.network_name} is not split: all {total} layers run on the edge device "
            f"({profile.edge_name}) {bits}, and nothing is sent. {time}"
        )
    return (
        f"{data.network_name} is cut {_where(plan)}: {count} of its {total} layers run on the "
        f"edge device ({profile.edge_name}) {bits}, the other {total - count} in the cloud "
        f"({profile.cloud_name}). {_sent(data)} {time}"
    )


def _link(profile: Profile) -> str:
    """Names the link and its rate; the rate alone where it has no name of its own."""
    network = profile.network
    rate = format_rate(network.uplink_bits_per_s)
    if network.name in (type(network).name, rate):
        return f"a link of {rate}"
    return f"the link “{network.name}” ({rate})"


def bits_in_words(plan: SplitPlan) -> str:
    """Says which bit-widths weights and activations have on the edge."""
    weights = _range(plan.w_bits)
    activations = _range(plan.a_bits)
    parts = [f"{bits} per {what}" for bits, what in
             ((weights, "weight"), (activations, "activation")) if bits]
    return "with " + " and ".join(parts) if parts else "without quantization"


def _range(bits: tuple[int, ...]) -> str:
    used = sorted({*bits} - {FLOAT_BITS})
    if not used:
        return ""
    return f"{used[0]} bits" if len(used) == 1 else f"{used[0]} to {used[-1]} bits"


def _where(plan: SplitPlan) -> str:
    return plan.cut_name if plan.cut_name.startswith("after ") else f"at “{plan.cut_name}”"


def _sent(data: ReportData) -> str:
    sent = data.chosen.uplink_bytes
    raw = raw_bytes(data)
    if raw is None:
        return f"The edge sends {format_size(sent)} a request."
    factor = raw / sent if sent else float("inf")
    size = (f"{format_number(factor, 2)} times less" if factor > 1
            else f"{format_number(1 / factor, 2)} times as much")
    return (f"Instead of the raw input of {format_size(raw)} the edge sends "
            f"{format_size(sent)}, {size}.")


def raw_bytes(data: ReportData) -> float | None:
    """Returns the size of the raw input, None where the profile does not price it."""
    raw = [e.payload_bytes for e in data.profile.input_encodings if e.name == "raw"]
    return raw[0] if raw else None


def comparisons(data: ReportData) -> tuple[Comparison, ...]:
    """Compares the chosen plan with each baseline, in the order of their latency."""
    return tuple(_compare(data, plan) for plan in compared(data.plans, data.chosen)[1:])


def _compare(data: ReportData, baseline: SplitPlan) -> Comparison:
    ratio = baseline.latency_s / data.chosen.latency_s
    time = f"{baseline.label} takes {format_ms(baseline.latency_s)}"
    if abs(ratio - 1) < EQUAL:
        verdict, text = "equal", f"{time}, as long as the chosen plan"
    elif ratio > 1:
        verdict = "slower"
        text = f"{time}: the chosen plan is {format_number(ratio)} times as fast"
    else:
        verdict = "faster"
        text = f"{time}: it is {format_number(1 / ratio)} times as fast as the chosen plan"
    return Comparison(text=f"{text}. {_caveat(data, baseline)}".strip(), verdict=verdict)


def _caveat(data: ReportData, plan: SplitPlan) -> str:
    """Returns what a reader must know to judge a plan by its latency."""
    if known_error(plan) is None:
        return ("It loses detail of the input, and what that does to the outputs was not measured, "
                "so it cannot be judged against an error budget.")
    broken = broken_limits(data, plan)
    return f"It breaks a constraint: {broken}." if broken else ""


def broken_limits(data: ReportData, plan: SplitPlan) -> str:
    """Says which limits a plan breaks and by how much; empty where it keeps all."""
    spent, limits = costs(plan), data.constraints.limits()
    found = []
    for name in violations(plan, data.constraints):
        title, show = CONSTRAINTS[name]
        value = spent[name]
        amount = "not known" if value is None else show(value)
        found.append(f"{title} {amount}, limit {show(limits[name])}")
    return "; ".join(found) or ("" if plan.feasible else plan.reason)


def standing(data: ReportData, plan: SplitPlan) -> str:
    """Says whether a plan keeps the constraints: ``yes``, ``no`` or ``not known``."""
    if not broken_limits(data, plan):
        return "yes"
    spent = costs(plan)
    certain = [name for name in violations(plan, data.constraints) if spent[name] is not None]
    return "no" if certain or known_error(plan) is not None else "not known"


def warnings(data: ReportData) -> tuple[str, ...]:
    """Says plainly what speaks against the chosen plan; empty where nothing does."""
    chosen = data.chosen
    broken = broken_limits(data, chosen)
    found = [f"The chosen plan breaks a constraint: {broken}."] if broken else []
    baselines = compared(data.plans, chosen)[1:]
    for plan in baselines:
        if plan.latency_s < chosen.latency_s * (1 - EQUAL):
            extent = format_ms(chosen.latency_s - plan.latency_s)
            kept = ", within all constraints" if standing(data, plan) == "yes" else ""
            found.append(f"{plan.label} is faster than the chosen plan by {extent} a request{kept}."
                         f" {_caveat(data, plan)}".strip())
    own = [plan for plan in data.plans if plan.feasible and plan not in baselines
           and plan.latency_s < chosen.latency_s * (1 - EQUAL)]
    if own:
        best = min(own, key=lambda plan: plan.latency_s)
        found.append(f"A feasible plan of the list is faster than the chosen one: {best.label}, "
                     f"{best.cut_name}, {format_ms(best.latency_s)}.")
    return tuple(found)


def accuracy_sentence(data: ReportData) -> str:
    """Says how often the float network and the chosen plan were right."""
    split, reference = data.accuracy(data.chosen.label), data.accuracy("float")
    if split is None and reference is None:
        return "How often the split network is right was not measured."
    parts = []
    if reference is not None:
        parts.append(f"before quantization the network is right on {_share(reference)}")
    if split is not None:
        parts.append(f"the split network on {_share(split)}")
    sentence = "Measured: " + ", ".join(parts) + "."
    fewest = min(one.images for one in (split, reference) if one is not None)
    if fewest < 200:
        sentence += " So few images tell a broken network from a sound one, not the last per cent."
    return sentence


def _share(accuracy: Accuracy) -> str:
    low, high = accuracy.interval()
    return (f"{accuracy.correct} of {accuracy.images} images "
            f"({format_percent(accuracy.correct / accuracy.images)}; 95 % interval "
            f"{low * 100:.0f} to {high * 100:.0f} %)")


def certificate(data: ReportData) -> str:
    """Says how far the chosen plan can be from the best possible one."""
    plan = data.chosen
    if plan.lower_bound <= 0:
        return "No lower bound was proven, so a faster plan within the same budgets may exist."
    scope = ("By proof no plan of this profile within the same budgets (latency and error as they "
             "are predicted) takes less than")
    bound = f"{scope} {format_ms(plan.lower_bound)}"
    if within(plan.latency_s, plan.lower_bound):
        return f"{bound}. The chosen plan takes just that: it is optimal."
    gap = format_percent(plan.latency_s / plan.lower_bound - 1)
    return (f"{bound}; the chosen one takes {format_ms(plan.latency_s)}, at most {gap} more than "
            "the best possible.")


def error_in_words(plan: SplitPlan) -> str:
    """Says the output error of a plan and whether it was measured."""
    kind = "measured" if plan.output_error is not None else "predicted"
    error = known_error(plan)
    return format_error(error) if error is None else f"{format_error(error)} ({kind})"


def edge_macs_share(data: ReportData) -> float:
    """Returns which share of the multiply-accumulates the edge does, 0 to 1."""
    macs = np.asarray(data.profile.macs, dtype=np.float64)
    return float(macs[np.asarray(data.chosen.on_edge)].sum() / max(macs.sum(), 1.0))
