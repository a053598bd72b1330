"""A split made of NumPy functions: a 4-bit tensor and a raw one cross, two outputs leave."""

from __future__ import annotations

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.execution.manifest import TensorSpec
from autosplit.hardware import EYERISS, TPU
from autosplit.serving import codec
from tests.serving.process_case import NETWORK, REQUESTS, Case, Net, pick, save
from tests.serving.server_case import CLIENT, Gate


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


@pytest.fixture
def frames():
    return list(np.random.default_rng(1).uniform(0, 15, (12, 4, 6)).astype(np.float32))


@pytest.fixture
def edge_only(split):
    """The same function, computed on the edge."""
    whole = type(split)(dataclasses.replace(split.manifest, split_id="cd" * 32, crossing=()))
    whole.edge_layers = lambda x: split.cloud_outputs(split.edge_layers(x))
    return whole


@pytest.fixture
def gate(split):
    gate = Gate(split)
    yield gate
    gate.opened.set()


@pytest.fixture
def make_request(split, images):
    """Returns a function from a request_id to a request; each has inputs of its own."""

    def make(request_id, client_id=CLIENT):
        payload = split.pack(split.edge_layers(np.roll(images, request_id, axis=0)))
        return codec.encode_request(split.manifest, payload, client_id, request_id)

    return make


@pytest.fixture(scope="session")
def traced():
    net = Net()
    images = np.random.default_rng(0).uniform(-1, 1, (REQUESTS, 1, 12, 12, 3)).astype(np.float32)
    params = jax.jit(net.init)(jax.random.key(0), images[0])
    return autosplit.trace(net.apply, params, images[0]), params, images


@pytest.fixture(scope="session")
def plans(traced):
    graph, params, images = traced
    profile = autosplit.profile(
        graph, params, images, edge=EYERISS, cloud=TPU, network=NETWORK, bits=(3, 5, 8)
    )
    return autosplit.solve(profile)


@pytest.fixture(scope="session")
def make_case(traced, plans):
    """Returns a function from the name of a case to the case."""
    graph, params, images = traced

    def planned(choose):
        plan = next(plan for plan in plans if choose(plan))
        return Case(autosplit.split(graph, params, plan, network=NETWORK), (images,))

    def at_cut(choose):
        cut = next(cut for cut in graph.cuts() if choose(cut))
        return Case(autosplit.split(graph, params, cut), (images,))

    def integers():
        random = np.random.default_rng(1)
        weights = {"table": random.normal(size=(7, 3)), "mix": random.normal(size=(3, 2))}
        weights = jax.tree.map(jnp.float32, weights)
        ids = random.integers(0, 7, (REQUESTS, 6)).astype(np.int32)
        x = random.normal(size=(REQUESTS, 6, 3)).astype(np.float32)
        whole = autosplit.trace(pick, weights, ids[0], x[0])
        # All but the last matrix product: the order crosses, and is an output too.
        cut = next(
            cut for cut in whole.cuts()
            if 0 < sum(cut.on_edge) < len(cut.on_edge)
            and any(whole.tensors[t].dtype == np.int32 for t in cut.crossing)
        )  # fmt: skip
        return Case(autosplit.split(whole, weights, cut), (ids, x))

    return {
        "planned": lambda: planned(lambda p: p.label == "auto-split" and not all(p.on_edge)),
        "cloud-only": lambda: planned(lambda p: p.encoding == "raw"),
        "edge-only": lambda: planned(lambda p: p.label == "edge-only"),
        "float": lambda: at_cut(lambda c: sum(c.on_edge) > 0 and len(c.crossing) == 1),
        "several tensors": lambda: at_cut(lambda c: sum(c.on_edge) > 0 and len(c.crossing) > 1),
        "integers": integers,
    }


@pytest.fixture(scope="session")
def saved(make_case, tmp_path_factory):
    """The planned case, its directory, and an npz file with its requests."""
    folder = tmp_path_factory.mktemp("saved")
    return save(make_case["planned"](), folder), folder


@pytest.fixture
def fails(saved, tmp_path, monkeypatch):
    """Returns a function that runs the edge program here and returns what it says."""
    _, folder = saved
    program = importlib.import_module("experiments.run_edge")

    def run(**options):
        values = {
            "split": folder / "edge", "inputs": folder / "in.npz", "output": tmp_path / "out.json",
            "address": None, "ready_file": None, "repeat": 1, "warmup": 1, "shape_link": True,
            "connect_timeout_s": 0.3, "timeout_s": 1.0, "camera": None, "model": None, "frames": 0,
            "stream": False, "alternatives": [], "in_flight": 3, "patience_s": 1.0, "ca": None,
            "certificate": None, "key": None, "token_file": None, "allow_insecure": False,
        } | options  # fmt: skip
        values["inputs"] = [str(values["inputs"])] if values["inputs"] else []
        monkeypatch.setattr(program.flags, "FLAGS", type("Values", (), values))
        before = set(tmp_path.iterdir())
        with pytest.raises(SystemExit) as caught:
            program.main(["run_edge"])
        assert set(tmp_path.iterdir()) == before
        assert caught.value.code.startswith("run_edge: ")
        return caught.value.code

    return run
