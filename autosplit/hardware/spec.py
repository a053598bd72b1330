"""What profiling asks of a device, and the checks that every device model shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.workload import WorkloadTable

MAC_BITS = 8  # width of one multiplier; every device here is an INT8 device or better
MAX_BITS = 32


@runtime_checkable
class Device(Protocol):
    """A machine that layers run on: arrays of work in, arrays of seconds out.

    An implementation is a pure function of its fields and arguments. Latency must
    not fall when bits rise. A user's own device needs these four members only.
    """

    @property
    def name(self) -> str:
        """For tables and reports."""

    @property
    def memory_bytes(self) -> float | None:
        """Memory for weights and activations; None means without limit."""

    def latency_s(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns seconds, f64[L, Kw, Ka], of L layers at every pair of bit-widths.

        Args:
          workloads: L layers.
          w_bits: i64[Kw], 1 to 32, weight bits.
          a_bits: i64[Ka], 1 to 32, bits of the tensors that the layer reads and writes.
        """

    def move_s(self, num_bytes: ArrayLike) -> np.ndarray:
        """Returns seconds to stream ``num_bytes`` through the memory once, same shape.

        This prices packing and unpacking, which do no arithmetic to speak of.
        """


@runtime_checkable
class PoweredDevice(Device, Protocol):
    """A device that knows its energy too. All devices here are; a user's own need not be."""

    def energy_j(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns joules, f64[L, Kw, Ka]; arguments as `Device.latency_s`, NaN where unknown."""

    def move_j(self, num_bytes: ArrayLike) -> np.ndarray:
        """Returns joules to stream ``num_bytes`` through the memory once, NaN where unknown."""


def check_bits(bits: ArrayLike, argument: str) -> np.ndarray:
    """Returns bit-widths as i64[K].

    Args:
      bits: whole numbers, 1 to 32, one axis.
      argument: name for the message.

    Raises:
      InputError: for another shape, type or range.

    >>> check_bits([2, 4, 8], "w_bits")
    array([2, 4, 8])
    """
    array = np.asarray(bits)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"{argument} has shape {array.shape} and type {array.dtype}; expected a vector of "
            "whole numbers. Pass for example np.array([2, 4, 8])."
        )
    if np.any((array < 1) | (array > MAX_BITS)):
        raise InputError(f"{argument} is {array}; expected bits from 1 to {MAX_BITS}.")
    return array.astype(np.int64)


def mac_bits(w_bits: np.ndarray, a_bits: np.ndarray) -> np.ndarray:
    """Returns i64[Kw, Ka], the width of the multiplier that each pair of operands needs."""
    return np.maximum(w_bits[:, None], a_bits[None, :])


def require_positive(owner: str, values: Mapping[str, float | None]) -> None:
    """Raises `InputError` where a value is not a finite number above 0; None passes."""
    for field, value in values.items():
        if value is not None and not (value > 0 and np.isfinite(value)):
            raise InputError(
                f"{owner}.{field} is {value}; expected a finite number above 0. "
                "Check its unit, which the field's name states."
            )
