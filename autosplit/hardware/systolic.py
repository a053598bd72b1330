"""A systolic array as a device: SCALE-Sim's cycles, and the memory traffic of any bits."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.hardware.energy import Energy, moved_j
from autosplit.hardware.matrix_products import Products, products_of
from autosplit.hardware.spec import MAC_BITS, check_bits, mac_bits, require_positive
from autosplit.hardware.systolic_counts import (
    Dataflow,
    SystolicArray,
    SystolicCounts,
    count_systolic,
    dram_reads,
)
from autosplit.workload import WorkloadTable

ACCUMULATOR_BITS: Final = 32  # width of a partial sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Systolic:
    """Prices a layer by the folds of a systolic array and by the traffic of its buffers.

    Stall-free time is ``compute_s = cycles * ceil(bits / 8) / clock_hz``, with the
    cycles of `count_systolic` and the bits of the wider operand. With stalls,

    ``max(compute_s, transfer_s) + min(compute_s, transfer_s) / folds``

    where ``transfer_s = dram_bytes / memory_bytes_per_s`` and a layer runs ``folds``
    folds: that is how long equal folds take of which each is loaded while the one
    before it is computed. Hence the bounds ``max(compute_s, transfer_s) <= latency <=
    compute_s + transfer_s``; a layer of one fold reaches the upper one.

    Vector work runs beside the array, so no layer is faster than it. Layers without
    MACs cost the larger of that and their traffic.

    Attributes:
      name: for tables and reports.
      rows, columns: multipliers, each of 8 bits.
      dataflow: see `Dataflow`.
      clock_hz: cycles per second.
      ifmap_sram_bytes, filter_sram_bytes, ofmap_sram_bytes: buffers; half of each
        is filled while the other half is used.
      memory_bytes_per_s: of the DRAM, both directions together.
      stalls: False: operands of layers with MACs always arrive in time.
      vector_ops_per_cycle: elementwise operations; None means one per column.
      memory_bytes: capacity; None means without limit.
      energy: what the work costs in joules; None means that it is not known.

    Reference:
      SCALE-Sim, see `count_systolic`, for cycles. Deviations, since that has only
      dense convolutions of 8 bits without padding:

      * Groups, padding, inserted zeros and repeats: see `products_of`.
      * Elements narrower than a byte are packed, in DRAM as in the buffers, so more
        of them fit. Operands above 8 bits take one pass of the array per byte.
      * The buffers do not forget what fits into them (`dram_reads`).
      * Partial sums are added up on the chip, as both Eyeriss and the TPU do; so
        only outputs go to DRAM. In the SRAM each costs a write and a read of 32 bits.
      * Its mode with a given bandwidth steps through every address; the formula
        above replaces it, and does not reproduce its numbers.

    >>> from autosplit.workload import Workload, tabulate
    >>> gemm = Workload(kind="gemm", in_height=32, out_height=32, in_channels=64, out_channels=32,
    ...                 input_elements=2048, weight_elements=2048, output_elements=1024)
    >>> chip = Systolic(
    ...     name="chip", rows=32, columns=32, dataflow=Dataflow.WEIGHT_STATIONARY, clock_hz=1e6,
    ...     ifmap_sram_bytes=65536, filter_sram_bytes=65536, ofmap_sram_bytes=65536,
    ...     memory_bytes_per_s=1e9, stalls=False,
    ... )
    >>> chip.latency_s(tabulate([gemm]), np.array([8, 16]), np.array([8]))
    array([[[0.000251],
            [0.000502]]])
    """

    name: str
    rows: int
    columns: int
    dataflow: Dataflow
    clock_hz: float
    ifmap_sram_bytes: int
    filter_sram_bytes: int
    ofmap_sram_bytes: int
    memory_bytes_per_s: float
    stalls: bool = True
    vector_ops_per_cycle: float | None = None
    memory_bytes: float | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        owner = f"Systolic({self.name!r})"
        skipped = ("name", "dataflow", "stalls", "energy")
        names = [f.name for f in dataclasses.fields(self) if f.name not in skipped]
        require_positive(owner, {n: getattr(self, n) for n in names})
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value != int(value):
                raise InputError(f"{owner}.{field.name} is {value}; expected a whole number.")
        if self.dataflow not in list(Dataflow):
            raise InputError(
                f"{owner}.dataflow is {self.dataflow!r}; expected a member of Dataflow: "
                f"{', '.join(Dataflow.__members__)}."
            )

    def latency_s(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns seconds, f64[L, Kw, Ka]; see `Device.latency_s`."""
        products = products_of(workloads)
        counts = self.count(products)
        _, dram = self.traffic_bytes(workloads, w_bits, a_bits)
        passes = -(-mac_bits(w_bits, a_bits) // MAC_BITS)
        compute_s = _with_bits(counts.cycles) * passes / self.clock_hz
        transfer_s = self.move_s(dram)
        folds = _with_bits(np.maximum(counts.folds * products.runs, 1))
        latency_s = stalled_s(compute_s, transfer_s, folds)
        if not self.stalls:
            latency_s = np.where(_with_bits(products.runs) > 0, compute_s, transfer_s)
        vector_s = workloads.vector_ops / (self.clock_hz * self._vector_ops_per_cycle())
        return np.maximum(latency_s, _with_bits(vector_s))

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
        sram, dram = self.traffic_bytes(workloads, w_bits, a_bits)
        return self.energy.layer_j(
            workloads, w_bits, a_bits, latency_s, sram_bytes=sram, dram_bytes=dram
        )

    def move_j(self, num_bytes: ArrayLike) -> np.ndarray:
        """Returns joules to stream ``num_bytes`` through the memory once, NaN where unknown."""
        return moved_j(self.energy, num_bytes, self.move_s(num_bytes))

    def traffic_bytes(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the bytes that each layer moves, to charge energy for.

        Args:
          workloads: L layers.
          w_bits: i64[Kw], 1 to 32.
          a_bits: i64[Ka], 1 to 32.

        Returns:
          SRAM bytes f64[L, Kw, Ka]: what the array reads and writes, and what comes from
          DRAM or goes there; and DRAM bytes f64[L, Kw, Ka].
        """
        w_bits, a_bits = check_bits(w_bits, "w_bits"), check_bits(a_bits, "a_bits")
        moved = _moved(workloads)
        # The second operand of a product without weights is data too.
        filter_bits = np.where(moved.has_weights, w_bits[:, None], a_bits)
        buffers = self._array(a_bits, filter_bits)
        ifmap_reads, filter_reads = dram_reads(moved.products, buffers)
        dram_bits = (
            (ifmap_reads + moved.other_inputs + moved.outputs) * a_bits
            + filter_reads * filter_bits
            + moved.other_weights * w_bits[:, None]
        )
        counts = self.count(moved.products)
        results = moved.products.runs * moved.products.pixels * moved.products.filters
        is_os = self.dataflow == Dataflow.OUTPUT_STATIONARY
        partial_sums = 0 if is_os else counts.sram_ofmap_writes - results
        array_bits = (
            (counts.sram_ifmap_reads + moved.other_inputs) * a_bits
            + np.maximum(results, moved.outputs) * a_bits
            + counts.sram_filter_reads * filter_bits
            + moved.other_weights * w_bits[:, None]
            + 2 * partial_sums * ACCUMULATOR_BITS
        )
        return (array_bits + dram_bits) / 8, dram_bits / 8

    def count(self, products: Products) -> SystolicCounts:
        """Returns SCALE-Sim's counts of layers of 8 bits on this array."""
        return count_systolic(products, self._array(MAC_BITS, MAC_BITS))

    def _array(self, a_bits: ArrayLike, filter_bits: ArrayLike) -> SystolicArray:
        return SystolicArray(
            rows=self.rows,
            columns=self.columns,
            dataflow=int(self.dataflow),
            ifmap_words=8 * self.ifmap_sram_bytes // np.asarray(a_bits),
            filter_words=8 * self.filter_sram_bytes // np.asarray(filter_bits),
            ofmap_words=self.ofmap_sram_bytes,
        )

    def _vector_ops_per_cycle(self) -> float:
        return self.vector_ops_per_cycle or self.columns


class _Moved(NamedTuple):
    """What each layer moves; all [L, 1, 1], to stand before the axes of bits."""

    products: Products
    has_weights: np.ndarray
    other_inputs: np.ndarray  # elements that are no operand of the product: a summand,
    other_weights: np.ndarray  # a bias
    outputs: np.ndarray


def stalled_s(compute_s: ArrayLike, transfer_s: ArrayLike, folds: ArrayLike) -> np.ndarray:
    """Returns the time of equal folds, each loaded while the one before it is computed.

    ``max(compute, transfer) + min(compute, transfer) / folds``

    Args:
      compute_s, transfer_s: of all folds together, seconds, 0 or more.
      folds: 1 or more.

    >>> float(stalled_s(6.0, 3.0, 3))  # one fold's transfer of 1 s, then three folds of 2 s
    7.0
    """
    compute_s, transfer_s = np.asarray(compute_s), np.asarray(transfer_s)
    shorter = np.minimum(compute_s, transfer_s) / folds
    return np.maximum(compute_s, transfer_s) + shorter


def _moved(workloads: WorkloadTable) -> _Moved:
    w = workloads
    products = products_of(w)
    image = w.in_height * w.in_width * w.in_channels
    ifmaps = np.where(products.runs > 0, w.batch * w.repeat * image, 0)
    filters = products.runs * products.window * products.filters
    # Without weights, the filters of the product are among the layer's inputs.
    operands = ifmaps + np.where(w.weight_elements > 0, 0, filters)
    return _Moved(
        products=Products(*map(_with_bits, products)),
        has_weights=_with_bits(w.weight_elements > 0),
        other_inputs=_with_bits(np.maximum(w.input_elements - operands, 0)),
        other_weights=_with_bits(np.maximum(w.weight_elements - filters, 0)),
        outputs=_with_bits(w.output_elements),
    )


def _with_bits(column: np.ndarray) -> np.ndarray:
    """Returns i64[L] as i64[L, 1, 1], to stand before the axes of bits."""
    return column[:, None, None]
