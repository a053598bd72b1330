"""Devices: rates, bandwidths and energies off data sheets and papers.

The rooflines are peaks and so optimistic: they rank layers and devices, they do not
predict a stopwatch. A figure that no data sheet states says how it was derived. A MAC
is two of a data sheet's operations, and only dense rates are used, never those that
assume half of the weights to be zero.

Energies stand only where a source does. "Power for as long as a layer takes" is the
published power of a chip or board charged for the roofline's time: at the peak rate
that is power over rate a MAC. The time is a lower bound and the power a limit or a
typical value, so these rank devices too.
"""

from __future__ import annotations

from typing import Final

from autosplit.hardware.energy import Energy
from autosplit.hardware.roofline import Roofline
from autosplit.hardware.tiled import Tiled

GIB: Final = 1024**3

# Horowitz, ISSCC 2014, 45 nm at 0.9 V, second-hand: int8 multiply 0.2 pJ, int32 multiply 3.1 pJ,
# int32 add 0.1 pJ, DRAM 1.3 to 2.6 nJ an access of 64 bits. int16 is not in that table: four int8
# products are taken, as an int32 product costs sixteen to 3%.
ADD_J: Final = 0.1e-12
MULTIPLY_J: Final = 0.2e-12
MULTIPLY_16BIT_J: Final = 4 * MULTIPLY_J
MULTIPLY_32BIT_J: Final = 3.1e-12
DDR_BYTE_J: Final = 2.6e-9 / 8

# Chen, Emer and Sze, ISCA 2016, table IV, second-hand: a 16-bit word costs, in 16-bit MACs, 1 from
# the register file, 6 from the global buffer, 200 from DRAM. The unit is Horowitz's multiply and
# add, so that DRAM comes to 90 pJ a byte, some half of his lowest. A MAC reads two operands from
# registers, reads a partial sum and writes it; sums have 16 bits beside operands of 8, and 32
# beside 32. What neighbours hand on (2 a word) is left out. The chip itself, in 65 nm, draws 278 mW
# for 35 AlexNets a second (JSSC 2017): 12 pJ a MAC of 16 bits with its buffer, where this gives
# 4.5 without, two nodes later.
WORD_J: Final = MULTIPLY_16BIT_J + ADD_J
EYERISS_ENERGY: Final = Energy(
    mac_j=MULTIPLY_J + ADD_J + (2 * 0.5 + 2) * WORD_J,
    mac_16bit_j=MULTIPLY_16BIT_J + ADD_J + 4 * WORD_J,
    mac_32bit_j=MULTIPLY_32BIT_J + ADD_J + 4 * 2 * WORD_J,
    vector_op_j=ADD_J,
    sram_byte_j=6 * WORD_J / 2,
    dram_byte_j=200 * WORD_J / 2,
)

# Both from the proof of concept of Auto-Split (KDD 2021); memory is a constraint of each of its
# experiments, not of the device. 168 multipliers at 202.381 MHz are 34.0 GMAC/s, a byte in
# 0.202381 cycles 1.0 GB/s.
EYERISS: Final = Tiled(
    name="eyeriss",
    clock_hz=202.381e6,
    tile_height=7,
    tile_width=4,
    tile_channels=12,
    tile_filters=7,
    macs_per_cycle=168,
    dma_cycles_per_byte=0.202381,
    adds_per_cycle=4,
    energy=EYERISS_ENERGY,
)

# 65,536 multipliers at 1464.844 MHz are 96.0 TMAC/s; the memory moves 13.0 GB/s. Energy of the
# first TPU (Jouppi et al., ISCA 2017, second-hand), derived: 75 W of thermal design power over
# 92 TOPS. That holds its buffers, but not its DDR3, for which Horowitz's highest is charged.
TPU: Final = Tiled(
    name="tpu",
    clock_hz=1464.844e6,
    tile_height=7,
    tile_width=6,
    tile_channels=128,
    tile_filters=128,
    macs_per_cycle=65_536,
    dma_cycles_per_byte=0.112680288,
    adds_per_cycle=256,
    energy=Energy(mac_j=75 / 46e12, dram_byte_j=DDR_BYTE_J),
)

# Raspberry Pi 4 Model B product brief: 4 Cortex-A72 at 1.8 GHz (1.5 GHz in early boards), 4 GB
# of 32-bit LPDDR4-3200 = 12.8 GB/s. MAC rates are derived, none is published: per core and
# cycle one 128-bit multiply-accumulate, 8 of int8 or 4 of float32. The core has neither dot
# product nor half floats. STREAM measures some 5.5 GB/s on it (sci-pi.org.uk), 43% of the peak.
# Power for as long as a layer takes: 600 mA at 5 V, "typical bare-board active current" (Raspberry
# Pi documentation, power supplies); with all cores busy, owners report above 5 W.
RASPBERRY_PI_4: Final = Roofline(
    name="raspberry_pi_4",
    macs_per_s=4 * 1.8e9 * 8,
    macs_16bit_per_s=4 * 1.8e9 * 4,
    macs_32bit_per_s=4 * 1.8e9 * 4,
    vector_ops_per_s=4 * 1.8e9 * 4,
    memory_bytes_per_s=12.8e9,
    overhead_s=2e-6,  # assumed: dispatch of a layer to four threads
    memory_bytes=4 * GIB,
    energy=Energy(static_w=0.6 * 5),
)

# Raspberry Pi 5 product brief: 4 Cortex-A76 at 2.4 GHz, 8 GB of 32-bit LPDDR4X-4267 = 17.1 GB/s.
# MAC rates are derived: two 128-bit pipes a core, each with dot product (16 int8 MACs a cycle),
# half floats (8) and floats (4). Power as above: 800 mA at 5 V;
# owners report 9 W.
RASPBERRY_PI_5: Final = Roofline(
    name="raspberry_pi_5",
    macs_per_s=4 * 2.4e9 * 2 * 16,
    macs_16bit_per_s=4 * 2.4e9 * 2 * 8,
    macs_32bit_per_s=4 * 2.4e9 * 2 * 4,
    vector_ops_per_s=4 * 2.4e9 * 2 * 4,
    memory_bytes_per_s=17.1e9,
    overhead_s=2e-6,  # assumed, as above
    memory_bytes=8 * GIB,
    energy=Energy(static_w=0.8 * 5),
)

# Jetson Orin Nano 8GB data sheet, before the "Super" clocks: 40 INT8 TOPS sparse, 20 dense; 1024
# CUDA cores at 625 MHz; 8 GB at 68 GB/s, which the CPU shares. Derived: half floats at half of
# the INT8 rate, as in every Ampere tensor core; floats one FMA per CUDA core and cycle. Power for
# as long as a layer takes: 15 W, the mode of these clocks.
JETSON_ORIN_NANO: Final = Roofline(
    name="jetson_orin_nano",
    macs_per_s=10e12,
    macs_16bit_per_s=5e12,
    macs_32bit_per_s=1024 * 625e6,
    vector_ops_per_s=1024 * 625e6,
    memory_bytes_per_s=68e9,
    overhead_s=10e-6,  # assumed: one kernel launch
    memory_bytes=8 * GIB,
    energy=Energy(static_w=15),
)

# Coral Edge TPU: 4 INT8 TOPS (coral.ai) and 8 MB of memory on the chip are published; the
# bandwidth of that memory is not. 6.8 GB/s is fitted: MobileNet v2 moves 17.6 MB through its
# layers and takes 2.6 ms (coral.ai, Edge TPU performance benchmarks). Larger networks reload
# weights over USB, which this does not price: so memory_bytes is the chip's. The chip does
# integers of 8 bits only; wider rates keep the formula total and mean nothing. The vector rate
# is assumed, high enough for traffic to decide. Power for as long as a layer takes: 2 W (coral.ai,
# frequently asked questions).
CORAL_EDGE_TPU: Final = Roofline(
    name="coral_edge_tpu",
    macs_per_s=2e12,
    vector_ops_per_s=50e9,
    memory_bytes_per_s=6.8e9,
    memory_bytes=8e6,
    energy=Energy(static_w=2),
)

# Hailo-8 product brief: 26 INT8 TOPS, 2.5 W typical, both second-hand. It has no DRAM; how large
# and how fast its own memory is, is not published. 43 GB/s is fitted as Coral's: MobileNet v2 moves
# 17.6 MB through its layers 2,434 times a second (Hailo Model Zoo 2.11, batch 1). The chip works on
# all layers at once, for images in succession: so this is a rate, and one image takes longer. It
# keeps weights beside their multipliers, and this does not: ResNet-50 comes to 661 a second where
# they publish 1,394. The vector rate is assumed, high enough for traffic to decide.
HAILO_8: Final = Roofline(
    name="hailo_8",
    macs_per_s=13e12,
    vector_ops_per_s=400e9,
    memory_bytes_per_s=43e9,
    energy=Energy(static_w=2.5),
)

# Phone: the deep-learning accelerator of a MediaTek 5G phone in 7 nm (ISSCC 2020, paper 7.1, title
# and abstract): 3.6 TOPS at INT8, 3.4 to 13.3 TOPS/W, and of the phone's 10 to 30 GB/s no more
# than 10 for it. Derived: the power for as long as a layer takes from the lowest efficiency,
# without the DRAM's; half the rate at 16 bits. The vector rate is assumed, high enough for traffic
# to decide.
MEDIATEK_DLA: Final = Roofline(
    name="mediatek_dla",
    macs_per_s=1.8e12,
    vector_ops_per_s=100e9,
    memory_bytes_per_s=10e9,
    energy=Energy(static_w=3.6 / 3.4),
)

# NVIDIA A100 80GB SXM data sheet, dense: 624 INT8 TOPS, 312 FP16 TFLOPS, 156 TF32 TFLOPS (what
# float32 products use by default), 19.5 FP32 TFLOPS outside the tensor cores, 2,039 GB/s. Power
# for as long as a layer takes: 400 W, its limit.
A100: Final = Roofline(
    name="a100",
    macs_per_s=312e12,
    macs_16bit_per_s=156e12,
    macs_32bit_per_s=78e12,
    vector_ops_per_s=9.75e12,
    memory_bytes_per_s=2.039e12,
    overhead_s=5e-6,  # assumed: one kernel launch
    memory_bytes=80e9,
    energy=Energy(static_w=400),
)

# NVIDIA H100 SXM data sheet, whose sparse rates are halved here: 1,979 INT8 TOPS, 989 FP16
# TFLOPS, 494.5 TF32 TFLOPS, 67 FP32 TFLOPS outside the tensor cores, 3.35 TB/s. Power for as long
# as a layer takes: 700 W, its limit.
H100: Final = Roofline(
    name="h100",
    macs_per_s=989.5e12,
    macs_16bit_per_s=494.5e12,
    macs_32bit_per_s=247.25e12,
    vector_ops_per_s=33.5e12,
    memory_bytes_per_s=3.35e12,
    overhead_s=5e-6,  # assumed: one kernel launch
    memory_bytes=80e9,
    energy=Energy(static_w=700),
)

# Google Cloud documentation, TPU v5e, a chip: 393 INT8 TOPS, 197 bf16 TFLOPS, 16 GB of HBM2 at
# 819 GB/s. It publishes no power. Derived: float32 at a third of the rate, in three bf16 passes.
# The vector rate is assumed.
TPU_V5E: Final = Roofline(
    name="tpu_v5e",
    macs_per_s=196.5e12,
    macs_16bit_per_s=98.5e12,
    macs_32bit_per_s=98.5e12 / 3,
    vector_ops_per_s=3e12,
    memory_bytes_per_s=819e9,
    overhead_s=5e-6,  # assumed, as the GPUs'
    memory_bytes=16e9,
)
