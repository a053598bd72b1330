import contextlib
import importlib
import json
import pathlib
import signal
import statistics
import subprocess
import sys

import numpy as np
import pytest

from autosplit.errors import InputError

LAUNCHER = pathlib.Path(__file__).with_name("two_processes.py")
REQUESTS = 3


@pytest.fixture
def inputs(tmp_path):
    values = np.random.default_rng(1).uniform(0, 15, (REQUESTS, 4, 6)).astype(np.float32)
    np.savez(tmp_path / "in.npz", arg0=values)
    return values


@pytest.fixture
def program(monkeypatch):
    """Yields `experiments.run_edge`, loaded without the package that reads saved splits."""
    monkeypatch.setitem(sys.modules, "autosplit.execution.artefact", object())
    yield importlib.import_module("experiments.run_edge")
    del sys.modules["experiments.run_edge"]


def command(module, **options):
    given = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, str(LAUNCHER), f"experiments.{module}", *given]


def run_edge(folder, **options):
    settings = {"split": "any", "inputs": folder / "in.npz", "output": folder / "out.json"}
    return subprocess.run(
        command("run_edge", **(settings | options)), capture_output=True, text=True, timeout=120
    )


@contextlib.contextmanager
def running_server(ready_file):
    server = subprocess.Popen(
        command("serve_cloud", split="any", ready_file=ready_file),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield server
    finally:
        server.kill()
        server.communicate()


def test_two_processes_compute_what_one_does(split, inputs, tmp_path):
    ready_file = tmp_path / "ready"
    with running_server(ready_file) as server:
        run = run_edge(tmp_path, ready_file=ready_file, repeat=2, warmup=1)
        assert run.returncode == 0, run.stderr
        assert ready_file.read_text().strip() in server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
        assert not ready_file.exists()
    with np.load(tmp_path / "out.npz") as outputs:
        for index, image in enumerate(inputs):
            expected = split.cloud_outputs(split.edge_layers(image))
            np.testing.assert_array_equal(outputs["out0"][index], expected[0])
            np.testing.assert_array_equal(outputs["out1"][index], expected[1])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [len(repeats) for repeats in report["times"]] == [2] * REQUESTS
    totals = [one["total_s"] for repeats in report["times"] for one in repeats]
    assert report["measured"]["total_s"] == statistics.median(totals)
    assert min(totals) > split.manifest.network["round_trip_s"]
    assert report["predicted"] == split.manifest.predicted
    assert report["split_id"] == split.manifest.split_id
    assert [line.split()[0] for line in run.stdout.splitlines()][-1] == "total"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.npz", "out.json", "out.npz"]


def test_an_edge_only_split_runs_without_a_server(split, inputs, tmp_path):
    run = run_edge(tmp_path, split="edge")
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "out.npz") as outputs:
        expected = split.cloud_outputs(split.edge_layers(inputs[-1]))
        np.testing.assert_array_equal(outputs["out1"][-1], expected[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "127.0.0.1:9"}, "127.0.0.1:9 did not answer"),
        ({"ready_file": "nowhere", "connect_timeout_s": 0.1}, "No cloud server wrote nowhere"),
        ({}, "expected one of them"),
    ],
)
def test_without_a_server_the_edge_says_what_to_do(inputs, tmp_path, options, words):
    run = run_edge(tmp_path, **options)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("run_edge: ")
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "arrays",
    [
        {"arg1": np.zeros((2, 4, 6), np.float32)},
        {"arg0": np.zeros((0, 4, 6), np.float32)},
        {"arg0": np.float32(0)},
        {"arg0": np.zeros((2, 4, 6)), "arg1": np.zeros((2, 1))},
        {},
    ],
)
def test_inputs_of_another_form_are_refused(split, tmp_path, program, arrays):
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(InputError, match="leading axis"):
        program.load_requests(tmp_path / "in.npz", split.manifest.inputs)


def test_a_file_that_is_no_npz_is_refused(split, tmp_path, program):
    np.save(tmp_path / "in.npy", np.zeros(3))
    (tmp_path / "empty.npz").touch()
    for name in ("in.npy", "empty.npz", "missing.npz"):
        with pytest.raises(InputError, match="Give an npz file"):
            program.load_requests(tmp_path / name, split.manifest.inputs)
