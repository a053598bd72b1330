"""Plan table: which plan is the fastest at which bandwidth, for a client that can switch."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import os
from collections.abc import Iterator

from autosplit.errors import ArtefactError, InputError
from autosplit.files import read_document, write_document
from autosplit.profiling.plan import SplitPlan, plan_from_json, plan_to_json
from autosplit.profiling.table import Profile
from autosplit.solvers.bandwidth import Solution, crossing, is_equal, solve_rates
from autosplit.solvers.constraints import Constraints

KIND = "autosplit.plan_table"
VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanTable:
    """The fastest plan of every interval of uplink rates, slow links first.

    Attributes:
      plans: P plans, each priced at a rate of its interval.
      breakpoints_bits_per_s: P-1 rates, ascending; plan i is for rates from breakpoint
        i-1 up to breakpoint i.
      lowest_bits_per_s, highest_bits_per_s: where the table is proven. Beyond them the
        first or last plan still serves.
      fixed_s, sent_bits: P numbers; plan i takes ``fixed_s + sent_bits / rate``.
      gap: how far, relatively, a faster plan than the table's may be from it; 0 where
        every solution was proven optimal.
    """

    plans: tuple[SplitPlan, ...]
    breakpoints_bits_per_s: tuple[float, ...]
    lowest_bits_per_s: float
    highest_bits_per_s: float
    fixed_s: tuple[float, ...]
    sent_bits: tuple[float, ...]
    gap: float = 0.0

    def __post_init__(self) -> None:
        rates = (self.lowest_bits_per_s, *self.breakpoints_bits_per_s, self.highest_bits_per_s)
        lengths = {len(self.plans), len(self.fixed_s), len(self.sent_bits), len(rates) - 1}
        if len(lengths) != 1 or list(rates) != sorted(rates):
            raise InputError(f"The table has {len(self.plans)} plans for the rates {rates}; "
                             "expected ascending rates, one more than plans.")

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[SplitPlan]:
        return iter(self.plans)

    def index_at(self, bits_per_s: float) -> int:
        """Returns the position of `plan_at` in ``plans``."""
        if not bits_per_s > 0:
            raise InputError(f"The uplink rate is {bits_per_s}; expected above 0 bits/s. Where the "
                             "link is down, only an edge-only plan answers.")
        return bisect.bisect_right(self.breakpoints_bits_per_s, bits_per_s)

    def plan_at(self, bits_per_s: float) -> SplitPlan:
        """Returns the plan to use at an uplink rate.

        Raises:
          InputError: the rate is 0, negative or NaN.
        """
        return self.plans[self.index_at(bits_per_s)]

    def latency_s(self, bits_per_s: float) -> float:
        """Returns what the plan at an uplink rate takes there."""
        index = self.index_at(bits_per_s)
        return self.fixed_s[index] + self.sent_bits[index] / bits_per_s

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table to a JSON file, losslessly."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
        body = {**fields, **lists, "plans": [plan_to_json(plan) for plan in self.plans]}
        write_document(path, KIND, VERSION, body)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PlanTable:
        """Reads what `save` wrote.

        Raises:
          ArtefactError: the file is truncated, changed, or of another format version.
        """
        body = read_document(path, KIND, VERSION)
        try:
            plans = [plan_from_json(fields, str(path)) for fields in body["plans"]]
            lists = {name: tuple(value) for name, value in {**body, "plans": plans}.items()
                     if isinstance(value, list)}
            return cls(**{**body, **lists})
        except (KeyError, TypeError, InputError) as error:
            raise ArtefactError(f"{path} holds no plan table: {error}. Make it again.") from error


def tabulate_plans(profile: Profile, constraints: Constraints, *, lowest_bits_per_s: float,
                   highest_bits_per_s: float) -> PlanTable:
    """Finds the fastest plan at every uplink rate of an interval, with exact breakpoints.

    Args, Raises: as `autosplit.solvers.bandwidth.solve_rates`.

    Returns:
      The table.
    """
    solutions = solve_rates(profile, constraints, lowest_bits_per_s, highest_bits_per_s)
    kept = _distinct(solutions)
    return PlanTable(
        plans=tuple(solution.plans[0] for solution in kept),
        breakpoints_bits_per_s=tuple(1 / crossing(*pair) for pair in itertools.pairwise(kept)),
        lowest_bits_per_s=float(lowest_bits_per_s), highest_bits_per_s=float(highest_bits_per_s),
        fixed_s=tuple(solution.fixed_s for solution in kept),
        sent_bits=tuple(solution.sent_bits for solution in kept),
        gap=max(solution.gap for solution in solutions),
    )


def _distinct(solutions: list[Solution]) -> list[Solution]:
    """Drops solutions that a neighbour equals where they were found."""
    kept: list[Solution] = []
    for solution in solutions:
        if kept and is_equal(kept[-1], solution):
            continue
        while kept and is_equal(solution, kept[-1]):
            kept.pop()
        kept.append(solution)
    return kept
