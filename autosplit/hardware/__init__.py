"""Devices and networks: how long a layer takes, how long a byte takes to arrive."""

from autosplit.hardware.network import Network
from autosplit.hardware.presets import (
    A100,
    CORAL_EDGE_TPU,
    DEVICES,
    EYERISS,
    H100,
    JETSON_ORIN_NANO,
    NETWORKS,
    RASPBERRY_PI_4,
    RASPBERRY_PI_5,
    TPU,
    named_device,
    named_network,
)
from autosplit.hardware.roofline import Roofline
from autosplit.hardware.spec import Device
from autosplit.hardware.tiled import Tiled

__all__ = [
    "A100",
    "CORAL_EDGE_TPU",
    "DEVICES",
    "EYERISS",
    "H100",
    "JETSON_ORIN_NANO",
    "NETWORKS",
    "RASPBERRY_PI_4",
    "RASPBERRY_PI_5",
    "TPU",
    "Device",
    "Network",
    "Roofline",
    "Tiled",
    "named_device",
    "named_network",
]
