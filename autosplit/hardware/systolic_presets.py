"""The configurations that come with SCALE-Sim, as devices.

Array, SRAM and dataflow are SCALE-Sim's. Clock, bandwidth and energy of the first two
are those of the same machines in `device_presets`; of the third, which is no machine,
clock and bandwidth are assumed: a round gigahertz, and the 10 words a cycle at which
SCALE-Sim starts to prefetch.
"""

from __future__ import annotations

from typing import Final

from autosplit.hardware.device_presets import EYERISS, TPU
from autosplit.hardware.systolic import Systolic
from autosplit.hardware.systolic_counts import Dataflow

KIB: Final = 1024

EYERISS_SYSTOLIC: Final = Systolic(
    name="eyeriss_systolic",
    rows=12,
    columns=14,
    dataflow=Dataflow.WEIGHT_STATIONARY,
    clock_hz=EYERISS.clock_hz,
    ifmap_sram_bytes=36 * KIB,
    filter_sram_bytes=36 * KIB,
    ofmap_sram_bytes=36 * KIB,
    memory_bytes_per_s=EYERISS.memory_bytes_per_s,
    energy=EYERISS.energy,
)

TPU_SYSTOLIC: Final = Systolic(
    name="tpu_systolic",
    rows=256,
    columns=256,
    dataflow=Dataflow.WEIGHT_STATIONARY,
    clock_hz=TPU.clock_hz,
    ifmap_sram_bytes=6144 * KIB,
    filter_sram_bytes=6144 * KIB,
    ofmap_sram_bytes=2048 * KIB,
    memory_bytes_per_s=TPU.memory_bytes_per_s,
    energy=TPU.energy,
)

SCALE_SYSTOLIC: Final = Systolic(
    name="scale_systolic",
    rows=32,
    columns=32,
    dataflow=Dataflow.WEIGHT_STATIONARY,  # SCALE-Sim leaves the choice open
    clock_hz=1e9,
    ifmap_sram_bytes=64 * KIB,
    filter_sram_bytes=64 * KIB,
    ofmap_sram_bytes=64 * KIB,
    memory_bytes_per_s=10e9,
)

ALL: Final = (EYERISS_SYSTOLIC, TPU_SYSTOLIC, SCALE_SYSTOLIC)
