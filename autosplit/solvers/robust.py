"""Robust choice: one plan for several bandwidths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.bandwidth import Lines, check_rates, solve_rates
from autosplit.solvers.constraints import Constraints


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustChoice:
    """Candidates at every bandwidth, and the one that is never far from the best.

    Attributes:
      bits_per_s: f64[R], the uplink rates, ascending.
      plans: P candidates, all that some solution between the rates has listed.
      latency_s: f64[P, R].
      best_s: f64[R], proven least latency of all plans at that rate.
      lower_bound: proven for the worst ratio of every plan, candidate or not.
    """

    bits_per_s: np.ndarray
    plans: tuple[SplitPlan, ...]
    latency_s: np.ndarray
    best_s: np.ndarray
    lower_bound: float

    @property
    def ratio(self) -> np.ndarray:
        """f64[P, R]: latency over the best at that rate, 1 or more."""
        return self.latency_s / self.best_s

    @property
    def plan(self) -> SplitPlan:
        """The candidate of the least worst ratio, priced at the slowest rate that had it."""
        return self.plans[int(self.ratio.max(axis=1).argmin())]

    @property
    def worst_ratio(self) -> float:
        """How many times the best latency that plan takes where it does worst."""
        return float(self.ratio.max(axis=1).min())

    def within(self, share: float) -> tuple[SplitPlan, ...]:
        """Returns the candidates at most ``share`` slower than the best at every rate.

        An empty result is proven where ``1 + share`` is below ``lower_bound``: then no
        plan at all is.

        Args:
          share: 0.1 for 10 %; 0 or more.

        Returns:
          The plans, the most robust first.
        """
        if not share >= 0:
            raise InputError(f"share is {share}; expected 0 or more, 0.1 for 10 %.")
        worst = self.ratio.max(axis=1)
        ranked = np.argsort(worst, kind="stable")
        return tuple(self.plans[index] for index in ranked if worst[index] <= 1 + share)


def choose_robust(profile: Profile, constraints: Constraints,
                  bits_per_s: Sequence[float]) -> RobustChoice:
    """Compares all plans that are of use somewhere between the bandwidths at each of them.

    Args:
      profile: of the graph, for any bandwidth.
      constraints: that every plan keeps; no ``latency_s``, since it depends on the bandwidth.
      bits_per_s: uplink rates, one at least.

    Returns:
      The candidates, their latencies and the most robust plan.

    Raises:
      InfeasibleError: no plan keeps the constraints.
      InputError: there is no rate, one is not above 0, or the latency is limited.
    """
    rates = np.unique(np.asarray(bits_per_s, dtype=np.float64))
    check_rates(rates)
    solutions = solve_rates(profile, constraints, float(rates[0]), float(rates[-1]))
    found: dict[tuple[object, ...], SplitPlan] = {}
    for solution in solutions:
        for plan in solution.plans:
            found.setdefault((plan.encoding, plan.on_edge, plan.w_bits, plan.a_bits), plan)
    latency_s = Lines.of(profile, list(found.values())).latency_s(rates)
    best_s = latency_s.min(axis=0) / (1 + max(solution.gap for solution in solutions))
    slowness = np.array([solution.slowness for solution in solutions])
    least_s = np.array([solution.least_s for solution in solutions])
    bound = least_worst_ratio(1 / rates, best_s, slowness, least_s)
    worst = float((latency_s / best_s).max(axis=1).min())
    # Where both are equal, rounding could put the bound above.
    return RobustChoice(bits_per_s=rates, plans=tuple(found.values()), latency_s=latency_s,
                        best_s=best_s, lower_bound=min(bound, worst))


def least_worst_ratio(slowness: np.ndarray, best_s: np.ndarray, proven_slowness: np.ndarray,
                      least_s: np.ndarray) -> float:
    """Bounds the worst ratio of any plan, found or not, from below.

    A plan (fixed_s f, sent_bits b) keeps ``f + y b >= least(y)`` at every slowness y where
    the least latency is proven, so its worst ratio is at least

        max over x, y of (least(y) + (x - y) b) / best(x).

    The least of a maximum of straight lines over b is the greatest crossing of a falling
    with a rising one (or a level one, or where b is 0).

    Args:
      slowness: f64[R], seconds of a bit at the rates of interest.
      best_s: f64[R], least latency of all plans there.
      proven_slowness: f64[S], further ones; breakpoints make the bound tight.
      least_s: f64[S], least latency there.

    >>> at, middle = np.array([1.0, 0.1]), np.array([0.5])
    >>> round(least_worst_ratio(at, np.array([2.0, 1.0]), middle, np.array([1.9])), 3)
    1.315
    """
    slope = ((slowness[:, None] - proven_slowness) / best_s[:, None]).ravel()
    level = (least_s / best_s[:, None]).ravel()
    fall, rise = slope < 0, slope >= 0
    down, up = slope[fall][:, None], slope[rise]
    crossings = (up * level[fall][:, None] - down * level[rise]) / (up - down)
    return float(max(crossings.max(initial=1.0), level[rise].max(initial=1.0)))
