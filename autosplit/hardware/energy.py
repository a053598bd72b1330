"""Energy of a layer: joules a multiplication, an operation, a byte, and watts that run anyway."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.hardware.spec import MAC_BITS, check_bits, mac_bits
from autosplit.workload import WorkloadTable

SRAM_BYTES_PER_DRAM_BYTE = 2
"""A byte that crosses the chip's edge is written to its buffer once and read from it once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Energy:
    """What a device's work costs in joules.

    ``energy = macs * mac_j(bits) + vector_ops * vector_op_j + sram_bytes * sram_byte_j
               + dram_bytes * dram_byte_j + static_w * latency``

    with the MAC of the narrowest multiplier that holds the wider operand. Below 8
    bits only data movement gets cheaper. DRAM traffic is each weight, input and
    output once, at its bits; SRAM traffic is `SRAM_BYTES_PER_DRAM_BYTE` times that.
    A device that counts its accesses passes its own numbers instead. Reads of an
    operand over and over during a layer are those of registers in the array and
    belong in ``mac_j``.

    Where nothing but a board's power is published, ``static_w`` alone prices it:
    at the peak rate that is power over rate a MAC, and a layer that waits for
    memory pays for waiting. What a device draws between layers, such as while it
    waits for an answer, is nobody's here.

    Attributes:
      mac_j: a multiply-accumulate at up to 8 bits.
      mac_16bit_j: at 9 to 16 bits; None means twice ``mac_j``, as `Roofline` takes
        two passes.
      mac_32bit_j: at 17 to 32 bits; None means twice the 16-bit one.
      vector_op_j: an elementwise operation.
      sram_byte_j: a byte read from or written to memory on the chip.
      dram_byte_j: a byte read from or written to memory outside it.
      static_w: drawn for as long as a layer takes.

    Reference:
      Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC
      2014, for pricing operations and accesses apart; Chen, Emer and Sze, "Eyeriss:
      a spatial architecture for energy-efficient dataflow for convolutional neural
      networks", ISCA 2016, for doing so layer by layer. Deviation: their accesses
      to registers are counted, here they are part of a MAC.

    >>> from autosplit.workload import Workload, tabulate
    >>> layers = tabulate([Workload(kind="gemm", in_channels=1000, out_channels=1000)])
    >>> Energy(mac_j=1e-12).layer_j(layers, [4, 8, 16], [8], np.zeros((1, 3, 1)))
    array([[[1.e-06],
            [1.e-06],
            [2.e-06]]])
    """

    mac_j: float = 0.0
    mac_16bit_j: float | None = None
    mac_32bit_j: float | None = None
    vector_op_j: float = 0.0
    sram_byte_j: float = 0.0
    dram_byte_j: float = 0.0
    static_w: float = 0.0

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        for field, value in values.items():
            if value is not None and not 0 <= value < np.inf:
                raise InputError(
                    f"Energy.{field} is {value}; expected a finite number of 0 or more. "
                    "Leave it out where it is not known."
                )
        if not any(values.values()):
            raise InputError(
                "Energy has no coefficient above 0 and would make a device free; expected one at "
                "the least. Give the device energy=None where nothing is known."
            )
        macs = self._macs_j()
        if not macs[0] <= macs[1] <= macs[2]:
            raise InputError(
                f"Energy makes wider numbers cheaper: {macs} J a MAC at 8, 16 and 32 bits. "
                "Expected coefficients mac_j, mac_16bit_j, mac_32bit_j that do not fall."
            )

    def _macs_j(self) -> tuple[float, float, float]:
        wide = 2 * self.mac_j if self.mac_16bit_j is None else self.mac_16bit_j
        return self.mac_j, wide, 2 * wide if self.mac_32bit_j is None else self.mac_32bit_j

    def layer_j(
        self,
        workloads: WorkloadTable,
        w_bits: ArrayLike,
        a_bits: ArrayLike,
        latency_s: ArrayLike,
        *,
        sram_bytes: ArrayLike | None = None,
        dram_bytes: ArrayLike | None = None,
    ) -> np.ndarray:
        """Returns joules, f64[L, Kw, Ka], of L layers at every pair of bit-widths.

        They do not fall when bits rise, as long as the arguments do not.

        Args:
          workloads: L layers.
          w_bits: i64[Kw], 1 to 32, weight bits.
          a_bits: i64[Ka], 1 to 32, bits of the tensors that the layer reads and writes.
          latency_s: f64[L, Kw, Ka], seconds that the layers take on the device.
          sram_bytes: bytes read and written on the chip, where the device counts them;
            of a shape that broadcasts to [L, Kw, Ka].
          dram_bytes: the same outside it.

        Raises:
          InputError: for wrong bits, or traffic that is negative or misshapen.
        """
        w_bits, a_bits = check_bits(w_bits, "w_bits"), check_bits(a_bits, "a_bits")
        shape = (len(workloads), len(w_bits), len(a_bits))
        if dram_bytes is None:
            dram_bytes = compulsory_bytes(workloads, w_bits, a_bits)
        dram = _check_table(dram_bytes, "dram_bytes", shape)
        if sram_bytes is None:
            sram_bytes = SRAM_BYTES_PER_DRAM_BYTE * dram
        sram = _check_table(sram_bytes, "sram_bytes", shape)
        work_j = (
            workloads.macs[:, None, None] * np.array(self._macs_j())[mac_width(w_bits, a_bits)]
            + workloads.vector_ops[:, None, None] * self.vector_op_j
        )
        waiting_j = self.static_w * _check_table(latency_s, "latency_s", shape)
        return work_j + sram * self.sram_byte_j + dram * self.dram_byte_j + waiting_j

    def move_j(self, num_bytes: ArrayLike, move_s: ArrayLike) -> np.ndarray:
        """Returns joules to stream ``num_bytes`` through the memory once, same shape.

        >>> Energy(dram_byte_j=0.5, sram_byte_j=0.25, static_w=2).move_j(np.array([0, 3]), 0.5)
        array([1., 4.])

        Args:
          num_bytes: sizes.
          move_s: seconds that the device takes over them.
        """
        byte_j = self.dram_byte_j + SRAM_BYTES_PER_DRAM_BYTE * self.sram_byte_j
        return np.asarray(num_bytes, np.float64) * byte_j + np.asarray(move_s) * self.static_w


def moved_j(energy: Energy | None, num_bytes: ArrayLike, move_s: np.ndarray) -> np.ndarray:
    """Returns `Energy.move_j`, or NaN of the same shape where no energy is known.

    >>> moved_j(None, 3, np.array([0.5]))
    array([nan])
    """
    if energy is None:
        return np.full_like(move_s, np.nan)
    return energy.move_j(num_bytes, move_s)


def compulsory_bytes(
    workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
) -> np.ndarray:
    """Returns the least traffic, bytes f64[L, Kw, Ka]: each tensor once, at its bits.

    >>> from autosplit.workload import Workload, tabulate
    >>> work = Workload(kind="vector", input_elements=3, output_elements=1)
    >>> compulsory_bytes(tabulate([work]), np.array([8]), np.array([4, 8]))
    array([[[2., 4.]]])
    """
    moved = workloads.input_elements + workloads.output_elements
    num_bits = (
        workloads.weight_elements[:, None, None] * w_bits[:, None] + moved[:, None, None] * a_bits
    )
    return num_bits / 8


def mac_width(w_bits: np.ndarray, a_bits: np.ndarray) -> np.ndarray:
    """Returns i64[Kw, Ka]: 0, 1 or 2 where the wider operand needs 8, 16 or 32 bits."""
    return np.searchsorted((MAC_BITS, 2 * MAC_BITS), mac_bits(w_bits, a_bits))


def _check_table(values: ArrayLike, argument: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    try:
        full = np.broadcast_to(array, shape)
    except ValueError:
        raise InputError(
            f"{argument} has shape {array.shape}; expected one that broadcasts to [layers, weight "
            f"bits, activation bits] = {shape}."
        ) from None
    if not np.all((array >= 0) & np.isfinite(array)):
        raise InputError(f"{argument} has negative or infinite values or NaN; expected 0 or more.")
    return full
