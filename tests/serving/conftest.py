"""A split made of NumPy functions: a 4-bit tensor and a raw one cross, two outputs leave."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autosplit.execution.manifest import TensorSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeManifest:
    split_id: str
    inputs: tuple[TensorSpec, ...]
    crossing: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    network: dict
    predicted: dict
    label: str = "fake"
    plan: dict | None = None


class FakeSplit:
    batches = False

    def __init__(self, manifest):
        self.manifest = manifest

    def edge_layers(self, x):
        return np.clip(np.round(x), 0, 15).astype(np.uint8), x.mean(axis=0)

    def pack(self, codes):
        quantized, raw = codes
        low, high = quantized.reshape(-1, 2).T
        return low | high << 4, raw.view(np.uint8)

    def unpack(self, payload):
        packed, raw = payload
        quantized = np.stack([packed & 15, packed >> 4], axis=1).reshape(4, 6)
        return quantized, raw.view(np.float32)

    def cloud_outputs(self, codes):
        quantized, raw = codes
        return quantized @ np.arange(6, dtype=np.int32), raw * 2


MANIFEST = FakeManifest(
    split_id="ab" * 32,
    inputs=(TensorSpec(name="x", shape=(4, 6), dtype="float32", bits=32, payload_bytes=96),),
    crossing=(
        TensorSpec(name="relu", shape=(4, 6), dtype="uint8", bits=4, payload_bytes=12),
        TensorSpec(name="mean", shape=(6,), dtype="float32", bits=32, payload_bytes=24),
    ),
    outputs=(
        TensorSpec(name="scores", shape=(4,), dtype="int32", bits=32, payload_bytes=16),
        TensorSpec(name="doubled", shape=(6,), dtype="float32", bits=32, payload_bytes=24),
    ),
    network={"uplink_bits_per_s": 1e5, "round_trip_s": 0.02},
    predicted={"edge_s": 0.001, "latency_s": 0.05},
)


@pytest.fixture
def split():
    return FakeSplit(MANIFEST)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 15, (4, 6)).astype(np.float32)
