"""Devices and networks by name.

The rooflines are peaks off data sheets and so optimistic: they rank layers and
devices, they do not predict a stopwatch. A figure that no data sheet states says
how it was derived. A MAC is two of a data sheet's operations, and only dense
rates are used, never those that assume half of the weights to be zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from autosplit.errors import InputError
from autosplit.hardware.network import Network
from autosplit.hardware.roofline import Roofline
from autosplit.hardware.spec import Device
from autosplit.hardware.tiled import Tiled

GIB: Final = 1024**3
# Auto-Split's experiments count a megabit as 1024 * 1024 bits.
PAPER_MBPS: Final = 1024**2

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
)

# 65,536 multipliers at 1464.844 MHz are 96.0 TMAC/s; the memory moves 13.0 GB/s.
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
)

# Raspberry Pi 4 Model B product brief: 4 Cortex-A72 at 1.8 GHz (1.5 GHz in early boards), 4 GB
# of 32-bit LPDDR4-3200 = 12.8 GB/s. MAC rates are derived, none is published: per core and
# cycle one 128-bit multiply-accumulate, 8 of int8 or 4 of float32. The core has neither dot
# product nor half floats. STREAM measures some 5.5 GB/s on it (sci-pi.org.uk), 43% of the peak.
RASPBERRY_PI_4: Final = Roofline(
    name="raspberry_pi_4",
    macs_per_s=4 * 1.8e9 * 8,
    macs_16bit_per_s=4 * 1.8e9 * 4,
    macs_32bit_per_s=4 * 1.8e9 * 4,
    vector_ops_per_s=4 * 1.8e9 * 4,
    memory_bytes_per_s=12.8e9,
    overhead_s=2e-6,  # assumed: dispatch of a layer to four threads
    memory_bytes=4 * GIB,
)

# Raspberry Pi 5 product brief: 4 Cortex-A76 at 2.4 GHz, 8 GB of 32-bit LPDDR4X-4267 = 17.1 GB/s.
# MAC rates are derived: two 128-bit pipes a core, each with dot product (16 int8 MACs a cycle),
# half floats (8) and floats (4).
RASPBERRY_PI_5: Final = Roofline(
    name="raspberry_pi_5",
    macs_per_s=4 * 2.4e9 * 2 * 16,
    macs_16bit_per_s=4 * 2.4e9 * 2 * 8,
    macs_32bit_per_s=4 * 2.4e9 * 2 * 4,
    vector_ops_per_s=4 * 2.4e9 * 2 * 4,
    memory_bytes_per_s=17.1e9,
    overhead_s=2e-6,  # assumed, as above
    memory_bytes=8 * GIB,
)

# Jetson Orin Nano 8GB data sheet, before the "Super" clocks: 40 INT8 TOPS sparse, 20 dense; 1024
# CUDA cores at 625 MHz; 8 GB at 68 GB/s, which the CPU shares. Derived: half floats at half of
# the INT8 rate, as in every Ampere tensor core; floats one FMA per CUDA core and cycle.
JETSON_ORIN_NANO: Final = Roofline(
    name="jetson_orin_nano",
    macs_per_s=10e12,
    macs_16bit_per_s=5e12,
    macs_32bit_per_s=1024 * 625e6,
    vector_ops_per_s=1024 * 625e6,
    memory_bytes_per_s=68e9,
    overhead_s=10e-6,  # assumed: one kernel launch
    memory_bytes=8 * GIB,
)

# Coral Edge TPU: 4 INT8 TOPS (coral.ai) and 8 MB of memory on the chip are published; the
# bandwidth of that memory is not. 6.8 GB/s is fitted: MobileNet v2 moves 17.6 MB through its
# layers and takes 2.6 ms (coral.ai, Edge TPU performance benchmarks). Larger networks reload
# weights over USB, which this does not price: so memory_bytes is the chip's. The chip does
# integers of 8 bits only; wider rates keep the formula total and mean nothing. The vector rate
# is assumed, high enough for traffic to decide.
CORAL_EDGE_TPU: Final = Roofline(
    name="coral_edge_tpu",
    macs_per_s=2e12,
    vector_ops_per_s=50e9,
    memory_bytes_per_s=6.8e9,
    memory_bytes=8e6,
)

# NVIDIA A100 80GB SXM data sheet, dense: 624 INT8 TOPS, 312 FP16 TFLOPS, 156 TF32 TFLOPS (what
# float32 products use by default), 19.5 FP32 TFLOPS outside the tensor cores, 2,039 GB/s.
A100: Final = Roofline(
    name="a100",
    macs_per_s=312e12,
    macs_16bit_per_s=156e12,
    macs_32bit_per_s=78e12,
    vector_ops_per_s=9.75e12,
    memory_bytes_per_s=2.039e12,
    overhead_s=5e-6,  # assumed: one kernel launch
    memory_bytes=80e9,
)

# NVIDIA H100 SXM data sheet, whose sparse rates are halved here: 1,979 INT8 TOPS, 989 FP16
# TFLOPS, 494.5 TF32 TFLOPS, 67 FP32 TFLOPS outside the tensor cores, 3.35 TB/s.
H100: Final = Roofline(
    name="h100",
    macs_per_s=989.5e12,
    macs_16bit_per_s=494.5e12,
    macs_32bit_per_s=247.25e12,
    vector_ops_per_s=33.5e12,
    memory_bytes_per_s=3.35e12,
    overhead_s=5e-6,  # assumed: one kernel launch
    memory_bytes=80e9,
)

DEVICES: Final[Mapping[str, Device]] = {
    "eyeriss": EYERISS,
    "tpu": TPU,
    "raspberry_pi_4": RASPBERRY_PI_4,
    "raspberry_pi_5": RASPBERRY_PI_5,
    "jetson_orin_nano": JETSON_ORIN_NANO,
    "coral_edge_tpu": CORAL_EDGE_TPU,
    "a100": A100,
    "h100": H100,
}

MESSAGE_OVERHEAD_BYTES: Final = 200  # assumed: HTTP/2 headers, gRPC prefix and a TLS record

NETWORKS: Final[Mapping[str, Network]] = {
    # Auto-Split's uplink and its sweep: no round trip, no overhead, as in its experiments.
    "paper_1mbps": Network(name="paper_1mbps", uplink_bits_per_s=1 * PAPER_MBPS),
    "paper_3mbps": Network(name="paper_3mbps", uplink_bits_per_s=3 * PAPER_MBPS),
    "paper_10mbps": Network(name="paper_10mbps", uplink_bits_per_s=10 * PAPER_MBPS),
    "paper_20mbps": Network(name="paper_20mbps", uplink_bits_per_s=20 * PAPER_MBPS),
    # 3G, 4G and Wi-Fi: mean rates in the USA that the literature on splitting uses (JointDNN,
    # IEEE Trans. Mobile Computing 2019); quoted second-hand, not checked against a copy. Round
    # trips: 3G 100 to 500 ms (Grigorik, "High Performance Browser Networking", table 7-2); 4G 57
    # to 65 ms (OpenSignal, State of Mobile Networks: USA, August 2016); Wi-Fi assumed.
    "3g": Network(
        name="3g",
        uplink_bits_per_s=1.1e6,
        downlink_bits_per_s=2.0275e6,
        round_trip_s=0.2,
        message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    ),
    "4g": Network(
        name="4g",
        uplink_bits_per_s=5.85e6,
        downlink_bits_per_s=13.76e6,
        round_trip_s=0.06,
        message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    ),
    # 17.9 and 186.3 Mbit/s: the best operator's means (Opensignal, USA 5G Experience Report,
    # January 2023). The round trip is assumed.
    "5g": Network(
        name="5g",
        uplink_bits_per_s=17.9e6,
        downlink_bits_per_s=186.3e6,
        round_trip_s=0.03,
        message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    ),
    "wifi": Network(
        name="wifi",
        uplink_bits_per_s=18.88e6,
        downlink_bits_per_s=54.97e6,
        round_trip_s=0.02,
        message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    ),
}

_T = TypeVar("_T")


def named_device(name: str) -> Device:
    """Returns a preset device.

    Args:
      name: a key of `DEVICES`.

    Raises:
      InputError: if there is none of that name; the message lists the names.

    >>> named_device("eyeriss").name
    'eyeriss'
    """
    return _look_up(DEVICES, name, "device")


def named_network(name: str) -> Network:
    """Returns a preset network.

    Args:
      name: a key of `NETWORKS`.

    Raises:
      InputError: if there is none of that name; the message lists the names.

    >>> named_network("paper_3mbps").uplink_s(224 * 224 * 3)  # raw 8-bit pixels
    0.3828125
    """
    return _look_up(NETWORKS, name, "network")


def _look_up(presets: Mapping[str, _T], name: str, kind: str) -> _T:
    if name not in presets:
        raise InputError(
            f"There is no preset {kind} {name!r}; expected one of {', '.join(presets)}. "
            f"For another {kind}, make one and pass the object."
        )
    return presets[name]
