"""The search of Auto-Split's authors, to measure what an exact one adds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import charge, chooses_bits, edge_tensors, price
from autosplit.solvers.cloud_only import price_in_cloud
from autosplit.solvers.constraints import Constraints, limits_broken, within
from autosplit.solvers.fixed_bits import better, charge_cuts, uniform_bits
from autosplit.solvers.neurosurgeon import prefixes

LABEL = "lagrange heuristic"


def plan_lagrange_heuristic(profile: Profile, constraints: Constraints) -> SplitPlan:
    """Finds a split as the original of Auto-Split does.

    1. Candidates: prefixes of the layers whose crossing tensors, at the least bits, are
       no larger than the raw input, and which fit the memory at the least bits.
    2. For each, and each pair of budgets (what the weights take at uniform b_k bits, what
       the largest activation takes at b_l bits) that fits the memory: weights by one
       Lagrange multiplier, every activation at the most bits that its budget allows.
    3. The fastest that keeps the constraints, cloud-only with the raw input among them.

    The distortion of a weight is its effect on the constrained error: its quant_mse, or
    its part of ``output_error`` where that is limited and quant_mse is not.

    Args:
      profile: of the graph.
      constraints: to keep.

    Returns:
      The plan, judged; cloud-only where no split is faster or none keeps the constraints.

    Reference: Auto-Split (arXiv 2108.13041), section 4 and algorithm 1; Shoham and Gersho
    1988 for the multiplier. Deviations: charged by `charging` (the original's own split
    pays for one crossing tensor only); shared weights are stored once and get equal bits.
    """
    plans = [price_in_cloud(profile, "raw", LABEL)]
    by_gain = constraints.output_error is not None and constraints.quant_mse is None
    distortion = profile.weight_error * (profile.weight_gain if by_gain else 1.0)
    for cut, weight_budgets, tensor_budgets in _candidates(profile, constraints):
        w_index = _weights(profile, cut, distortion, weight_budgets)
        a_index = _activations(profile, tensor_budgets)
        pairs = np.indices((len(w_index), len(a_index))).reshape(2, -1)
        fits = weight_budgets[pairs[0]] + tensor_budgets[pairs[1]] <= _memory(constraints)
        if fits.any():
            w, a = pairs[:, fits]
            plans += _fastest(profile, constraints, cut, w_index[w], a_index[a])
    return better(plans, constraints)


def _memory(constraints: Constraints) -> float:
    return np.inf if constraints.memory_bytes is None else constraints.memory_bytes


def _candidates(profile: Profile, constraints: Constraints
                ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields each candidate cut and its budgets of weights and activations, f64[K] bytes."""
    cuts = prefixes(profile)
    uniform = [charge_cuts(profile, uniform_bits(profile, int(bits)), cuts)
               for bits in profile.bits]
    raw = price_in_cloud(profile, "raw").uplink_bytes
    memory = uniform[0].costs()["memory_bytes"]
    chosen = (uniform[0].uplink_bytes <= raw) & within(memory, _memory(constraints))
    weights = np.stack([charges.edge_weight_bytes for charges in uniform], axis=1)
    # The activations of the original are what layers write, not the input.
    held = edge_tensors(profile)[cuts] & chooses_bits(profile)
    tensors = np.where(held[:, :, None], profile.tensor_bytes, 0).max(axis=1)
    for index in np.flatnonzero(chosen):
        yield int(cuts[index]), weights[index], tensors[index]


def _activations(profile: Profile, budgets: np.ndarray) -> np.ndarray:
    """Returns i64[K, T]: the most bits of each tensor within each budget."""
    fits = profile.tensor_bytes <= budgets[:, None, None]
    last = len(profile.bits) - 1
    most = np.maximum(fits.sum(axis=2) - 1, 0)
    return np.where(chooses_bits(profile), most, last)


def _weights(profile: Profile, cut: int, distortion: np.ndarray,
             budgets: np.ndarray) -> np.ndarray:
    """Returns i64[K, L]: the bits of each edge layer within each budget."""
    edge = profile.on_edge[cut]
    chosen = np.flatnonzero(edge & profile.has_weight)
    index = np.full((len(budgets), len(edge)), len(profile.bits) - 1)
    if not len(chosen):
        return index
    _, group = np.unique(profile.weight_group[chosen], return_inverse=True)
    error = np.zeros((group.max() + 1, len(profile.bits)))
    size = np.zeros_like(error)
    np.add.at(error, group, distortion[chosen])
    np.maximum.at(size, group, profile.weight_bytes[chosen])
    constants = profile.weight_bytes[edge & ~profile.has_weight, -1].sum()
    index[:, chosen] = lagrange_choices(error, size, budgets - constants)[:, group]
    return index


def lagrange_choices(error: np.ndarray, size: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """Minimises ``sum error + lambda size`` at the least lambda that keeps each budget.

    All items start at their smallest option and go up their lower convex hulls, the
    steepest fall of the error per byte first. The first step that does not fit ends it,
    as no lambda leads beyond: what room is left stays unused.

    Args:
      error: f64[I, K].
      size: f64[I, K], ascending along K.
      budgets: f64[B]; where one is below the least sizes, these are returned.

    Returns:
      i64[B, I], an option for each item.

    >>> error = np.array([[9.0, 3.0, 0.0], [4.0, 2.0, 1.0]])
    >>> lagrange_choices(error, np.array([[1, 2, 4], [1, 2, 4]]), np.array([3, 5])).tolist()
    [[1, 0], [1, 1]]
    """
    items, at = np.arange(len(error)), np.zeros(len(error), dtype=np.int64)
    steps: list[tuple[np.ndarray, ...]] = []
    for _ in range(max(error.shape[1] - 1, 1)):
        fall = error[items, at][:, None] - error
        grown = size - size[items, at][:, None]
        ahead = (np.arange(error.shape[1]) > at[:, None]) & (fall > 0)
        free = np.where(ahead, np.inf, 0.0)
        slope = np.divide(fall, grown, out=free, where=ahead & (grown > 0))
        # Of equal slopes the furthest, so that each next one is less steep.
        to = slope.shape[1] - 1 - slope[:, ::-1].argmax(axis=1)
        moves = slope[items, to] > 0
        steps.append((items[moves], to[moves], slope[items, to][moves], grown[items, to][moves]))
        at = np.where(moves, to, at)
    item, to, slope, grown = (np.concatenate(column) for column in zip(*steps, strict=True))
    order = np.argsort(-slope, kind="stable")
    total = size[:, 0].sum() + np.cumsum(grown[order])
    choices = np.zeros((len(budgets), len(error)), dtype=np.int64)
    for row, taken in zip(choices, np.searchsorted(total, budgets, side="right"), strict=True):
        np.maximum.at(row, item[order[:taken]], to[order[:taken]])
    return choices


def _fastest(profile: Profile, constraints: Constraints, cut: int, w_index: np.ndarray,
             a_index: np.ndarray) -> list[SplitPlan]:
    """Returns the fastest of the assignments that keep the constraints, if any."""
    charges = charge(profile, cut, w_index, a_index)
    keeps = limits_broken(charges.costs(), constraints) == 0
    if not keeps.any():
        return []
    best = int(np.where(keeps, charges.latency_s, np.inf).argmin())
    return [price(profile, cut=cut, w_bits=profile.bits[w_index[best]],
                  a_bits=profile.bits[a_index[best]], label=LABEL)]
