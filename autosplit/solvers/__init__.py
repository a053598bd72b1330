"""Solvers: from a profile to plans. NumPy only; they see nothing but the `Profile`."""

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
