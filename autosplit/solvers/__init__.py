"""Solvers: from a profile to plans. No JAX; they see nothing but the `Profile`.

Where things are, by what is asked:

- What a plan costs and may cost: ``charging``, ``objective``, ``constraints``, ``cloud_only``,
  ``fixed_bits``; when nothing fits: ``infeasibility``.
- The best plan over the listed cuts: ``planner`` calls ``search``, which opens ``subproblem``
  after ``subproblem`` by the bounds of ``relaxation`` (``tables``, ``bands``, ``nodes``) and
  solves each as a ``knapsack`` (``lagrangian``, ``labels``).
- ... over all closed sets of layers: ``open_cuts`` (``min_cut``, ``closed_set_bounds``,
  ``multipliers``, ``regions``, ``reach``).
- The trade-offs: ``front`` (``sweep``, ``pareto``), returned as ``plan_list``.
- Links that change: ``bandwidth``, ``robust``, ``plan_table``, ``trace_latency``.
- What to compare with: ``baselines`` (``neurosurgeon``, ``dads``, ``uniform``,
  ``lagrange_heuristic``), and ``exhaustive``, the oracle of the tests.
"""

from autosplit.solvers.baselines import BASELINES, compare_baselines
from autosplit.solvers.charging import price
from autosplit.solvers.constraints import Constraints, judge
from autosplit.solvers.exhaustive import fastest_by_enumeration
from autosplit.solvers.front import Front, Resolution, find_front
from autosplit.solvers.objective import Objective
from autosplit.solvers.plan_list import Plans
from autosplit.solvers.plan_table import PlanTable, tabulate_plans
from autosplit.solvers.planner import solve
from autosplit.solvers.robust import choose_robust
from autosplit.solvers.trace_latency import (
    compare_on_trace,
    latency_on_trace,
    start_times,
    switching_on_trace,
)
from autosplit.solvers.uniform import best_uniform

__all__ = [
    "BASELINES",
    "Constraints",
    "Front",
    "Objective",
    "PlanTable",
    "Plans",
    "Resolution",
    "best_uniform",
    "choose_robust",
    "compare_baselines",
    "compare_on_trace",
    "fastest_by_enumeration",
    "find_front",
    "judge",
    "latency_on_trace",
    "price",
    "solve",
    "start_times",
    "switching_on_trace",
    "tabulate_plans",
]
