"""Holds plans against what they really do: measured output error, and tighter budgets."""

from autosplit.tuning.measured import measure, solve_measured

__all__ = ["measure", "solve_measured"]
