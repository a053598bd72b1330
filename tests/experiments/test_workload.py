"""The steps of a workload on a tiny random network: files, resuming, locking, wrong input."""

from __future__ import annotations

import copy
import csv
import json
import multiprocessing
import os
import pathlib
import shutil
import time
import types

import ml_collections
import numpy as np
import pytest

import autosplit
from experiments import (
    workload,
    workload_case,
    workload_evaluate,
    workload_scores,
    workload_statistics,
)
from experiments.workload_documents import digest, read_step
from experiments.workload_lock import LOCK, only_run

FILES = {
    "statistics": {"profile.npz", "layers.csv", "tensors.csv", "graph.txt"},
    "split": {"plans.json", "plans.csv", "baselines.json", "baselines.csv", "front.png",
              "plan.json"},
    "latency": {"latency.csv", "latency.png"},
    "evaluate": {"accuracy.csv"},
}  # fmt: skip
COLLECTED = {"workloads.csv", "workloads.png", "workloads.md", "workloads.json"}


@pytest.fixture(scope="module")
def config(tiny_workload):
    return tiny_workload


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """Returns the work directory of a whole run, and how often plans were compiled."""
    folder = tmp_path_factory.mktemp("workload") / "tiny"
    before = workload_scores.run_plan._cache_size()
    workload.run(config, folder)
    return folder, workload_scores.run_plan._cache_size() - before


@pytest.fixture
def copied(whole, tmp_path):
    """Returns a copy of a finished work directory."""
    return pathlib.Path(shutil.copytree(whole[0], tmp_path / "copy"))


def rows_of(folder, name):
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def changed(config, **values):
    other = copy.deepcopy(config).unlock()
    other.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in values.items()}
    )
    return other


# ---- Files and figures


def test_a_run_leaves_all_files_and_no_draft(whole):
    folder, _ = whole
    documents = {f"{name}.json" for name in FILES}
    expected = set().union(*FILES.values()) | documents | COLLECTED | {LOCK, "scores"}
    assert {path.name for path in folder.iterdir()} == expected
    for name, files in FILES.items():
        assert set(read_step(folder, name)["files"]) == files


def test_every_step_has_its_run_record_and_what_it_was_made_of(whole, config):
    for name in FILES:
        document = read_step(whole[0], name)
        assert document["record"]["config"]["title"] == config.title
        assert document["settings_sha256"] == digest(document["settings"])
        assert document["step_s"] > 0
    record = json.loads((whole[0] / "workloads.json").read_text())["record"]
    assert record["config"]["model"]["name"] == "tiny"


def test_statistics_count_what_the_graph_has(whole):
    folder = whole[0]
    result, layers = read_step(folder, "statistics")["result"], rows_of(folder, "layers.csv")
    assert result["layers"] == len(layers)
    assert result["macs"] == sum(int(row["macs"]) for row in layers)
    # All weights but biases and batch norms.
    weights = sum(int(row["weights"]) for row in layers)
    assert weights < result["parameters"] < 1.2 * weights
    for row in rows_of(folder, "tensors.csv"):
        assert float(row["low"]) <= float(row["high"])
        assert float(row["quant_mse_8_bits"]) <= float(row["quant_mse_2_bits"])


def test_latency_is_the_sum_of_the_stages(whole):
    stages = ("edge_s", "pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s", "round_trip_s")
    rows = rows_of(whole[0], "latency.csv")
    plans = autosplit.Plans.load(whole[0] / "plans.json")
    others = autosplit.Plans.load(whole[0] / "baselines.json")
    assert len(rows) == len(plans) + len(others)
    for row in rows:
        total = sum(float(row[f"simulated_{stage}"]) for stage in stages)
        assert float(row["simulated_latency_s"]) == pytest.approx(total)


def test_the_halves_are_measured_beside_float(whole):
    found = read_step(whole[0], "latency")["result"]["measured"]
    halves_s = found["edge_s"] + found["pack_s"] + found["cloud_s"]
    assert found["float_s"] > 0
    assert found["halves_over_float"] == pytest.approx(halves_s / found["float_s"])


def test_every_plan_is_scored_and_the_solvers_errors_are_found_again(whole, config):
    folder = whole[0]
    rows = rows_of(folder, "accuracy.csv")
    plans = [*autosplit.Plans.load(folder / "plans.json"),
             *autosplit.Plans.load(folder / "baselines.json")]  # fmt: skip
    assert [row["plan"] for row in rows] == ["float", *(plan.label for plan in plans)]
    assert all(float(row["agreement"]) == 1 for row in rows if row["plan"] == "float")
    assert all(0 <= float(row["top1"]) <= float(row["top5"]) <= 1 for row in rows)
    calibrating = changed(config, images__limit=2)
    case = workload_case.Case(config=calibrating, workdir=folder)
    runner = workload_scores.Runner(case=case)
    few = [plan for plan in case.plans if plan.output_error][:3]
    assert few
    for plan in few:
        # Here in chunks, there all at once.
        found = runner.scores(plan)["output_error"]
        assert found == pytest.approx(plan.output_error, rel=1e-4)


def test_one_program_runs_all_plans(whole):
    assert whole[1] == 1


def test_the_table_tells_what_the_steps_found(whole):
    folder = whole[0]
    (row,) = rows_of(folder, "workloads.csv")
    statistics, split = (read_step(folder, name)["result"] for name in ("statistics", "split"))
    assert row["title"] == "Tiny"
    assert int(row["layers"]) == statistics["layers"]
    assert row["cut"] == split["chosen"]["cut"]
    raw = next(r for r in rows_of(folder, "latency.csv") if r["plan"] == "cloud-only (raw)")
    assert float(row["simulated_s cloud-only (raw)"]) == float(raw["simulated_latency_s"])
    assert "*random*" in (folder / "workloads.md").read_text()
    assert (folder / "workloads.png").read_bytes()[:4] == b"\x89PNG"


# ---- Finished steps and interruptions


def forbid(monkeypatch, name):
    def fail(*_, **__):
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(workload_case, name, fail)


def note_steps(monkeypatch):
    """Returns the list of the steps that would run from now on, in order."""
    names = []

    def note(case, name, after):
        names.append(name)
        return {"step": name, "changed": True}

    monkeypatch.setattr(workload, "_run_step", note)
    return names


def test_finished_steps_are_not_run_again_and_load_nothing(copied, config, monkeypatch):
    forbid(monkeypatch, "load_job")
    ran = note_steps(monkeypatch)
    skipped = {LOCK, *COLLECTED}
    before = {p: p.read_bytes() for p in copied.glob("*.*") if p.name not in skipped}
    assert workload.run(config, copied) == copied / "workloads.md"
    assert ran == []
    assert {p: p.read_bytes() for p in copied.glob("*.*") if p.name not in skipped} == before


@pytest.mark.parametrize(("values", "expected"), [
    ({"title": "Another", "evaluation__chunk": 3}, ["evaluate"]),
    ({"latency__repeats": 2}, ["latency"]),
    ({"constraints__output_error": 0.4}, ["split", "latency", "evaluate"]),
    ({"network__uplink_bits_per_s": 2e5}, list(FILES)),
])  # fmt: skip
def test_a_changed_setting_runs_what_depends_on_it(copied, config, monkeypatch, values, expected):
    ran = note_steps(monkeypatch)
    workload.run_workload(changed(config, **values), copied, "all")
    assert ran == expected


@pytest.mark.parametrize(("name", "expected"), [
    ("plans.json", ["split", "latency", "evaluate"]),
    ("split.json", ["split", "latency", "evaluate"]),
    ("latency.png", ["latency"]),
    ("accuracy.csv", ["evaluate"]),
])  # fmt: skip
@pytest.mark.parametrize("damage", ["delete", "trim"])
def test_a_missing_or_trimmed_file_is_made_again(
    copied, config, monkeypatch, name, expected, damage
):
    path, ran = copied / name, note_steps(monkeypatch)
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    workload.run_workload(config, copied, "all")
    assert ran == expected


def test_an_interrupted_evaluation_goes_on_with_the_next_plan(copied, config, monkeypatch):
    forbid(monkeypatch, "load_job")
    shutil.rmtree(copied / "scores")
    (copied / "evaluate.json").unlink()
    before, calls = rows_of(copied, "accuracy.csv"), []
    scores = {"images": 3, "top1": 0.5, "top5": 1.0, "agreement": 1.0, "output_error": 0.0}

    def score(runner, plan):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(plan)
        return scores

    monkeypatch.setattr(workload_scores.Runner, "scores", score)
    with pytest.raises(KeyboardInterrupt):
        workload.run(config, copied, "evaluate")
    assert len(list((copied / "scores").iterdir())) == 3
    assert not (copied / "evaluate.json").exists()
    monkeypatch.setattr(workload_scores.Runner, "scores",
                        lambda runner, plan: calls.append(plan) or scores)  # fmt: skip
    workload.run(config, copied, "evaluate")
    assert len(calls) == read_step(copied, "evaluate")["result"]["assignments"] + 1
    assert len({id(plan) for plan in calls}) == len(calls)
    after = rows_of(copied, "accuracy.csv")
    assert [row["plan"] for row in after] == [row["plan"] for row in before]
    assert {row["top1"] for row in after} == {"0.5"}


@pytest.mark.heavy
def test_an_interrupted_profile_leaves_no_document_and_goes_on(
    config, tmp_path, monkeypatch, whole
):
    """The second run takes the calls that the first has seen from its file."""
    profiled = autosplit.profile

    def interrupt(done, total):
        if done > 2:
            raise KeyboardInterrupt

    def stop(*arguments, **settings):
        return profiled(*arguments, **{**settings, "on_progress": interrupt})

    monkeypatch.setattr(autosplit, "profile", stop)
    with pytest.raises(KeyboardInterrupt):
        workload.run(config, tmp_path, "statistics")
    assert not (tmp_path / "statistics.json").exists()
    assert (tmp_path / "statistics.partial.npz").exists()
    monkeypatch.setattr(autosplit, "profile", profiled)
    workload.run(config, tmp_path, "statistics")
    assert not (tmp_path / "statistics.partial.npz").exists()
    assert rows_of(tmp_path, "tensors.csv") == rows_of(whole[0], "tensors.csv")


def test_the_start_of_another_profile_does_not_count(config, tmp_path, monkeypatch, capsys):
    partial = tmp_path / workload_statistics.PARTIAL
    partial.write_bytes(b"of another run")

    def profile(case, path):
        if path.exists():
            raise autosplit.errors.PlanMismatchError("it is of another run.")
        return "new"

    monkeypatch.setattr(workload_statistics, "_profile_from", profile)
    case = workload_case.Case(config=config, workdir=tmp_path)
    assert workload_statistics._profile(case) == "new"
    assert not partial.exists()
    assert "does not count: it is of another run." in capsys.readouterr().out


def test_a_step_runs_those_that_it_needs_and_no_others(config, tmp_path, monkeypatch):
    ran = note_steps(monkeypatch)
    workload.run(config, tmp_path, "evaluate")
    assert ran == ["statistics", "split", "evaluate"]


def test_no_split_that_keeps_the_limits_is_told(copied, config):
    none = changed(config, constraints__memory_bytes=1)
    none.constraints = ml_collections.ConfigDict({"memory_bytes": 1, "quant_mse": 0.1})
    workload.run(none, copied, "latency")
    assert not (copied / "plan.json").exists()
    assert read_step(copied, "split")["result"]["no_split_because"]
    workload.run(none, copied, "collect")
    assert "none keeps the limits" in (copied / "workloads.md").read_text()


# ---- Several workloads


def test_all_workloads_get_a_folder_each_and_one_table(whole, config, tmp_path, monkeypatch):
    for name in ("one", "two"):
        shutil.copytree(whole[0], tmp_path / name)
    ran = note_steps(monkeypatch)
    both = ml_collections.ConfigDict({"workloads": {"one": config, "two": config}})
    page = workload.run(both, tmp_path)
    assert ran == []
    assert page == tmp_path / "workloads.md"
    assert [row["workload"] for row in rows_of(tmp_path, "workloads.csv")] == ["one", "two"]


# ---- Two runs at once


def test_a_second_run_says_who_holds_the_work_directory(config, tmp_path):
    held = f"in use by process {os.getpid()} on "
    with only_run(tmp_path), pytest.raises(autosplit.errors.InputError, match=held):
        workload.run(config, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


def hold(folder, ready):
    with only_run(pathlib.Path(folder)):
        ready.set()
        time.sleep(60)


@pytest.mark.heavy
def test_the_end_of_a_process_frees_its_work_directory(config, tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(autosplit.errors.InputError, match=f"in use by process {process.pid} "):
            workload.run(config, tmp_path)
    finally:
        process.kill()
        process.join(30)
    with only_run(tmp_path):
        pass


def test_a_workload_that_another_run_holds_stops_all_of_them(config, tmp_path):
    both = ml_collections.ConfigDict({"workloads": {"one": config}})
    with only_run(tmp_path / "one"), pytest.raises(autosplit.errors.InputError, match="in use"):
        workload.run(both, tmp_path)


def test_a_profile_of_another_network_is_refused(copied, config):
    case = workload_case.Case(config=config, workdir=copied)
    case.__dict__["traced"] = (types.SimpleNamespace(fingerprint="another"), {})
    with pytest.raises(autosplit.errors.PlanMismatchError, match=r"Delete .*statistics\.json"):
        case.checked_profile()


def test_scores_that_are_not_finite_are_infinite_errors():
    line = workload_evaluate.one_line({"images": 1, "output_error": np.inf, "map": 0.5})
    assert line == "mAP 50.0 %, output error inf"
