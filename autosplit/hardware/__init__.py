"""Devices and networks: seconds and joules of a layer, and of a byte until it arrives."""

from autosplit.hardware.bandwidth_trace import BandwidthTrace, load_trace, synthetic_trace
from autosplit.hardware.device_presets import (
    A100,
    CORAL_EDGE_TPU,
    EYERISS,
    H100,
    HAILO_8,
    JETSON_ORIN_NANO,
    MEDIATEK_DLA,
    RASPBERRY_PI_4,
    RASPBERRY_PI_5,
    TPU,
    TPU_V5E,
)
from autosplit.hardware.energy import Energy
from autosplit.hardware.measured import LayerTime, Measured, load_device
from autosplit.hardware.network import Network
from autosplit.hardware.presets import DEVICES, NETWORKS, named_device, named_network
from autosplit.hardware.roofline import Roofline
from autosplit.hardware.spec import Device, PoweredDevice
from autosplit.hardware.systolic import Systolic
from autosplit.hardware.systolic_counts import Dataflow
from autosplit.hardware.tiled import Tiled

__all__ = [
    "A100",
    "CORAL_EDGE_TPU",
    "DEVICES",
    "EYERISS",
    "H100",
    "HAILO_8",
    "JETSON_ORIN_NANO",
    "MEDIATEK_DLA",
    "NETWORKS",
    "RASPBERRY_PI_4",
    "RASPBERRY_PI_5",
    "TPU",
    "TPU_V5E",
    "BandwidthTrace",
    "Dataflow",
    "Device",
    "Energy",
    "LayerTime",
    "Measured",
    "Network",
    "PoweredDevice",
    "Roofline",
    "Systolic",
    "Tiled",
    "load_device",
    "load_trace",
    "named_device",
    "named_network",
    "synthetic_trace",
]
