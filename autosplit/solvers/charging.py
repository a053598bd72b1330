"""Charging: the one place that prices a cut with its bit-widths.

Auto-Split and every baseline pay here, by the same rules, for every crossing
tensor, its packing and unpacking, the overhead of both messages, the round
trip and the response.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import InputEncoding, Profile
from autosplit.workload import FLOAT_BITS

INPUT_BITS = 8
"""Bits of a graph input (pixels), whatever the candidates are."""

PACKED = "packed"
"""Encoding of plans with a layer on the edge: crossing tensors are sent as packed codes."""

PLAIN = "plain"
"""Encoding of baselines that send numbers of ``profile.unquantized.bits``, graph inputs aside.

For comparison only: `autosplit.split` runs packed plans.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Charges:
    """What assignments cost; every array has the assignments' batch shape."""

    edge_s: np.ndarray
    pack_s: np.ndarray
    uplink_s: np.ndarray
    unpack_s: np.ndarray
    cloud_s: np.ndarray
    downlink_s: np.ndarray
    round_trip_s: np.ndarray
    uplink_bytes: np.ndarray
    downlink_bytes: np.ndarray
    edge_weight_bytes: np.ndarray
    edge_activation_bytes: np.ndarray
    quant_mse: np.ndarray
    predicted_output_error: np.ndarray
    edge_j: np.ndarray
    pack_j: np.ndarray
    uplink_j: np.ndarray
    downlink_j: np.ndarray

    @property
    def energy_j(self) -> np.ndarray:
        """Joules of the edge device, NaN where a part is not known."""
        return self.edge_j + self.pack_j + self.uplink_j + self.downlink_j

    @property
    def latency_s(self) -> np.ndarray:
        """Sum of all stages, as `SplitPlan.latency_s`."""
        compute = self.edge_s + self.pack_s + self.unpack_s + self.cloud_s
        return compute + self.uplink_s + self.downlink_s + self.round_trip_s

    def costs(self) -> dict[str, np.ndarray]:
        """Returns what is spent, by the name of the constraint that limits it."""
        return {
            "memory_bytes": self.edge_weight_bytes + self.edge_activation_bytes,
            "output_error": self.predicted_output_error,
            "quant_mse": self.quant_mse,
            "latency_s": self.latency_s,
            "energy_j": self.energy_j,
        }


def runs_some(profile: Profile) -> np.ndarray:
    """Returns bool[C]: a layer runs on the edge."""
    return profile.on_edge.sum(axis=1) > 0


def runs_all(profile: Profile) -> np.ndarray:
    """Returns bool[C]: every layer runs on the edge (edge-only)."""
    return profile.on_edge.sum(axis=1) == profile.on_edge.shape[1]


def edge_tensors(profile: Profile) -> np.ndarray:
    """Returns bool[C, T]: an edge layer reads or writes the tensor."""
    return (profile.on_edge.astype(np.float64) @ profile.touches) > 0


def keeps_width(profile: Profile) -> np.ndarray:
    """Returns bool[T]: the tensor keeps its own width (integers), free of error."""
    own_width = (profile.tensor_bytes == profile.float_bytes[:, None]).all(axis=1)
    return own_width & (profile.activation_error == 0).all(axis=1)


def chooses_bits(profile: Profile) -> np.ndarray:
    """Returns bool[T]: the tensor's bits are free (no graph input, no integers)."""
    return (profile.producer >= 0) & ~keeps_width(profile)


def charge(profile: Profile, cut: int, w_index: np.ndarray, a_index: np.ndarray,
           encoding: str = PACKED) -> Charges:
    """Charges assignments of candidate indices at one cut with a layer on the edge.

    Args:
      cut: index along C.
      w_index: i[..., L] along ``profile.bits``; ignored in the cloud.
      a_index: i[..., T]; ignored where nothing is on the edge or sent. Where the
        bits are fixed it must be K-1 (equal columns).
      encoding: `PACKED`, or `PLAIN`: the same edge, but what crosses is not packed.

    Returns:
      `Charges` with the batch shape of the indices.
    """
    layers = np.flatnonzero(profile.on_edge[cut])
    touches = profile.touches[layers]
    on_edge = np.flatnonzero(touches.any(axis=0))
    made = on_edge[profile.producer[on_edge] >= 0]
    w = w_index[..., layers]
    widest = np.where(touches, a_index[..., None, :], -1).max(axis=-1)
    weight_error = profile.weight_error[layers, w]
    a = a_index[..., made]
    activation_error = profile.activation_error[made, a]
    sent = _sent(profile, cut, a_index, encoding)
    return Charges(
        edge_s=profile.edge_latency_s[layers, w, widest].sum(axis=-1),
        cloud_s=np.broadcast_to(profile.cloud_latency_s[~profile.on_edge[cut]].sum(),
                                w.shape[:-1]),
        edge_weight_bytes=_stored_bytes(profile, layers, w),
        edge_activation_bytes=profile.tensor_bytes[on_edge, a_index[..., on_edge]].max(axis=-1),
        quant_mse=weight_error.sum(axis=-1) + activation_error.sum(axis=-1),
        predicted_output_error=(weight_error * profile.weight_gain[layers, w]).sum(axis=-1)
        + (activation_error * profile.activation_gain[made, a]).sum(axis=-1),
        edge_j=profile.edge_energy_j[layers, w, widest].sum(axis=-1),
        pack_s=sent["pack_s"],
        unpack_s=sent["unpack_s"],
        pack_j=sent["pack_j"],
        **charge_link(profile, sent["tensor_bytes"], ~runs_all(profile)[cut]),
    )


def _sent(profile: Profile, cut: int, a_index: np.ndarray,
          encoding: str) -> dict[str, np.ndarray]:
    """Returns the sums over the crossing tensors, each with the batch shape."""
    sent = np.flatnonzero(profile.crosses[cut])
    names = ("tensor_bytes", "pack_s", "unpack_s", "pack_j")
    if encoding == PLAIN:
        sums = {name: getattr(profile.unquantized, name)[sent].sum() for name in names}
        return {name: np.broadcast_to(total, a_index.shape[:-1]) for name, total in sums.items()}
    return {name: getattr(profile, name)[sent, a_index[..., sent]].sum(axis=-1) for name in names}


def charge_link(profile: Profile, sent_bytes: np.ndarray,
                remote: np.ndarray | bool) -> dict[str, np.ndarray]:
    """Charges request, response and round trip; nothing where ``remote`` is False.

    Args:
      sent_bytes: [...], payload of the request.
      remote: bool[...], the cloud takes part.

    Returns:
      The fields of `Charges` that the link decides, with the shape of ``sent_bytes``.
    """
    network, response = profile.network, profile.response_bytes
    used = {
        "uplink_s": network.uplink_s(sent_bytes),
        "downlink_s": network.downlink_s(response),
        "round_trip_s": network.round_trip_s,
        "uplink_bytes": sent_bytes,
        "downlink_bytes": response,
        "uplink_j": network.uplink_j(sent_bytes),
        "downlink_j": network.downlink_j(response),
    }
    # Chosen, not multiplied: an unknown energy (NaN) times 0 would stay unknown.
    shape = np.shape(sent_bytes)
    return {name: np.where(remote, np.broadcast_to(value, shape), 0.0)
            for name, value in used.items()}


def _stored_bytes(profile: Profile, layers: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Returns the bytes of the edge weights and constants, shared ones once (the largest)."""
    order = np.argsort(profile.weight_group[layers], kind="stable")
    group = profile.weight_group[layers][order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    stored = profile.weight_bytes[layers, w][..., order]
    return np.maximum.reduceat(stored, starts, axis=-1).sum(axis=-1)


def charge_encoding(profile: Profile, encoding: InputEncoding) -> Charges:
    """Charges cloud-only: the encoded inputs go up, the response comes down."""
    zero = np.zeros(())
    return Charges(
        edge_s=zero,
        cloud_s=zero + profile.cloud_latency_s.sum(),
        edge_weight_bytes=zero,
        edge_activation_bytes=zero,
        quant_mse=zero,
        predicted_output_error=zero,
        edge_j=zero,
        pack_s=zero + encoding.encode_s,
        unpack_s=zero + encoding.decode_s,
        pack_j=zero + encoding.encode_j,
        **charge_link(profile, zero + encoding.payload_bytes, remote=True),
    )


def price(
    profile: Profile, *, cut: int, w_bits: np.ndarray, a_bits: np.ndarray,
    label: str, encoding: str = PACKED,
) -> SplitPlan:
    """Prices one cut with its bit-widths.

    Args:
      cut: index along C.
      w_bits: i[L] out of ``profile.bits``; ignored in the cloud and where a layer
        has no weight (the plan says `FLOAT_BITS` there).
      a_bits: i[T], ignored where a tensor is neither on the edge nor sent and where
        its bits are fixed: graph inputs are `INPUT_BITS`, integers their own width.
      label: of the plan.
      encoding: `PACKED` or `PLAIN` with a layer on the edge, else an `InputEncoding` name.

    Returns:
      A plan whose ``lower_bound`` is 0 and whose feasibility is not judged yet.

    Raises:
      InputError: bits that are no candidate, that differ within a weight group, or
        an encoding that does not fit the cut.
    """
    if not runs_some(profile)[cut]:
        return _price_cloud_only(profile, cut, encoding, label)
    _check_encoding(encoding, cut)
    last = len(profile.bits) - 1
    weighted = profile.on_edge[cut] & profile.has_weight
    on_edge = profile.touches[profile.on_edge[cut]].sum(axis=0) > 0
    free = (on_edge | profile.crosses[cut]) & chooses_bits(profile)
    w_index = np.where(weighted, _candidate_index(profile, w_bits, weighted, "w_bits"), last)
    a_index = np.where(free, _candidate_index(profile, a_bits, free, "a_bits"), last)
    _check_groups(profile, weighted, w_index)
    return assemble(
        profile, cut, charge(profile, cut, w_index, a_index, encoding), label, encoding,
        np.where(weighted, profile.bits[w_index], FLOAT_BITS),
        plan_a_bits(profile, on_edge | profile.crosses[cut], a_index),
    )


def _check_encoding(encoding: str, cut: int) -> None:
    if encoding not in (PACKED, PLAIN):
        raise InputError(f"Encoding {encoding!r} at cut {cut}; only cloud-only is encoded so. "
                         f"Use {PACKED!r} where layers run on the edge, {PLAIN!r} to compare.")


def _candidate_index(profile: Profile, bits: np.ndarray, used: np.ndarray,
                     name: str) -> np.ndarray:
    bits = np.asarray(bits)
    if bits.shape != used.shape:
        raise InputError(f"{name} has shape {bits.shape}; expected {used.shape}.")
    index = np.minimum(np.searchsorted(profile.bits, bits), len(profile.bits) - 1)
    wrong = np.flatnonzero(used & (profile.bits[index] != bits))
    if wrong.size:
        raise InputError(f"{name}[{wrong[0]}] is {bits[wrong[0]]}; expected one of the "
                         f"profile's candidates {profile.bits.tolist()}.")
    return index


def _check_groups(profile: Profile, weighted: np.ndarray, w_index: np.ndarray) -> None:
    layers = np.flatnonzero(weighted)
    _, first, group = np.unique(profile.weight_group[layers], return_index=True,
                                return_inverse=True)
    wrong = np.flatnonzero(w_index[layers] != w_index[layers][first[group]])
    if wrong.size:
        layer = layers[wrong[0]]
        raise InputError(
            f"w_bits of layer {profile.layer_names[layer]!r} differ from those of another layer "
            f"that shares its weight (group {profile.weight_group[layer]}); give both the same."
        )


def plan_a_bits(profile: Profile, used: np.ndarray, a_index: np.ndarray) -> np.ndarray:
    """Returns i64[T]: the bits that a plan states, `FLOAT_BITS` where a tensor is not used."""
    bits = np.where(profile.producer < 0, INPUT_BITS, profile.bits[a_index])
    return np.where(used & ~keeps_width(profile), bits, FLOAT_BITS)


def _price_cloud_only(profile: Profile, cut: int, name: str, label: str) -> SplitPlan:
    encodings = {encoding.name: encoding for encoding in profile.input_encodings}
    if name not in encodings:
        raise InputError(f"Encoding {name!r} at the cloud-only cut; the profile prices "
                         f"{sorted(encodings)}.")
    pixels = profile.crosses[cut] & (profile.producer < 0) & (name == "raw")
    a_bits = plan_a_bits(profile, pixels, np.full(len(pixels), len(profile.bits) - 1))
    plan = assemble(profile, cut, charge_encoding(profile, encodings[name]), label, name,
                     np.full(len(profile.macs), FLOAT_BITS), a_bits)
    return dataclasses.replace(plan, error_is_predicted=encodings[name].lossless)


def assemble(profile: Profile, cut: int, charges: Charges, label: str, encoding: str,
             w_bits: np.ndarray, a_bits: np.ndarray) -> SplitPlan:
    """Makes the plan of one assignment: its charges (of no batch), its bits and their clips."""
    last = len(profile.bits) - 1
    w_index = np.minimum(np.searchsorted(profile.bits, w_bits), last)[:, None]
    a_index = np.minimum(np.searchsorted(profile.bits, a_bits), last)[:, None]
    ratio = np.take_along_axis(profile.weight_ratio, w_index, axis=1)[:, 0]
    low = np.take_along_axis(profile.activation_low, a_index, axis=1)[:, 0]
    high = np.take_along_axis(profile.activation_high, a_index, axis=1)[:, 0]
    return SplitPlan(
        label=label,
        fingerprint=profile.fingerprint,
        cut_name=profile.cut_names[cut],
        on_edge=tuple(profile.on_edge[cut].tolist()),
        crosses=tuple(profile.crosses[cut].tolist()),
        encoding=encoding,
        w_bits=tuple(w_bits.tolist()),
        a_bits=tuple(a_bits.tolist()),
        weight_ratio=tuple(np.where(w_bits == FLOAT_BITS, 1.0, ratio).tolist()),
        activation_low=tuple(np.where(a_bits == FLOAT_BITS, 0.0, low).tolist()),
        activation_high=tuple(np.where(a_bits == FLOAT_BITS, 0.0, high).tolist()),
        edge_s=float(charges.edge_s),
        pack_s=float(charges.pack_s),
        uplink_s=float(charges.uplink_s),
        unpack_s=float(charges.unpack_s),
        cloud_s=float(charges.cloud_s),
        downlink_s=float(charges.downlink_s),
        round_trip_s=float(charges.round_trip_s),
        uplink_bytes=float(charges.uplink_bytes),
        downlink_bytes=float(charges.downlink_bytes),
        edge_weight_bytes=int(charges.edge_weight_bytes),
        edge_activation_bytes=int(charges.edge_activation_bytes),
        quant_mse=float(charges.quant_mse),
        predicted_output_error=float(charges.predicted_output_error),
        edge_j=_known(charges.edge_j),
        pack_j=_known(charges.pack_j),
        uplink_j=_known(charges.uplink_j),
        downlink_j=_known(charges.downlink_j),
    )


def _known(joules: np.ndarray) -> float | None:
    """Returns None for NaN, which JSON has no word for."""
    return None if np.isnan(joules) else float(joules)
