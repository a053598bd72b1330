"""Roofline: a device as three peak rates and a fixed cost per layer."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.hardware.energy import Energy, compulsory_bytes, mac_width, moved_j
from autosplit.hardware.spec import check_bits, require_positive
from autosplit.workload import WorkloadTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
    """Prices a layer by the slowest of its multiplications, vector work and traffic.

    ``latency = overhead + max(macs / peak(bits), vector_ops / rate, bytes / bandwidth)``
    with ``bytes = (weights * w_bits + (inputs + outputs) * a_bits) / 8``, and the
    peak of the narrowest multiplier that holds the wider operand. Below 8 bits
    only the traffic shrinks.

    Every rate is a peak, so the latency is a lower bound: real kernels reach a
    fraction of it, and a fraction that varies by layer. Multiply measured
    fractions into the rates (``dataclasses.replace``) before trusting absolute
    times.

    Attributes:
      name: for tables and reports.
      macs_per_s: multiply-accumulates at up to 8 bits. A data sheet's "TOPS" and
        "FLOPS" count two operations a MAC.
      vector_ops_per_s: elementwise operations.
      memory_bytes_per_s: bandwidth of the memory that holds the tensors.
      macs_16bit_per_s: MACs at 9 to 16 bits, integer or float; None means half of
        ``macs_per_s``, two passes of an 8-bit multiplier.
      macs_32bit_per_s: MACs at 17 to 32 bits; None means half of the 16-bit rate.
      overhead_s: what every layer costs at the least: dispatch, kernel launch.
      memory_bytes: capacity; None means without limit.
      energy: what the work costs in joules; None means that it is not known.

    Reference:
      Williams, Waterman and Patterson, "Roofline: an insightful visual performance
      model for multicore architectures", CACM 52(4), 2009: attainable rate =
      min(peak, bandwidth * operational intensity), which over a layer's work is the
      max above. Deviations: a third ceiling for vector work, a fixed overhead, the
      peak depends on the bits, and traffic is counted as if no tensor stayed in a
      cache between layers.

    >>> from autosplit.workload import Workload, tabulate
    >>> phone = Roofline(
    ...     name="phone", macs_per_s=1e9, vector_ops_per_s=1e9, memory_bytes_per_s=1e9
    ... )
    >>> layers = tabulate([Workload(kind="gemm", in_channels=1000, out_channels=1000)])
    >>> phone.latency_s(layers, np.array([8, 16]), np.array([8]))
    array([[[0.001],
            [0.002]]])
    """

    name: str
    macs_per_s: float
    vector_ops_per_s: float
    memory_bytes_per_s: float
    macs_16bit_per_s: float | None = None
    macs_32bit_per_s: float | None = None
    overhead_s: float = 0.0
    memory_bytes: float | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        owner = f"Roofline({self.name!r})"
        optional_too = [f.name for f in dataclasses.fields(self) if f.name.endswith("_per_s")]
        require_positive(owner, {n: getattr(self, n) for n in [*optional_too, "memory_bytes"]})
        if not (0 <= self.overhead_s < np.inf):
            raise InputError(f"{owner}.overhead_s is {self.overhead_s}; expected 0 s or more.")
        rates = self._mac_rates()
        if not rates[0] >= rates[1] >= rates[2]:
            raise InputError(
                f"{owner} multiplies wider numbers faster: {rates} MAC/s at 8, 16 and 32 bits. "
                "Expected rates that do not rise with the bits; give the faster unit's rate to "
                "the narrower width too."
            )

    def _mac_rates(self) -> tuple[float, float, float]:
        wide = self.macs_16bit_per_s or self.macs_per_s / 2
        return self.macs_per_s, wide, self.macs_32bit_per_s or wide / 2

    def latency_s(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns seconds, f64[L, Kw, Ka]; see `Device.latency_s`."""
        w_bits, a_bits = check_bits(w_bits, "w_bits"), check_bits(a_bits, "a_bits")
        rates = np.array(self._mac_rates())[mac_width(w_bits, a_bits)]
        mac_s = workloads.macs[:, None, None] / rates
        vector_s = workloads.vector_ops[:, None, None] / self.vector_ops_per_s
        moved_s = self.move_s(compulsory_bytes(workloads, w_bits, a_bits))
        return self.overhead_s + np.maximum(np.maximum(mac_s, vector_s), moved_s)

    def move_s(self, num_bytes: ArrayLike) -> np.ndarray:
        """Returns seconds to stream ``num_bytes`` through the memory once."""
        return np.asarray(num_bytes, np.float64) / self.memory_bytes_per_s

    def energy_j(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns joules, f64[L, Kw, Ka], NaN where unknown; see `Energy.layer_j`."""
        latency_s = self.latency_s(workloads, w_bits, a_bits)
        if self.energy is None:
            return np.full_like(latency_s, np.nan)
        return self.energy.layer_j(workloads, w_bits, a_bits, latency_s)

    def move_j(self, num_bytes: ArrayLike) -> np.ndarray:
        """Returns joules to stream ``num_bytes`` through the memory once, NaN where unknown."""
        return moved_j(self.energy, num_bytes, self.move_s(num_bytes))
