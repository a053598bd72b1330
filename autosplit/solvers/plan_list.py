"""Plans: what `solve` returns, a list with a proven bound, kept as JSON or CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Iterator

import numpy as np

from autosplit.errors import ArtefactError, InfeasibleError
from autosplit.files import read_document, write_document, write_text
from autosplit.profiling.plan import SplitPlan, plan_from_json, plan_to_json
from autosplit.solvers.charging import PACKED
from autosplit.solvers.constraints import Constraints, known_error
from autosplit.solvers.objective import Objective, relative_gap
from autosplit.solvers.pareto import non_dominated

KIND = "autosplit.plans"
VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plans:
    """Plans for one graph, the cheapest by the objective first.

    Attributes:
      plans: cloud-only under each encoding, edge-only, uniform, the best proper
        split and the Pareto set; those that break a constraint say which.
      constraints: that the plans were judged by.
      objective: that they were solved for.
      lower_bound: proven lower bound on the objective's cost of every plan whose
        predicted costs keep the constraints.
      split_infeasible: why no proper split, or not edge-only, keeps the constraints;
        empty where both do.
    """

    plans: tuple[SplitPlan, ...]
    constraints: Constraints
    objective: Objective = dataclasses.field(default_factory=Objective)
    lower_bound: float
    split_infeasible: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranked = sorted(self.plans, key=self.objective.cost)
        object.__setattr__(self, "plans", tuple(ranked))

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[SplitPlan]:
        return iter(self.plans)

    def __getitem__(self, index: int) -> SplitPlan:
        return self.plans[index]

    @property
    def best(self) -> SplitPlan:
        """The feasible plan that costs least (`solve` raises where there is none)."""
        return next(plan for plan in self.plans if plan.feasible)

    @property
    def best_split(self) -> SplitPlan:
        """The feasible plan with a layer on the edge that costs least.

        Raises:
          InfeasibleError: there is none; the reasons say what each lacks.
        """
        for plan in self.plans:
            if plan.feasible and plan.encoding == PACKED:
                return plan
        raise InfeasibleError(
            "No plan with a layer on the edge keeps the constraints. "
            + " ".join(self.split_infeasible),
            self.split_infeasible,
        )

    @property
    def fastest(self) -> SplitPlan:
        """The feasible plan of least latency on the list, whatever the objective.

        `best` where the objective is the latency; else a faster one may not be listed.
        """
        return min((plan for plan in self.plans if plan.feasible), key=lambda p: p.latency_s)

    @property
    def gap(self) -> float:
        """Cost of the best over the proven bound, less 1: 0 where it is optimal."""
        return relative_gap(self.objective.cost(self.best), self.lower_bound)

    @property
    def pareto(self) -> tuple[SplitPlan, ...]:
        """Feasible plans that none beats in cost, output error and edge memory.

        The error is the measured one where there is one. A lossy encoding that has
        not been measured counts as infinitely wrong: it beats nothing by its error.
        """
        plans = [plan for plan in self.plans if plan.feasible]
        return tuple(plans[index] for index in non_dominated(self._coordinates(plans)))

    def _coordinates(self, plans: list[SplitPlan]) -> np.ndarray:
        errors = [known_error(plan) for plan in plans]
        rows = [(self.objective.cost(plan), math.inf if error is None else error,
                 plan.edge_memory_bytes) for plan, error in zip(plans, errors, strict=True)]
        return np.array(rows, dtype=np.float64).reshape(-1, 3)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plans to a JSON file, losslessly."""
        body = {
            "plans": [plan_to_json(plan) for plan in self.plans],
            "constraints": dataclasses.asdict(self.constraints),
            "objective": dataclasses.asdict(self.objective),
            "lower_bound": self.lower_bound,
            "split_infeasible": list(self.split_infeasible),
        }
        write_document(path, KIND, VERSION, body)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plans:
        """Reads what `save` wrote.

        Raises:
          ArtefactError: the file is truncated, changed, or of another format version.
        """
        body = read_document(path, KIND, VERSION)
        try:
            plans = tuple(plan_from_json(fields, str(path)) for fields in body["plans"])
            constraints = Constraints(**body["constraints"])
            return cls(plans=plans, constraints=constraints,
                       objective=Objective(**body["objective"]),
                       lower_bound=body["lower_bound"],
                       split_infeasible=tuple(body["split_infeasible"]))
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"{path} holds no plans: {error}. Solve again.") from error

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes one row for each plan; bit-widths are separated by blanks.

        ``cost`` is by the objective, whose weights stand in every row.
        """
        names = [field.name for field in dataclasses.fields(SplitPlan)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        weights = dataclasses.asdict(self.objective)
        sums = ["latency_s", "energy_j", "edge_memory_bytes"]
        writer.writerow(["cost", *weights, *sums, *names])
        for plan in self.plans:
            cells = [_cell(getattr(plan, name)) for name in [*sums, *names]]
            writer.writerow([self.objective.cost(plan), *weights.values(), *cells])
        write_text(path, text.getvalue())


def _cell(value: object) -> object:
    if isinstance(value, tuple):
        return " ".join(str(int(v)) if isinstance(v, bool) else str(v) for v in value)
    return "" if value is None else value
