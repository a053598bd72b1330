"""Solvers: from a profile to plans. NumPy only; they see nothing but the `Profile`."""

from autosplit.solvers.charging import price
from autosplit.solvers.constraints import Constraints, judge
from autosplit.solvers.exhaustive import fastest_by_enumeration
from autosplit.solvers.plan_list import Plans
from autosplit.solvers.planner import solve
from autosplit.solvers.uniform import best_uniform

__all__ = ["Constraints", "Plans", "best_uniform", "fastest_by_enumeration", "judge", "price",
           "solve"]
