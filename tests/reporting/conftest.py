"""A small made-up network with plans and baselines: nothing here was profiled or run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from autosplit.hardware.network import Network
from autosplit.profiling.plan import FLOAT_BITS, SplitPlan
from autosplit.profiling.table import InputEncoding, Profile, Unquantized
from autosplit.reporting import Accuracy, Photograph, ReportData
from autosplit.solvers.constraints import Constraints, judge

LAYERS, BITS = 6, np.array([2, 4, 8])
CONSTRAINTS = Constraints(memory_bytes=64 << 10, output_error=0.02)


@pytest.fixture
def profile() -> Profile:
    """Return a chain of layers of which the fourth has no weight."""
    sizes = np.array([150_528, 40_000, 20_000, 10_000, 10_000, 4_000, 1_000])
    weights = np.array([1_000, 9_000, 20_000, 0, 90_000, 300_000])
    layers, tensors, cuts = LAYERS, LAYERS + 1, LAYERS + 1
    writes = np.arange(tensors) - 1
    reads = np.eye(layers, tensors, dtype=bool)
    on_edge = np.tril(np.ones((cuts, layers), bool), -1)
    crosses = np.eye(cuts, tensors, dtype=bool)
    crosses[-1] = False
    activation_error = np.outer(np.ones(tensors), [0.1, 0.01, 1e-4])
    activation_error[0] = 0
    unquantized = Unquantized(
        bits=16, latency_s=np.full(layers, 8e-3), energy_j=np.full(layers, 4e-3),
        weight_bytes=2 * weights, tensor_bytes=2 * sizes, pack_s=np.full(tensors, 2e-4),
        unpack_s=np.full(tensors, 2e-5), pack_j=np.full(tensors, 2e-6),
    )
    return Profile(
        fingerprint="f00d", clipping="mse", bits=BITS,
        layer_names=tuple(f"block.{i}.conv" for i in range(layers)),
        tensor_names=("input", *(f"block.{i}.conv" for i in range(layers))),
        macs=np.array([9, 8, 7, 0, 5, 4]) * 10**6,
        has_weight=weights > 0,
        weight_error=np.outer(weights > 0, [0.1, 0.01, 1e-4]), weight_gain=np.ones((layers, 3)),
        sensitivity="output",
        weight_ratio=np.ones((layers, 3)), weight_bytes=np.outer(weights, BITS) // 8,
        weight_group=np.arange(layers), activation_error=activation_error,
        activation_gain=np.ones((tensors, 3)), activation_low=np.zeros((tensors, 3)),
        activation_high=np.ones((tensors, 3)), tensor_bytes=np.outer(sizes, BITS) // 8,
        float_bytes=sizes * 4, edge_latency_s=np.full((layers, 3, 3), 4e-3),
        edge_energy_j=np.full((layers, 3, 3), 2e-3), pack_j=np.full((tensors, 3), 1e-6),
        cloud_latency_s=np.full(layers, 1e-4), pack_s=np.full((tensors, 3), 1e-4),
        unpack_s=np.full((tensors, 3), 1e-5), unquantized=unquantized, producer=writes, reads=reads,
        is_output=np.arange(tensors) == layers, on_edge=on_edge, crosses=crosses,
        cut_names=("cloud-only", *(f"after block.{i}.conv" for i in range(layers - 1)),
                   "edge-only"), open_cuts=False,
        response_bytes=4_000,
        input_encodings=(InputEncoding(name="raw", payload_bytes=150_528, lossless=True),),
        network=Network(uplink_bits_per_s=3e6, name="3 Mbit/s"),
        edge_name="toy edge", cloud_name="toy cloud",
    )


def make_plan(label: str, edge_layers: int, edge_ms: float, uplink_bytes: float,
              **changes: object) -> SplitPlan:
    """Return a plan of the made-up chain, judged by `CONSTRAINTS`."""
    on_edge = tuple(i < edge_layers for i in range(LAYERS))
    everything = edge_layers == LAYERS
    values: dict = {
        "label": label, "fingerprint": "f00d",
        "cut_name": {0: "cloud-only", LAYERS: "edge-only"}.get(
            edge_layers, f"after block.{edge_layers - 1}.conv"),
        "on_edge": on_edge,
        "crosses": tuple(t == edge_layers and not everything for t in range(LAYERS + 1)),
        "encoding": "packed",
        "w_bits": tuple((4 if i % 2 else 8) if on and i != 3 else FLOAT_BITS
                        for i, on in enumerate(on_edge)),
        "a_bits": tuple((8, 4, 2)[t % 3] if t <= edge_layers and edge_layers else FLOAT_BITS
                        for t in range(LAYERS + 1)),
        "weight_ratio": (1.0,) * LAYERS,
        "activation_low": (0.0,) * (LAYERS + 1), "activation_high": (1.0,) * (LAYERS + 1),
        "edge_s": edge_ms / 1e3, "pack_s": 2e-4, "uplink_s": uplink_bytes * 8 / 3e6,
        "unpack_s": 1e-4, "cloud_s": 2e-3, "downlink_s": 0.0 if everything else 4e-3,
        "round_trip_s": 0.0 if everything else 0.02,
        "uplink_bytes": uplink_bytes, "downlink_bytes": 4000.0,
        "edge_weight_bytes": 9_000 * edge_layers, "edge_activation_bytes": 20_000,
        "quant_mse": 0.02 * edge_layers, "predicted_output_error": 0.004 * edge_layers,
    }
    return judge(SplitPlan(**(values | changes)), CONSTRAINTS)


@pytest.fixture
def chosen() -> SplitPlan:
    """Return the plan that is split and run."""
    return make_plan("auto-split", 3, 15.0, 5_000, output_error=0.011, lower_bound=0.052)


@pytest.fixture
def plans(chosen: SplitPlan) -> tuple[SplitPlan, ...]:
    """Return Auto-Split's plans and one of every baseline; all but JPEG slower."""
    cloud = {"edge_weight_bytes": 0, "edge_activation_bytes": 0}
    return (
        chosen,
        make_plan("auto-split", 2, 9.0, 12_000, output_error=0.006),
        make_plan("auto-split", 4, 24.0, 4_000),
        make_plan("cloud-only (raw)", 0, 0.0, 150_528, encoding="raw", output_error=0.0, **cloud),
        make_plan("cloud-only (png)", 0, 0.0, 90_000, encoding="png", **cloud),
        make_plan("cloud-only (jpeg-q90)", 0, 0.0, 1_000, encoding="jpeg-q90",
                  error_is_predicted=False, **cloud),
        make_plan("edge-only", 6, 400.0, 0.0, output_error=0.035),
        make_plan("uniform 8-bit", 2, 30.0, 20_000),
    )


@pytest.fixture
def data(profile: Profile, plans: tuple[SplitPlan, ...], chosen: SplitPlan) -> ReportData:
    """Return a report with everything in it."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    stages = ("edge_s", "pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s", "round_trip_s")
    return ReportData(
        title="A toy network, split", network_name="ToyNet", profile=profile, plans=plans,
        chosen=chosen, constraints=CONSTRAINTS,
        record={"seed": 0, "git": {"commit": None, "dirty": None}, "config": {"bits": [2, 4, 8]}},
        measured={**dict.fromkeys(stages, 0.0123), "total_s": 0.0777},
        measured_note="median of 3 requests",
        accuracies=(Accuracy(label="float", images=20, correct=18),
                    Accuracy(label="auto-split", images=20, correct=17, same_as_float=18)),
        photographs=(
            Photograph(name="one", image=image, label="tench", float_prediction="tench",
                       split_prediction="goldfish", float_confidence=0.9, split_confidence=0.4),
            Photograph(name="two", image=image, label=None, float_prediction="crane",
                       split_prediction="crane"),
        ),
        photographs_note="made-up pixels",
        graph_svg='<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0h9"/></svg>',
    )


@pytest.fixture
def with_changes(data: ReportData) -> Callable[..., ReportData]:
    """Return a function that gives the report with other fields."""
    return lambda **changes: dataclasses.replace(data, **changes)
