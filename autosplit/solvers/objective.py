"""Objective: what a solver minimises, a weighted sum of latency and energy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import Charges


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The cost of a plan: ``latency_weight * latency_s + energy_weight * energy_j``.

    >>> Objective(latency_weight=0.0, energy_weight=1.0).minimises
    'energy_j'

    Attributes:
      latency_weight: cost of a second, end to end; 0 or more.
      energy_weight: cost of a joule of the edge device; 0 or more.

    Raises:
      InputError: a weight is no number, infinite or below 0, or both are 0.
    """

    latency_weight: float = 1.0
    energy_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in dataclasses.asdict(self).items():
            number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
            if not number or not 0 <= weight < math.inf:
                raise InputError(f"Objective.{name} is {weight!r}; expected a finite number of 0 "
                                 "or more.")
        if self.latency_weight == self.energy_weight == 0:
            raise InputError("Both weights of the Objective are 0, so every plan costs the same; "
                             "expected one above 0.")

    @property
    def minimises(self) -> str | None:
        """``"latency_s"`` or ``"energy_j"`` where that alone counts, else None."""
        if self.energy_weight == 0:
            return "latency_s"
        return "energy_j" if self.latency_weight == 0 else None

    def weigh(self, latency: Any, energy: Any) -> Any:
        """Returns the weighted sum of two quantities; one of weight 0 may be unknown."""
        if self.energy_weight == 0:
            return self.latency_weight * latency
        if self.latency_weight == 0:
            return self.energy_weight * energy
        return self.latency_weight * latency + self.energy_weight * energy

    def cost(self, priced: SplitPlan | Charges) -> Any:
        """Returns the cost of a plan, or f64[...] of `Charges`."""
        return self.weigh(priced.latency_s, priced.energy_j)


def relative_gap(cost: float, lower_bound: float) -> float:
    """Returns a cost over its bound, less 1: 0 where it is optimal.

    >>> relative_gap(3.0, 2.0), relative_gap(0.0, 0.0)
    (0.5, 0.0)
    """
    if cost <= lower_bound:
        return 0.0
    return cost / lower_bound - 1.0 if lower_bound > 0 else math.inf


def check_energy(profile: Profile, reason: str) -> None:
    """Checks that a profile states all energies.

    Args:
      reason: who asks for them, to begin the message with.

    Raises:
      InputError: the edge device or the network states none.
    """
    device = (profile.edge_energy_j, profile.pack_j)
    device_known = all(np.isfinite(joules).all() for joules in device)
    encodings = [encoding.encode_j for encoding in profile.input_encodings]
    network = profile.network
    network_known = math.isfinite(network.uplink_j(1) + network.downlink_j(1))
    missing = []
    if not device_known or not np.isfinite(encodings).all():
        missing.append(f"edge device {profile.edge_name!r}")
    if not network_known:
        missing.append(f"network {network.name!r}")
    if missing:
        raise InputError(
            f"{reason} asks for energy, but {' and '.join(missing)} "
            f"{'state' if len(missing) > 1 else 'states'} none (NaN joules). Profile again with "
            "energy figures for both device and network, or ask for latency alone."
        )
