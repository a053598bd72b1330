"""Plans of a detector by the error of its raw heads.

Found boxes are no measure of a small error: two scores change places, and a box jumps across
the image. The heads that decoding and suppression read move smoothly with what is quantized.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import autosplit
from autosplit.errors import PlanMismatchError
from autosplit.graph.running import prepare
from autosplit.models import create_model
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.sensitivity import output_gains
from autosplit.solvers import judge
from autosplit.tuning.measured import SAFETY
from experiments.steps import classes_of
from experiments.workload_case import Case
from experiments.workload_scores import Runner

ROUNDS = 6
"""Most solves."""


def with_head_gains(case: Case, profile: autosplit.Profile) -> autosplit.Profile:
    """Returns a detector's profile that predicts the relative error of the heads.

    Args:
      case: of the detector.
      profile: of its graph, which is the body and, as the last layer, all that follows.

    Raises:
      PlanMismatchError: the graph is not of that form.
    """
    job, model = case.job, create_model(case.config.model.name, classes_of(case.config.model))
    body = autosplit.trace(model.apply, job.variables, job.inputs[:1])
    layers, tensors = len(body.layers), len(body.tensors)
    rest = case.graph.layers[layers:]
    same = [t.shape for t in case.graph.tensors[:tensors]] == [t.shape for t in body.tensors]
    if len(rest) != 1 or not same:
        raise PlanMismatchError(
            f"{case.config.model.name} has {len(rest)} layers behind its body of {layers}; "
            "expected one, decoding and suppression. Limit quant_mse instead of output_error."
        )
    weights = jax.jit(lambda variables: prepare(body, variables))(job.variables)
    few = job.calibration_inputs[: case.config.sensitivity_calls]
    calls = [jnp.asarray(call) for call in calibration_calls(body, few)]
    gains = output_gains(body, weights, calls, jax.random.key(case.config.seed))
    return dataclasses.replace(
        profile,
        weight_gain=_for_all(gains[0], profile.weight_gain),
        activation_gain=_for_all(gains[1], profile.activation_gain),
    )


def _for_all(gain: jax.Array, table: np.ndarray) -> np.ndarray:
    """Returns f64[N, K] of f32[n]: what the body does not have is 0."""
    found = np.zeros_like(table)
    found[: len(gain)] = np.asarray(gain, np.float64)[:, None]
    return found


def solve_by_heads(
    case: Case,
    profile: autosplit.Profile,
    constraints: autosplit.Constraints,
    on_round: Callable[[int, float | None], None] = lambda _, __: None,
) -> autosplit.Plans:
    """As `autosplit.solve_measured`, with the relative error of a detector's heads.

    Args:
      case: of the detector; its calibration photographs are run.
      profile: from `with_head_gains`.
      constraints: with an output error.
      on_round: called with the round and the measured error of its best split, if there is one.

    Returns:
      The plans of the last round, measured: the best split keeps the constraints, unless
      `ROUNDS` were not enough.
    """
    limit = budget = constraints.output_error
    assert limit is not None
    assert budget is not None
    runner = Runner(case=case, first=case.job.calibration)
    plans = autosplit.solve(profile, constraints)
    for number in range(ROUNDS):
        best = next((plan for plan in plans if plan.label == "auto-split"), None)
        error = None if best is None else runner.scores(best)["output_error"]
        on_round(number, error)
        if error is None or error <= limit:
            break
        # The others wait: most of them change with the budget.
        budget = SAFETY * budget * min(limit / error, 1.0)
        plans = autosplit.solve(profile, dataclasses.replace(constraints, output_error=budget))
    found = [
        judge(
            dataclasses.replace(plan, output_error=runner.scores(plan)["output_error"]),
            constraints,
        )
        for plan in plans
    ]
    return dataclasses.replace(plans, plans=tuple(found), constraints=constraints)
