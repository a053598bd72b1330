"""LAPQ: all clips searched together on the calibration loss of the network.

1. For p on a grid from 2 to 4, each weight and tensor takes the clip with the least
   ``mean |x - Q(x)|^p``, and the loss of the network is recorded. 2. A parabola through these
   losses has its vertex at some p, whose clips are the start. 3. Powell's method moves one
   factor for each weight and tensor, which multiplies its clip, on the same loss.

The loss is one compiled program: bits and clips are its arguments.

Reference: Nahshan et al. 2019 (arXiv 1911.07190), section 4 and algorithm 1; the other starts
are those of Distiller's ``LAPQ`` (`INITS`). Deviations: the start is the best of vertex and
grid points, so a parabola that fits badly does no harm; the factors of the most sensitive come
first, as the budget of evaluations seldom lasts for all; what is returned is the best
point that was evaluated. A weight with a clip for each channel has one factor for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from autosplit.graph import LayerGraph
from autosplit.profiling.assignment import Assignment
from autosplit.ptq.clips import Shapes, bits_at, clip_layers, clip_tensors
from autosplit.quant.clipping import clip_rule
from autosplit.quant.clipping.mse import lp_clip
from autosplit.workload import FLOAT_BITS

P_GRID = tuple(np.linspace(2.0, 4.0, 10).tolist())

INITS = {
    "none": "minmax",
    "average": "average",
    "laplace": "aciq-laplace",
    "gauss": "aciq-gauss",
}
"""Clipping method of the starts that have a name; ``l1`` to ``l3`` take one p."""

BOUNDS = (0.2, 2.0)
"""Of every factor."""

_PROBE = 0.85
"""Factor at which the sensitivity of each clip is tried."""

Loss = Callable[[Assignment], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointSearch:
    """What the joint search found.

    Attributes:
      assignment: with the best clips that were evaluated.
      start_loss, loss: before and after; ``loss <= start_loss``.
      evaluations: of the loss.
    """

    assignment: Assignment
    start_loss: float
    loss: float
    evaluations: int


def lp_start(
    shapes: Shapes, assignment: Assignment, loss: Loss, *, symmetric_activations: bool = False
) -> tuple[Assignment, float]:
    """Chooses p by the parabola over the grid (steps 1 and 2).

    Args:
      shapes: histograms of weights and tensors.
      assignment: bits; its clips are replaced.
      loss: of an assignment.
      symmetric_activations: as in the recipe.

    Returns:
      The assignment with the least loss of grid and vertex, and its p.
    """

    def at(p: float) -> tuple[float, float, Assignment]:
        found = _lp_clips(shapes, assignment, p, symmetric_activations)
        return loss(found), p, found

    tried = [at(p) for p in P_GRID]
    vertex = parabola_vertex(P_GRID, [one[0] for one in tried])
    if vertex is not None:
        tried.append(at(vertex))
    _, p, best = min(tried, key=lambda one: one[0] if np.isfinite(one[0]) else np.inf)
    return best, p


def parabola_vertex(points: Sequence[float], losses: Sequence[float]) -> float | None:
    """Returns where the parabola of least squares has its minimum, within the points.

    None where it opens downward, a loss is not finite, or the vertex lies outside.

    >>> round(parabola_vertex([2, 3, 4], [2.25, 0.25, 0.25]), 6)
    3.5
    """
    if not np.isfinite(losses).all():
        return None
    square, slope, _ = np.polyfit(points, losses, 2)
    vertex = -slope / (2 * square) if square > 0 else np.nan
    return float(vertex) if min(points) <= vertex <= max(points) else None


def named_start(
    name: str, shapes: Shapes, assignment: Assignment, *, symmetric_activations: bool = False
) -> Assignment:
    """Returns the clips of one of Distiller's starts: a key of `INITS`, or l1, l2, l3."""
    if name not in INITS:
        return _lp_clips(shapes, assignment, float(name.removeprefix("l")), symmetric_activations)
    rule = clip_rule(INITS[name])
    found = clip_layers(shapes, assignment, rule)
    return clip_tensors(shapes, found, rule, symmetric_activations)


def _lp_clips(
    shapes: Shapes, assignment: Assignment, p: float, symmetric_activations: bool
) -> Assignment:
    power = jnp.float32(p)
    found = clip_layers(shapes, assignment, lp_clip, power)
    return clip_tensors(shapes, found, lp_clip, symmetric_activations, power)


def joint_search(
    graph: LayerGraph,
    assignment: Assignment,
    loss: Loss,
    *,
    evaluations: int,
    iterations: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> JointSearch:
    """Searches all clips together (step 3).

    Args:
      graph: traced function.
      assignment: the start.
      loss: of an assignment.
      evaluations: most calls of the loss by Powell's method, 1 or more. Ordering the
        factors takes one more for each beforehand.
      iterations: most iterations of Powell's method.
      on_progress: told what was reached, now and then.

    Returns:
      The best clips that were evaluated.
    """
    history = _History(assignment, loss, on_progress)
    start_loss = history.loss_at(np.ones(0), [])
    order = _by_sensitivity(_factors(graph, assignment), history)
    if order:
        scipy.optimize.minimize(
            lambda factors: history.loss_at(factors, order),
            np.ones(len(order)),
            method="Powell",
            bounds=[BOUNDS] * len(order),
            # A line search stops at 100 * xtol: one twentieth of a clip.
            options={"maxfev": evaluations, "maxiter": iterations, "xtol": 5e-4, "ftol": 1e-4},
        )
    best = scale_clips(assignment, history.best_factors)
    return JointSearch(
        assignment=best,
        start_loss=start_loss,
        loss=history.best_loss,
        evaluations=history.evaluations,
    )


Factor = tuple[str, int]
"""``("weight", layer)`` or ``("tensor", tensor)``."""


def scale_clips(assignment: Assignment, factors: dict[Factor, float]) -> Assignment:
    """Multiplies the clips of some weights and tensors by a factor."""
    w_scale = np.ones(len(assignment.w_high), np.float32)
    a_scale = np.ones(assignment.a_high.shape, np.float32)
    for (kind, index), factor in factors.items():
        (w_scale if kind == "weight" else a_scale)[index] = factor

    def scaled(side: tuple[jax.Array | None, ...]) -> tuple[jax.Array | None, ...]:
        return tuple(None if end is None else end * w_scale[i] for i, end in enumerate(side))

    return dataclasses.replace(
        assignment,
        w_high=scaled(assignment.w_high),
        w_low=None if assignment.w_low is None else scaled(assignment.w_low),
        a_low=assignment.a_low * a_scale,
        a_high=assignment.a_high * a_scale,
    )


class _History:
    """Evaluates the loss, and remembers the best point."""

    def __init__(
        self, assignment: Assignment, loss: Loss, on_progress: Callable[[str], None]
    ) -> None:
        self._assignment, self._loss, self._on_progress = assignment, loss, on_progress
        self.evaluations = 0
        self.best_loss = np.inf
        self.best_factors: dict[Factor, float] = {}

    def loss_at(self, factors: Any, order: Sequence[Factor]) -> float:
        chosen = dict(zip(order, np.asarray(factors, np.float64).tolist(), strict=True))
        found = self._loss(scale_clips(self._assignment, chosen))
        # Powell's method compares losses: one that is no number must be the worst.
        found = found if np.isfinite(found) else float(np.finfo(np.float64).max)
        self.evaluations += 1
        if found < self.best_loss:
            self.best_loss, self.best_factors = found, chosen
        if self.evaluations % 50 == 0:
            self._on_progress(f"lapq: {self.evaluations} evaluations, loss {self.best_loss:.4g}")
        return found


def _factors(graph: LayerGraph, assignment: Assignment) -> list[Factor]:
    """Lists what is quantized at all."""
    weights: list[Factor] = [
        ("weight", i)
        for i, high in enumerate(assignment.w_high)
        if high is not None and bool(jnp.any(bits_at(assignment, i) < FLOAT_BITS))
    ]
    a_bits = np.asarray(assignment.a_bits)
    tensors: list[Factor] = [
        ("tensor", t)
        for t, tensor in enumerate(graph.tensors)
        if tensor.is_float and a_bits[t] < FLOAT_BITS
    ]
    return weights + tensors


def _by_sensitivity(factors: Sequence[Factor], history: _History) -> list[Factor]:
    """Puts first what moves the loss most; leaves out what does not move it (an unread input)."""
    start = history.best_loss
    moves = [abs(history.loss_at([_PROBE], [factor]) - start) for factor in factors]
    order = sorted(range(len(factors)), key=lambda n: -moves[n])
    return [factors[n] for n in order if moves[n] > 0]
