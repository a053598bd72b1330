"""A saved split runs as two processes that compute what one does, or says why not."""

import dataclasses
import importlib
import json
import shutil
import statistics
import subprocess

import numpy as np
import pytest

from tests.serving.process_case import (
    NETWORK,
    REQUESTS,
    ROOT,
    SIDES,
    assert_model_is_not_imported,
    assert_same_outputs,
    python,
    run_both,
    run_edge,
    running_server,
    save,
)


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
