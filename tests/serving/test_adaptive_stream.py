"""A stream follows the measured bandwidth of a shaped link from plan to plan."""

import dataclasses
import itertools
import time

import numpy as np
import pytest

from autosplit.execution.manifest import TensorSpec
from autosplit.hardware.network import Network
from autosplit.profiling.plan import SplitPlan, plan_to_json
from autosplit.serving.cloud_server import serving
from autosplit.serving.edge_client import connect
from autosplit.serving.link import steady_conditions
from autosplit.serving.plan_switching import SwitchRule
from autosplit.serving.shaper import shaping
from autosplit.serving.streaming import StreamOptions

NETWORK = Network(uplink_bits_per_s=3e6, round_trip_s=0.001)
OPTIONS = StreamOptions(
    in_flight=2, probe_s=0.1, patience_s=None, rule=SwitchRule(hold_s=0.1), code_losslessly=False
)
LIMIT = 3_000  # frames, so that a stream that never switches ends


def plan_of(label, *, crosses, edge_s, uplink_bytes):
    return SplitPlan(
        label=label, fingerprint="f", cut_name="c", on_edge=(True, not crosses),
        crosses=(crosses,), encoding="packed", w_bits=(8, 32), a_bits=(8,),
        weight_ratio=(1.0, 1.0), activation_low=(0.0,), activation_high=(1.0,), edge_s=edge_s,
        pack_s=0.0, uplink_s=0.0, unpack_s=0.0, cloud_s=0.0, downlink_s=0.0, round_trip_s=0.0,
        uplink_bytes=uplink_bytes, downlink_bytes=0.0, edge_weight_bytes=1,
        edge_activation_bytes=1, quant_mse=0.0, predicted_output_error=0.0,
    )  # fmt: skip


class Plan:
    """Adds up a vector of 2,500 numbers: all of them cross, or 100, or none."""

    batches = False

    def __init__(self, manifest, manifest_bytes, group):
        self.manifest = manifest
        self.bytes = manifest_bytes
        self.group = group

    def edge_layers(self, x):
        parts = x.reshape(-1, self.group).sum(axis=1)
        return (parts if self.bytes else parts.sum(keepdims=True),)

    def pack(self, codes):
        return tuple(code.view(np.uint8) for code in codes)

    def unpack(self, payload):
        return tuple(np.frombuffer(bytes(data), np.float32) for data in payload)

    def cloud_outputs(self, codes):
        return (codes[0].sum(keepdims=True),)


def spec(name, size):
    return TensorSpec(name=name, shape=(size,), dtype="float32", bits=32, payload_bytes=4 * size)


@pytest.fixture
def plans(split):
    """Large, small and no messages; the less crosses, the longer the edge is said to take."""

    def make(label, identity, group, edge_s, size):
        plan = plan_of(label, crosses=size > 0, edge_s=edge_s, uplink_bytes=4.0 * size)
        manifest = dataclasses.replace(
            split.manifest, split_id=identity * 32, inputs=(spec("x", 2500),),
            crossing=(spec("parts", size),) if size else (), outputs=(spec("sum", 1),),
            network=dataclasses.asdict(NETWORK), label=label, plan=plan_to_json(plan),
        )  # fmt: skip
        return Plan(manifest, 4 * size, group)

    return [
        make("large", "a1", 1, 0.0, 2500),
        make("small", "b2", 25, 0.01, 100),
        make("edge-only", "c3", 1, 0.1, 0),
    ]


def camera(images):
    """Repeats the images at a camera's pace; ends, so that a stream that never switches does."""
    for image in itertools.islice(itertools.cycle(images), LIMIT):
        time.sleep(0.005)
        yield image


def link(bits_per_s):
    return steady_conditions(dataclasses.replace(NETWORK, uplink_bits_per_s=bits_per_s))


def frames():
    random = np.random.default_rng(0)
    return [random.integers(0, 9, 2500).astype(np.float32) for _ in range(8)]


def test_the_plan_follows_the_bandwidth_down_and_up_again(plans):
    """Best are: large above 8 Mbit/s or so, small above 36 kbit/s, edge-only below."""
    some, used, wanted = frames(), [], iter(["small", "edge-only", "small", "large", None])
    conditions = {"large": link(1e8), "small": link(1e6), "edge-only": link(2e4)}
    with (
        serving(plans[:2]) as address,
        shaping(address, conditions["large"]) as proxy,
        connect(plans[0], proxy.address, alternatives=plans[1:]) as client,
    ):
        target = "large"
        stream = client.stream(camera(some), OPTIONS)
        for answer in stream:
            assert answer.error is None
            assert answer.outputs[0] == some[answer.frame % len(some)].sum()
            used.append(answer.label)
            if answer.label == target and answer.bits_per_s is not None:
                if (target := next(wanted)) is None:
                    break
                proxy.reshape(conditions[target])
        stream.close()
    order = [label for label, _ in itertools.groupby(used)]
    assert order == ["large", "small", "edge-only", "small", "large"]

