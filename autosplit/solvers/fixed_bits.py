"""Fixed bits: all cuts priced at once where no layer's bits depend on the cut.

Uniform and unquantized edges, which baselines have. The rules are those of
`charging`; only the order of the sums differs.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import (
    PACKED,
    PLAIN,
    Charges,
    assemble,
    charge_link,
    chooses_bits,
    edge_tensors,
    plan_a_bits,
    price,
    runs_all,
    runs_some,
)
from autosplit.solvers.constraints import Constraints, judge, limits_broken, violations
from autosplit.solvers.objective import Objective, check_energy
from autosplit.workload import FLOAT_BITS

LATENCY = Objective()

@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedBits:
    """What each layer costs on the edge, and each tensor there and on the way.

    Attributes:
      bits: of every weight and tensor that has a choice; `FLOAT_BITS` for none.
      encoding: `PACKED` or `PLAIN`.
      layer_s, layer_j: f64[L]; weight_bytes: i64[L].
      weight_error, weight_output_error: f64[L], quant_mse and its effect on the outputs.
      tensor_bytes: i64[T], on the edge.
      tensor_error, tensor_output_error: f64[T], likewise; 0 for graph inputs.
      sent_bytes: i64[T]; pack_s, unpack_s, pack_j: f64[T].
    """

    bits: int
    encoding: str
    layer_s: np.ndarray
    layer_j: np.ndarray
    weight_bytes: np.ndarray
    weight_error: np.ndarray
    weight_output_error: np.ndarray
    tensor_bytes: np.ndarray
    tensor_error: np.ndarray
    tensor_output_error: np.ndarray
    sent_bytes: np.ndarray
    pack_s: np.ndarray
    unpack_s: np.ndarray
    pack_j: np.ndarray


def unquantized_bits(profile: Profile) -> FixedBits:
    """Returns the prices of an edge that is not quantized, and sends what it computes."""
    plain = profile.unquantized
    layers, tensors = np.zeros(len(profile.macs)), np.zeros(len(profile.producer))
    return FixedBits(
        bits=FLOAT_BITS, encoding=PLAIN, layer_s=plain.latency_s, layer_j=plain.energy_j,
        weight_bytes=plain.weight_bytes, weight_error=layers, weight_output_error=layers,
        tensor_bytes=plain.tensor_bytes, tensor_error=tensors, tensor_output_error=tensors,
        sent_bytes=plain.tensor_bytes, pack_s=plain.pack_s, unpack_s=plain.unpack_s,
        pack_j=plain.pack_j,
    )


def uniform_bits(profile: Profile, bits: int, encoding: str = PACKED) -> FixedBits:
    """Returns the prices of an edge with the same bits everywhere.

    Args:
      profile: L layers, T tensors.
      bits: one of ``profile.bits``.
      encoding: `PACKED`, or `PLAIN` to send what the edge computes without packing.

    Raises:
      InputError: ``bits`` is no candidate, or the encoding is another.
    """
    if bits not in profile.bits or encoding not in (PACKED, PLAIN):
        raise InputError(f"Uniform {bits} bits sent as {encoding!r}; expected one of the profile's "
                         f"candidates {profile.bits.tolist()}, sent as {PACKED!r} or {PLAIN!r}. "
                         "Profile the graph with these bits, or ask for others.")
    index = int(np.searchsorted(profile.bits, bits))
    widths = np.where(chooses_bits(profile), index, len(profile.bits) - 1)
    w = np.where(profile.has_weight, index, len(profile.bits) - 1)
    layers, tensors = np.arange(len(w)), np.arange(len(widths))
    widest = np.where(profile.touches, widths, -1).max(axis=1)
    made = profile.producer >= 0
    weight_error = profile.weight_error[layers, w]
    tensor_error = np.where(made, profile.activation_error[tensors, widths], 0.0)
    plain = profile.unquantized
    packed = encoding == PACKED
    return FixedBits(
        bits=bits, encoding=encoding,
        layer_s=profile.edge_latency_s[layers, w, widest],
        layer_j=profile.edge_energy_j[layers, w, widest],
        weight_bytes=profile.weight_bytes[layers, w],
        weight_error=weight_error,
        weight_output_error=weight_error * profile.weight_gain[layers, w],
        tensor_bytes=profile.tensor_bytes[tensors, widths],
        tensor_error=tensor_error,
        tensor_output_error=tensor_error * profile.activation_gain[tensors, widths],
        sent_bytes=profile.tensor_bytes[tensors, widths] if packed else plain.tensor_bytes,
        pack_s=profile.pack_s[tensors, widths] if packed else plain.pack_s,
        unpack_s=profile.unpack_s[tensors, widths] if packed else plain.unpack_s,
        pack_j=profile.pack_j[tensors, widths] if packed else plain.pack_j,
    )


def charge_cuts(profile: Profile, fixed: FixedBits, cuts: np.ndarray) -> Charges:
    """Charges cuts with a layer on the edge.

    Args:
      profile: C cuts.
      fixed: of the profile.
      cuts: i64[N], indices along C.

    Returns:
      `Charges` of shape [N], equal to what `charging.charge` says of each cut.
    """
    on_edge, sent = profile.on_edge[cuts], profile.crosses[cuts]
    held = edge_tensors(profile)[cuts]
    return Charges(
        edge_s=_totals(on_edge, fixed.layer_s),
        pack_s=_totals(sent, fixed.pack_s),
        unpack_s=_totals(sent, fixed.unpack_s),
        cloud_s=_totals(~on_edge, profile.cloud_latency_s),
        edge_weight_bytes=_stored_bytes(profile, on_edge, fixed.weight_bytes),
        edge_activation_bytes=np.where(held, fixed.tensor_bytes, 0).max(axis=1, initial=0),
        quant_mse=_totals(on_edge, fixed.weight_error) + _totals(held, fixed.tensor_error),
        predicted_output_error=_totals(on_edge, fixed.weight_output_error)
        + _totals(held, fixed.tensor_output_error),
        edge_j=_totals(on_edge, fixed.layer_j),
        pack_j=_totals(sent, fixed.pack_j),
        **charge_link(profile, _totals(sent, fixed.sent_bytes), ~runs_all(profile)[cuts]),
    )


def _totals(chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums values [M] over each row of bool[N, M]; NaN where an unknown one is chosen."""
    known = np.isfinite(values)
    sums = chosen @ np.where(known, values, 0.0)
    return np.where(chosen[:, ~known].any(axis=1), np.nan, sums)


def _stored_bytes(profile: Profile, on_edge: np.ndarray, weight_bytes: np.ndarray) -> np.ndarray:
    """Returns the bytes of the edge weights, shared ones once (the largest)."""
    order = np.argsort(profile.weight_group, kind="stable")
    group = profile.weight_group[order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    stored = np.where(on_edge, weight_bytes, 0)[:, order]
    return np.maximum.reduceat(stored, starts, axis=1).sum(axis=1)


def price_fixed(profile: Profile, fixed: FixedBits, cut: int, label: str) -> SplitPlan:
    """Prices one cut with a layer on the edge, as `charging.price` does.

    Where nothing is quantized, all bits of the plan are `FLOAT_BITS`, except those of
    graph inputs, and the encoding is `PLAIN`.

    Args:
      profile: C cuts.
      fixed: of the profile.
      cut: index along C.
      label: of the plan.

    Raises:
      InputError: the cut is cloud-only, which is priced by an input encoding.
    """
    if not runs_some(profile)[cut]:
        raise InputError(f"Cut {cut} has no layer on the edge; price it with one of the input "
                         f"encodings {sorted(e.name for e in profile.input_encodings)}.")
    layers, tensors = len(profile.macs), len(profile.producer)
    if fixed.bits != FLOAT_BITS:
        return price(profile, cut=cut, w_bits=np.full(layers, fixed.bits), label=label,
                     a_bits=np.full(tensors, fixed.bits), encoding=fixed.encoding)
    batch = charge_cuts(profile, fixed, np.array([cut]))
    charges = Charges(**{field.name: getattr(batch, field.name)[0]
                         for field in dataclasses.fields(Charges)})
    used = edge_tensors(profile)[cut] | profile.crosses[cut]
    a_bits = plan_a_bits(profile, used & (profile.producer < 0),
                         np.full(tensors, len(profile.bits) - 1))
    return assemble(profile, cut, charges, label, PLAIN, np.full(layers, FLOAT_BITS), a_bits)


def best_cut(profile: Profile, fixed: FixedBits, cuts: np.ndarray, constraints: Constraints,
             label: str, objective: Objective = LATENCY) -> SplitPlan:
    """Finds the cheapest of some cuts within the constraints.

    Where none keeps the constraints, the cheapest of those that break the fewest.

    Args:
      profile: C cuts.
      fixed: of the profile.
      cuts: i64[N], indices along C of cuts with a layer on the edge, one at least.
      constraints: to judge by.
      label: of the plan.
      objective: what is minimised, the latency by default.

    Raises:
      InputError: there is no cut, or an energy is asked for and not known.
    """
    if not len(cuts):
        raise InputError(f"There is no cut for {label!r}; expected one with a layer on the edge. "
                         "Profile the graph with more cuts.")
    _check_known(profile, objective, label)
    charges = charge_cuts(profile, fixed, cuts)
    broken = limits_broken(charges.costs(), constraints)
    first = np.lexsort((objective.cost(charges), broken))[0]
    return judge(price_fixed(profile, fixed, int(cuts[first]), label), constraints)


def better(plans: list[SplitPlan], constraints: Constraints,
           objective: Objective = LATENCY) -> SplitPlan:
    """Returns the plan that `best_cut` would prefer, judged."""
    best = min(plans, key=lambda plan: (len(violations(plan, constraints)), objective.cost(plan)))
    return judge(best, constraints)


def _check_known(profile: Profile, objective: Objective, label: str) -> None:
    if objective.energy_weight:
        check_energy(profile, label)
