"""Saved splits of traced networks run in two real processes as they do in this one."""

import contextlib
import dataclasses
import importlib
import json
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import autosplit
from autosplit.execution import artefact
from autosplit.hardware import EYERISS, TPU
from autosplit.serving.cloud_server import serving
from autosplit.serving.edge_client import connect
from autosplit.serving.streaming import StreamOptions

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = autosplit.Network(uplink_bits_per_s=1e6, round_trip_s=0.01)
REQUESTS = 3
SIDES = {
    "edge": ("manifest.json", "edge.stablehlo", "edge_unpack.stablehlo", "edge_weights.bin"),
    "cloud": ("manifest.json", "cloud.stablehlo", "cloud_batch.stablehlo", "cloud_weights.bin"),
}


class Net(nn.Module):
    """Small, with a residual connection and nested outputs."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        y = nn.relu(nn.Conv(4, (3, 3))(x))
        x = x + nn.Conv(4, (3, 3))(y)
        return {"scores": nn.Dense(5)(x.mean((1, 2))), "largest": x.max()}


def pick(params, ids, x):
    """Makes integers on the way: the positions of the largest rows."""
    rows = params["table"][ids] * x
    order = jnp.argsort(-rows.sum(axis=1))
    return jnp.tanh(rows[order] @ params["mix"]), order


@dataclasses.dataclass(frozen=True)
class Case:
    """A split, the inputs of its requests, and the outputs that it gives in this process."""

    split: autosplit.Split
    inputs: tuple[np.ndarray, ...]

    def outputs(self, request):
        payload = self.split.edge(*(array[request] for array in self.inputs))
        return [np.asarray(out) for out in self.split.cloud_outputs(self.split.unpack(payload))]


@pytest.fixture(scope="module")
def traced():
    net = Net()
    images = np.random.default_rng(0).uniform(-1, 1, (REQUESTS, 1, 12, 12, 3)).astype(np.float32)
    params = jax.jit(net.init)(jax.random.key(0), images[0])
    return autosplit.trace(net.apply, params, images[0]), params, images


@pytest.fixture(scope="module")
def plans(traced):
    graph, params, images = traced
    profile = autosplit.profile(
        graph, params, images, edge=EYERISS, cloud=TPU, network=NETWORK, bits=(3, 5, 8)
    )
    return autosplit.solve(profile)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def saved(make_case, tmp_path_factory):
    """The planned case, its directory, and an npz file with its requests."""
    folder = tmp_path_factory.mktemp("saved")
    return save(make_case["planned"](), folder), folder


def save(case, folder):
    """Writes the split, a copy for each side that lacks the other's files, and the requests."""
    case.split.save(folder / "split")
    for side, names in SIDES.items():
        (folder / side).mkdir()
        for name in names:
            if (folder / "split" / name).exists():
                shutil.copy(folder / "split" / name, folder / side / name)
    np.savez(folder / "in.npz", **{f"arg{i}": array for i, array in enumerate(case.inputs)})
    return case


def python(program, **options):
    """Returns the command of a program; it writes what it imports to its standard error."""
    given = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-X", "importtime", "-m", f"experiments.{program}", *given]


def run_edge(folder, **options):
    settings = {"split": folder / "edge", "inputs": folder / "in.npz",
                "output": folder / "out.json"} | options  # fmt: skip
    return subprocess.run(
        python("run_edge", **settings), cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@contextlib.contextmanager
def running_server(folder, **options):
    with (folder / "server.err").open("w") as errors:
        server = subprocess.Popen(
            python("serve_cloud", split=folder / "cloud", ready_file=folder / "ready", **options),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            yield server
        finally:
            server.kill()
            server.communicate()


def imported(stderr):
    return {line.rpartition("|")[2].strip() for line in stderr.splitlines() if "|" in line}


def assert_model_is_not_imported(stderr):
    modules = imported(stderr)
    assert {"jax", "autosplit.execution.artefact"} <= modules
    foreign = {"flax", "torch", "autosplit.models"}
    assert not {name for name in modules if foreign & {name, name.split(".")[0]}}
    assert not {name for name in modules if pathlib.Path(__file__).stem in name}


def assert_same_outputs(case, folder):
    with np.load(folder / "out.npz") as found:
        for request in range(REQUESTS):
            expected = case.outputs(request)
            assert len(found.files) == len(expected)
            for index, array in enumerate(expected):
                got = found[f"out{index}"][request]
                assert (got.dtype, got.shape) == (array.dtype, array.shape)
                assert got.tobytes() == array.tobytes()


def run_both(case, folder):
    """Runs a saved case in two processes and stops the server as a user does."""
    with running_server(folder) as server:
        run = run_edge(folder, ready_file=folder / "ready", repeat=2, warmup=1)
        assert run.returncode == 0, run.stderr[-2000:]
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
        assert not (folder / "ready").exists()
    assert_same_outputs(case, folder)
    assert_model_is_not_imported(run.stderr)
    assert_model_is_not_imported((folder / "server.err").read_text())
    return run


def test_two_processes_compute_what_one_does(saved):
    case, folder = saved
    assert 0 < sum(case.split.manifest.plan["on_edge"]) < len(case.split.manifest.plan["on_edge"])
    assert all(spec.bits <= 8 for spec in case.split.manifest.crossing)
    run = run_both(case, folder)
    report = json.loads((folder / "out.json").read_text())
    assert [len(repeats) for repeats in report["times"]] == [2] * REQUESTS
    totals = [one["total_s"] for repeats in report["times"] for one in repeats]
    assert report["measured"]["total_s"] == statistics.median(totals)
    assert min(totals) > NETWORK.round_trip_s
    assert report["predicted"] == case.split.manifest.predicted
    assert report["split_id"] == case.split.manifest.split_id
    assert [line.split()[0] for line in run.stdout.splitlines()][-1] == "total"
    assert not [path for path in folder.iterdir() if "tmp" in path.name]


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["cloud-only", "float", "several tensors", "integers"])
def test_every_kind_of_split_runs_in_two_processes(make_case, tmp_path, name):
    case = save(make_case[name](), tmp_path)
    crossing = case.split.manifest.crossing
    assert {
        "cloud-only": [(spec.bits, spec.shape) for spec in crossing] == [(8, (1, 12, 12, 3))],
        "float": all(spec.dtype == "float32" for spec in crossing),
        "several tensors": len(crossing) > 1,
        "integers": any(spec.dtype == "int32" for spec in crossing),
    }[name]
    options = {"shape_link": False} if not case.split.manifest.network else {}
    with running_server(tmp_path):
        run = run_edge(tmp_path, ready_file=tmp_path / "ready", **options)
    assert run.returncode == 0, run.stderr[-2000:]
    assert_same_outputs(case, tmp_path)


@pytest.mark.heavy
def test_an_edge_only_split_runs_without_a_server(make_case, tmp_path):
    case = save(make_case["edge-only"](), tmp_path)
    run = run_edge(tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    assert_same_outputs(case, tmp_path)
    assert_model_is_not_imported(run.stderr)


# ---- Wrong use


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


def test_without_a_server_the_edge_says_what_to_do(fails):
    assert "127.0.0.1:9 did not answer" in fails(address="127.0.0.1:9")
    assert "No cloud server wrote nowhere" in fails(ready_file="nowhere")
    assert "expected one of them" in fails()
    assert "expected one of them" in fails(address="127.0.0.1:9", ready_file="nowhere")


def test_a_directory_without_a_split_is_refused(fails, tmp_path):
    assert "manifest.json is no complete JSON file" in fails(split=tmp_path, address="127.0.0.1:9")
    (tmp_path / "manifest.json").write_text("{}")
    assert "has kind and version" in fails(split=tmp_path, address="127.0.0.1:9")


@pytest.mark.parametrize("name", SIDES["edge"])
def test_a_truncated_file_is_refused(saved, fails, tmp_path, name):
    shutil.copytree(saved[1] / "edge", tmp_path / "copy")
    whole = (tmp_path / "copy" / name).read_bytes()
    (tmp_path / "copy" / name).write_bytes(whole[: len(whole) // 2])
    assert name in fails(split=tmp_path / "copy", address="127.0.0.1:9")


def test_the_half_of_the_other_side_is_no_substitute(saved, fails):
    assert "edge.stablehlo cannot be read" in fails(split=saved[1] / "cloud", address="x:1")


@pytest.mark.parametrize(
    "arrays",
    [
        {"arg1": np.zeros((2, 1, 12, 12, 3), np.float32)},
        {"arg0": np.zeros((0, 1, 12, 12, 3), np.float32)},
        {"arg0": np.float32(0)},
        {"arg0": np.zeros((2, 1, 12, 12, 3)), "arg1": np.zeros((2, 1))},
        {},
    ],
)
def test_inputs_of_another_form_are_refused(fails, tmp_path, arrays):
    np.savez(tmp_path / "in.npz", **arrays)
    said = fails(inputs=tmp_path / "in.npz", address="127.0.0.1:9")
    assert "leading axis" in said


@pytest.mark.parametrize(
    "array", [np.zeros((2, 1, 9, 9, 3), np.float32), np.zeros((2, 1, 12, 12, 3), np.float64)]
)
def test_inputs_of_another_shape_or_type_are_refused_before_a_server_is_asked(
    fails, tmp_path, array
):
    np.savez(tmp_path / "in.npz", arg0=array)
    assert "inputs do not fit" in fails(inputs=tmp_path / "in.npz", address="127.0.0.1:9")


def test_a_file_that_is_no_npz_is_refused(fails, tmp_path):
    np.save(tmp_path / "in.npy", np.zeros(3))
    (tmp_path / "empty.npz").touch()
    for name in ("in.npy", "empty.npz", "missing.npz"):
        assert "Give an npz file" in fails(inputs=tmp_path / name, address="127.0.0.1:9")


def test_an_output_that_cannot_be_written_is_refused(fails, tmp_path):
    assert "ends in .json" in fails(output=tmp_path / "out.npz", address="127.0.0.1:9")


@pytest.mark.heavy
@pytest.mark.parametrize("program", ["run_edge", "serve_cloud"])
def test_a_program_that_fails_ends_with_status_1_and_one_sentence(saved, tmp_path, program):
    options = {"split": tmp_path / "nowhere"}
    if program == "run_edge":
        options |= {"inputs": saved[1] / "in.npz", "output": tmp_path / "out.json"}
    command = [one for one in python(program, **options) if one not in ("-X", "importtime")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert run.stderr.startswith(f"{program}: {tmp_path / 'nowhere' / 'manifest.json'} is no ")
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) == 1


# ---- Progress


@pytest.mark.parametrize(("requests", "lines"), [(1, 1), (9, 9), (20, 10), (101, 10)])
def test_the_edge_logs_few_lines(monkeypatch, requests, lines):
    program = importlib.import_module("experiments.run_edge")
    logged = []
    monkeypatch.setattr(program.logging, "info", lambda *words: logged.append(words))
    names = [field.name for field in dataclasses.fields(program.StageTimes)]
    times = program.StageTimes(**dict.fromkeys(names, 0.001))
    outputs, found = program.measure(lambda x: ((x,), times), [(i,) for i in range(requests)], 2)
    assert len(outputs) == requests
    assert found == [[times, times]] * requests
    assert len(logged) == lines
    assert logged[-1][1:3] == (requests, requests)


# ---- Streams


@pytest.fixture
def streams(saved, tmp_path, monkeypatch):
    """Returns a function that runs the edge program here as a stream, against a server here."""
    folder = saved[1]
    program = importlib.import_module("experiments.run_edge")

    def run(**options):
        defaults = {
            "camera": None, "model": None, "frames": 0, "stream": True, "alternatives": (),
            "streaming": program.StreamOptions(in_flight=2), "security": None,
            "allow_insecure": False, "ready_file": None, "repeat": 1, "warmup": 1,
            "shape_link": None, "connect_timeout_s": 10.0, "timeout_s": 30.0,
        }  # fmt: skip
        with serving(folder / "cloud") as address:
            program.run(program.RunOptions(**{
                **defaults, "split": str(folder / "edge"), "inputs": (str(folder / "in.npz"),),
                "output": tmp_path / "out.json", "address": address, **options,
            }))  # fmt: skip
        return json.loads((tmp_path / "out.json").read_text())

    return run


def test_a_stream_gives_what_single_requests_give(saved, streams, tmp_path):
    case, _ = saved
    report = streams()
    assert_same_outputs_of_stream(case, tmp_path, range(REQUESTS))
    assert report["counts"] == {"cloud": REQUESTS}
    assert report["network"] is None
    assert [answer["frame"] for answer in report["answers"]] == list(range(REQUESTS))
    assert report["plans"] == [
        {"split_id": case.split.manifest.split_id, "label": case.split.manifest.label}
    ]
    assert report["measured"]["total_s"] == statistics.median(
        answer["times"]["total_s"] for answer in report["answers"]
    )


def test_a_stream_takes_alternatives_and_a_part_of_the_frames(
    saved, make_case, streams, tmp_path
):
    case, _ = saved
    make_case["edge-only"]().split.save(tmp_path / "alone")
    report = streams(alternatives=(str(tmp_path / "alone"),), frames=2, shape_link=True)
    assert_same_outputs_of_stream(case, tmp_path, range(2))
    assert report["network"] == case.split.manifest.network
    assert [plan["label"] for plan in report["plans"]][1] == "edge-only"


def test_photographs_are_streamed_and_sent_one_by_one_alike(streams, tmp_path):
    for index in range(2):
        image = np.full((20, 24, 3), 90 * index, np.uint8)
        PIL.Image.fromarray(image).save(tmp_path / f"{index}.png")
    outputs = []
    for stream in (True, False):
        streams(inputs=(str(tmp_path),), stream=stream, shape_link=False)
        with np.load(tmp_path / "out.npz") as found:
            outputs.append({name: found[name] for name in found.files if name != "frame"})
    assert outputs[0].keys() == outputs[1].keys()
    for name, array in outputs[0].items():
        np.testing.assert_array_equal(array, outputs[1][name])


def test_alternatives_are_of_no_use_without_a_stream(fails, tmp_path):
    assert "Add --stream" in fails(alternatives=[str(tmp_path)], address="127.0.0.1:9")


@pytest.mark.heavy
def test_a_server_process_that_is_killed_and_started_again_loses_no_frame(saved):
    case, folder = saved
    split = artefact.load(folder / "edge", sides=("edge",))
    frames = [tuple(array[at % REQUESTS] for array in case.inputs) for at in range(60)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_server(folder))
        address = wait_for(folder / "ready")
        client = stack.enter_context(connect(split, address))
        stream = client.stream(frames, StreamOptions(in_flight=3, patience_s=None))
        answers = [next(stream) for _ in range(20)]
        server.kill()
        server.wait()
        (folder / "ready").unlink()
        stack.enter_context(running_server(folder, address=address))
        answers += stream
    assert [answer.frame for answer in answers] == list(range(60))
    for answer in answers:
        assert answer.error is None
        for got, want in zip(answer.outputs, case.outputs(answer.frame % REQUESTS), strict=True):
            assert got.tobytes() == want.tobytes()


def wait_for(ready, timeout_s=60.0):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if ready.exists():
            return ready.read_text().strip()
        time.sleep(0.05)
    raise TimeoutError(f"no server wrote {ready}")


def assert_same_outputs_of_stream(case, folder, frames):
    with np.load(folder / "out.npz") as found:
        assert found["frame"].tolist() == list(frames)
        for frame in frames:
            for index, array in enumerate(case.outputs(frame)):
                assert found[f"out{index}"][frame].tobytes() == array.tobytes()
