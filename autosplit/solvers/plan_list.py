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
from autosplit.solvers.pareto import non_dominated

KIND = "autosplit.plans"
VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plans:
    """Plans for one graph, sorted by latency.

    Attributes:
      plans: cloud-only under each encoding, edge-only, uniform, the fastest proper
        split and the Pareto set; those that break a constraint say which.
      constraints: that the plans were judged by.
      lower_bound_s: proven lower bound on the latency of every plan whose predicted
        costs keep the constraints.
      split_infeasible: why no proper split, or not edge-only, keeps the constraints;
        empty where both do.
    """

    plans: tuple[SplitPlan, ...]
    constraints: Constraints
    lower_bound_s: float
    split_infeasible: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranked = sorted(self.plans, key=lambda plan: plan.latency_s)
        object.__setattr__(self, "plans", tuple(ranked))

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[SplitPlan]:
        return iter(self.plans)

    def __getitem__(self, index: int) -> SplitPlan:
        return self.plans[index]

    @property
    def fastest(self) -> SplitPlan:
        """The feasible plan of least latency (`solve` raises where there is none)."""
        return next(plan for plan in self.plans if plan.feasible)

    @property
    def fastest_split(self) -> SplitPlan:
        """The feasible plan of least latency with a layer on the edge.

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
    def gap(self) -> float:
        """Latency of the fastest over the proven bound, less 1: 0 where it is optimal."""
        return max(self.fastest.latency_s / self.lower_bound_s - 1.0, 0.0)

    @property
    def pareto(self) -> tuple[SplitPlan, ...]:
        """Feasible plans that none beats in latency, output error and edge memory.

        The error is the measured one where there is one. A lossy encoding that has
        not been measured counts as infinitely wrong: it beats nothing by its error.
        """
        plans = [plan for plan in self.plans if plan.feasible]
        return tuple(plans[index] for index in non_dominated(_coordinates(plans)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plans to a JSON file, losslessly."""
        body = {
            "plans": [plan_to_json(plan) for plan in self.plans],
            "constraints": dataclasses.asdict(self.constraints),
            "lower_bound_s": self.lower_bound_s,
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
                       lower_bound_s=body["lower_bound_s"],
                       split_infeasible=tuple(body["split_infeasible"]))
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"{path} holds no plans: {error}. Solve again.") from error

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes one row for each plan; bit-widths are separated by blanks."""
        names = [field.name for field in dataclasses.fields(SplitPlan)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["latency_s", "edge_memory_bytes", *names])
        for plan in self.plans:
            cells = [_cell(getattr(plan, name)) for name in names]
            writer.writerow([plan.latency_s, plan.edge_memory_bytes, *cells])
        write_text(path, text.getvalue())


def _coordinates(plans: list[SplitPlan]) -> np.ndarray:
    errors = [known_error(plan) for plan in plans]
    rows = [(plan.latency_s, math.inf if error is None else error, plan.edge_memory_bytes)
            for plan, error in zip(plans, errors, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _cell(value: object) -> object:
    if isinstance(value, tuple):
        return " ".join(str(int(v)) if isinstance(v, bool) else str(v) for v in value)
    return "" if value is None else value
