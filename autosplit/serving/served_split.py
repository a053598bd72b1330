"""ServedSplit: the cloud half of a split on every device, compiled for the batches that pay."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from autosplit.errors import InputError
from autosplit.execution.halves import Split
from autosplit.execution.manifest import Manifest
from autosplit.serving import codec

Payload = tuple[np.ndarray, ...]

_ROUNDS = 7  # of measurement; over several, since something else may run during one
_MEASURE_S = 3.0  # no further round after that
_GAIN = 0.95
"""A larger batch must take at most this part of the time per request of the best smaller one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computed:
    """What the cloud half made of a batch.

    Attributes:
      outputs: one tuple of arrays per request.
      unpack_s, cloud_s: of the whole batch: each of its requests took that long.
    """

    outputs: list[tuple[np.ndarray, ...]]
    unpack_s: float
    cloud_s: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ServedSplit:
    """A split that is ready to compute; made by `compile_split`.

    Attributes:
      manifest: of the split.
      on_devices: the split with its cloud weights on each device.
      devices: in the same order.
      batch_s: measured seconds of each batch size that is used; size 1 always is.
    """

    manifest: Manifest
    on_devices: tuple[Split, ...]
    devices: tuple[jax.Device, ...]
    batch_s: Mapping[int, float]

    def batch_size(self, waiting: int) -> int:
        """Returns the size to compute next: that which serves most requests per second.

        Args:
          waiting: requests for this split, at least one; a batch may be larger than that.
        """
        return max(self.batch_s, key=lambda size: min(size, waiting) / self.batch_s[size])

    @property
    def request_s(self) -> float:
        """Seconds of device time per request when many wait."""
        return min(seconds / size for size, seconds in self.batch_s.items())

    def compute(self, device: int, payloads: Sequence[Payload], size: int) -> Computed:
        """Runs the cloud half; called on a thread of the device, never on two at once.

        Args:
          device: index into ``devices``.
          payloads: of one request or more.
          size: of the compiled batch; the last payload is repeated up to it.

        Returns:
          The outputs of each request, on the host, and the times.
        """
        split = self.on_devices[device]
        with jax.default_device(self.devices[device]):
            if size == 1:
                return _compute_one(split, payloads[0])
            return _compute_batch(split, payloads, size)


def compile_split(
    split: Split, devices: Sequence[jax.Device], batch_sizes: Sequence[int]
) -> ServedSplit:
    """Compiles the stages on every device and measures which batches pay.

    A batch pays when it takes less time per request than the best smaller one by 5 %. XLA on
    a CPU runs some networks no faster in batches; those are then never computed in batches.

    Args:
      split: with at least one crossing tensor and its cloud half loaded.
      devices: at least one.
      batch_sizes: ascending, 1 first; larger ones are ignored where the split was saved
        without batches.

    Returns:
      The split, ready to compute.

    Raises:
      InputError: nothing crosses the cut.
      ProtocolError: the outputs have another count, shape or type than the manifest says.
    """
    manifest = split.manifest
    if not manifest.crossing:
        raise InputError(
            f"Split {manifest.split_id} sends nothing: the edge computes the outputs. "
            "Run the edge alone, or choose a plan with a cloud half."
        )
    several = len(devices) > 1
    served = ServedSplit(
        manifest=manifest,
        on_devices=tuple(split.on_device(one) if several else split for one in devices),
        devices=tuple(devices),
        batch_s={},
    )
    zeros = tuple(np.zeros(spec.payload_bytes, np.uint8) for spec in manifest.crossing)
    measured_s = _measure(served, zeros, batch_sizes if split.batches else (1,))
    batch_s: dict[int, float] = {}
    for size, seconds in measured_s.items():
        if seconds / size <= _GAIN * min((s / n for n, s in batch_s.items()), default=np.inf):
            batch_s[size] = seconds
    served = dataclasses.replace(served, batch_s=batch_s)
    for device in range(1, len(devices)):
        for size in batch_s:
            served.compute(device, [zeros] * size, size)
    return served


def _measure(served: ServedSplit, zeros: Payload, sizes: Sequence[int]) -> dict[int, float]:
    """Returns the least seconds of each batch on the first device, after all were compiled.

    The least, because what else the machine does makes a batch take longer and never shorter.
    """
    for size in sizes:
        for outputs in served.compute(0, [zeros] * size, size).outputs:
            codec.check_values(served.manifest.outputs, outputs)
    least_s = dict.fromkeys(sizes, float("inf"))
    began_s = time.perf_counter()
    for _ in range(_ROUNDS if len(sizes) > 1 else 1):
        for size in sizes:
            started_s = time.perf_counter()
            served.compute(0, [zeros] * size, size)
            least_s[size] = min(least_s[size], time.perf_counter() - started_s)
        if time.perf_counter() - began_s > _MEASURE_S:
            break
    return least_s


def _compute_one(split: Split, payload: Payload) -> Computed:
    started_s = time.perf_counter()
    codes = jax.block_until_ready(split.unpack(payload))
    unpacked_s = time.perf_counter()
    outputs = _on_host(split.cloud_outputs(codes))
    computed_s = time.perf_counter()
    return Computed(
        outputs=[outputs], unpack_s=unpacked_s - started_s, cloud_s=computed_s - unpacked_s
    )


def _compute_batch(split: Split, payloads: Sequence[Payload], size: int) -> Computed:
    started_s = time.perf_counter()
    padded = [*payloads, *[payloads[-1]] * (size - len(payloads))]
    stacked = tuple(np.stack(tensor) for tensor in zip(*padded, strict=True))
    codes = jax.block_until_ready(split.unpack_batch(stacked))
    unpacked_s = time.perf_counter()
    outputs = _on_host(split.cloud_outputs_batch(codes))
    computed_s = time.perf_counter()
    return Computed(
        outputs=[tuple(leaf[index] for leaf in outputs) for index in range(len(payloads))],
        unpack_s=unpacked_s - started_s,
        cloud_s=computed_s - unpacked_s,
    )


def _on_host(outputs: Sequence[Any]) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(leaf) for leaf in outputs)
