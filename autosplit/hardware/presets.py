"""Devices and networks by name, and devices by file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from autosplit.errors import InputError
from autosplit.hardware import device_presets, network_presets, systolic_presets
from autosplit.hardware.measured import load_device
from autosplit.hardware.network import Network
from autosplit.hardware.spec import Device

DEVICES: Final[Mapping[str, Device]] = {
    "eyeriss": device_presets.EYERISS,
    "tpu": device_presets.TPU,
    "raspberry_pi_4": device_presets.RASPBERRY_PI_4,
    "raspberry_pi_5": device_presets.RASPBERRY_PI_5,
    "jetson_orin_nano": device_presets.JETSON_ORIN_NANO,
    "coral_edge_tpu": device_presets.CORAL_EDGE_TPU,
    "hailo_8": device_presets.HAILO_8,
    "mediatek_dla": device_presets.MEDIATEK_DLA,
    "a100": device_presets.A100,
    "h100": device_presets.H100,
    "tpu_v5e": device_presets.TPU_V5E,
    **{device.name: device for device in systolic_presets.ALL},
}

NETWORKS: Final[Mapping[str, Network]] = {
    network.name: network for network in network_presets.ALL
}

DEVICE_FILE_SUFFIX: Final = ".json"

_T = TypeVar("_T")


def named_device(name: str) -> Device:
    """Returns a preset device, or one that was measured.

    Args:
      name: a key of `DEVICES`, or the path of a device file, which ends in ``.json``
        (``python -m experiments.measure_device`` writes one).

    Raises:
      InputError: if there is none of that name; the message lists the names.
      ArtefactError: the file is missing, damaged or no device file.

    >>> named_device("eyeriss").name
    'eyeriss'
    """
    if name.endswith(DEVICE_FILE_SUFFIX):
        return load_device(name)
    instead = f"name a device file (*{DEVICE_FILE_SUFFIX}) or pass an object"
    return _look_up(DEVICES, name, "device", instead)


def named_network(name: str) -> Network:
    """Returns a preset network.

    Args:
      name: a key of `NETWORKS`.

    Raises:
      InputError: if there is none of that name; the message lists the names.

    >>> named_network("paper_3mbps").uplink_s(224 * 224 * 3)  # raw 8-bit pixels
    0.3828125
    """
    return _look_up(NETWORKS, name, "network", "make one and pass the object")


def _look_up(presets: Mapping[str, _T], name: str, kind: str, instead: str) -> _T:
    if name not in presets:
        raise InputError(
            f"There is no preset {kind} {name!r}; expected one of {', '.join(presets)}. "
            f"For another {kind}, {instead}."
        )
    return presets[name]
