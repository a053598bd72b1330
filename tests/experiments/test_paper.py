"""The paper's experiments on a tiny random network: files, tables, resuming, wrong input."""

from __future__ import annotations

import copy
import csv
import functools
import json
import re
import types

import ml_collections
import numpy as np
import pytest

import autosplit
from autosplit.models import preprocessing, zoo
from autosplit.models.resnet import BasicBlock, ResNet
from configs.paper._base import make_config
from experiments import paper, paper_case, paper_page
from experiments.paper_plans import AUTO, EDGE, PNG, PREDICTED, RAW, UNIFORM
from experiments.paper_sweeps import BEST_PLAIN, HEURISTIC, LEAST_ENERGY, SAME_PLAN
from experiments.paper_tables import STAGE_FIELDS

EXPERIMENTS = ("comparison", "bandwidth", "error", "memory", "transmission", "energy")


pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Adds a model of two small blocks."""
    with pytest.MonkeyPatch.context() as patch:
        model = functools.partial(ResNet, stage_sizes=(1, 1), block=BasicBlock, features=8)
        patch.setitem(zoo.MODELS, "tiny", model)
        patch.setitem(preprocessing.INPUTS, "tiny", preprocessing.INPUTS["resnet18"])
        yield


@pytest.fixture(scope="module")
def config(unlabelled):
    config = make_config("tiny", "Tiny (random weights)", "random", memory_bytes=6000)
    config.images.source = str(unlabelled)
    config.images.limit = config.images.calibration = 2
    config.images.resize_pixels = config.images.crop_pixels = 32
    config.bits = (2, 4, 8)
    config.network.uplink_bits_per_s = 2e5
    # Random, but held to the output error as a trained network is.
    del config.constraints.quant_mse, config.sweeps.quant_mse
    config.constraints.output_error = 0.2
    config.sweeps.uplink_bits_per_s = (1e5, 2e5, 1e6)
    config.sweeps.output_error = (0.01, 0.2, 1.0)
    config.sweeps.memory_bytes = (3000, 6000, 100_000)
    config.sweeps.energy_networks = ("4g",)
    return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """Returns the work directory of a whole run."""
    folder = tmp_path_factory.mktemp("paper") / "tiny"
    paper.run(config, folder)
    return folder


def rows_of(workdir, name):
    with (workdir / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def latencies(rows, plan, needs="keeps_predicted"):
    """Returns the latencies of a plan by the value that was varied."""
    return {
        float(row["value"]): float(row["simulated_latency_s"])
        for row in rows if row["plan"] == plan and row[needs] == "True"
    }  # fmt: skip


def optimum(rows):
    """Returns the least latency of any split, edge-only or raw by value: the exact optimum."""
    found = [latencies(rows, plan) for plan in (PREDICTED, EDGE, RAW)]
    return {value: min(f[value] for f in found if value in f) for value in found[-1]}


# ---- Files and tables


def test_a_run_leaves_all_files_and_no_draft(workdir):
    tables = {f"{name}.csv" for name in EXPERIMENTS}
    plots = {f"{name}.png" for name in EXPERIMENTS}
    rest = {"profile.npz", "profile.json", "results.json", "paper.md"}
    assert {path.name for path in workdir.iterdir()} == tables | plots | rest
    assert all((workdir / name).read_bytes()[:4] == b"\x89PNG" for name in plots)


def test_whatever_is_simulated_says_so(workdir):
    page = (workdir / "paper.md").read_text()
    titles = re.findall(r"^#+ (.*)", page, re.M)
    assert len(titles) > 6
    assert all("simulated" in title for title in titles)
    heads = [line for line in page.splitlines() if "| ---" in line]
    for head in heads:
        columns = page.splitlines()[page.splitlines().index(head) - 1].split("|")
        assert all("simulated" in c for c in columns if re.search(r"latency|energy|radio", c))
    for name in EXPERIMENTS:
        columns = rows_of(workdir, name)[0]
        assert all(c.startswith("simulated_") for c in columns if re.search(r"_(s|j)$", c))


def test_random_weights_say_so(workdir):
    assert "The weights are random" in (workdir / "paper.md").read_text()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_latency_is_the_sum_of_the_stages(workdir, name):
    for row in rows_of(workdir, name):
        stages = sum(float(row[f"simulated_{stage}"]) for stage in STAGE_FIELDS)
        assert float(row["simulated_latency_s"]) == pytest.approx(stages)


def test_comparison_is_over_cloud_only_raw(workdir):
    rows = rows_of(workdir, "comparison")
    base = next(float(r["simulated_latency_s"]) for r in rows if r["plan"] == RAW)
    for row in rows:
        expected = float(row["simulated_latency_s"]) / base
        assert float(row["simulated_over_cloud_only"]) == pytest.approx(expected)
        assert row["measured_output_error"], row["plan"]
    plans = {row["plan"] for row in rows}
    assert {EDGE, RAW, PNG, "DADS", "neurosurgeon", HEURISTIC, "uniform 8-bit"} <= plans


def test_results_hold_the_rows_and_the_run_record(workdir, config):
    document = json.loads((workdir / "results.json").read_text())["body"]
    assert set(document["rows"]) == set(EXPERIMENTS)
    assert document["record"]["config"] == document["config"]
    assert document["config"]["title"] == config.title
    for name in EXPERIMENTS:
        written = [float(row["simulated_latency_s"]) for row in rows_of(workdir, name)]
        assert written == [row["simulated_latency_s"] for row in document["rows"][name]]


# ---- What must hold between plans


@pytest.mark.parametrize("name", ["bandwidth", "error", "memory"])
def test_more_of_anything_never_makes_the_optimum_slower(workdir, name):
    best = optimum(rows_of(workdir, name))
    ordered = [best[value] for value in sorted(best)]
    assert len(ordered) == 3
    assert (np.diff(ordered) <= 1e-12).all()


@pytest.mark.parametrize("name", ["error", "memory"])
@pytest.mark.parametrize("other", [UNIFORM, HEURISTIC])
def test_nothing_beats_the_optimum(workdir, name, other):
    rows = rows_of(workdir, name)
    best, found = optimum(rows), latencies(rows, other)
    assert found
    assert all(found[value] >= best[value] * (1 - 1e-9) for value in found)


def test_packing_is_never_slower_than_sixteen_bits(workdir):
    rows = rows_of(workdir, "transmission")
    packed, same, best = (latencies(rows, plan) for plan in (PREDICTED, SAME_PLAN, BEST_PLAIN))
    assert packed
    for value in packed:
        assert packed[value] <= best[value] * (1 + 1e-9)
        assert best[value] <= same[value] * (1 + 1e-9)


def test_least_energy_is_least(workdir):
    rows = rows_of(workdir, "energy")
    joules = {row["plan"]: float(row["simulated_energy_j"]) for row in rows}
    seconds = {row["plan"]: float(row["simulated_latency_s"]) for row in rows}
    assert joules[LEAST_ENERGY] <= joules[PREDICTED]
    assert seconds[PREDICTED] <= seconds[LEAST_ENERGY]


@pytest.mark.parametrize("name", ["bandwidth", "error", "memory"])
@pytest.mark.parametrize("plan", [AUTO, UNIFORM])
def test_what_is_said_to_keep_its_limit_does_so_as_measured(workdir, name, plan):
    rows = [row for row in rows_of(workdir, name) if row["plan"] == plan]
    limits = {"bandwidth": 0.2, "memory": 0.2}
    for row in rows:
        limit = limits.get(name, float(row["value"]))
        assert float(row["measured_output_error"]) <= limit * (1 + 1e-9)
    assert rows or (name, plan) == ("bandwidth", UNIFORM)


# ---- Resuming


@pytest.fixture
def copied(workdir, tmp_path):
    """Returns a copy of a finished work directory."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in workdir.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def forbid(monkeypatch, owner, name):
    def fail(*_, **__):
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(owner, name, fail)


def test_a_finished_workload_is_not_run_again(copied, config, monkeypatch):
    forbid(monkeypatch, paper, "make_case")
    before = {path: path.read_bytes() for path in copied.iterdir()}
    assert paper.run(config, copied) == copied / "paper.md"
    assert {path: path.read_bytes() for path in copied.iterdir()} == before


def changed(config, name, value):
    other = copy.deepcopy(config).unlock()
    other.update_from_flattened_dict({name: value})
    return other


def test_another_sweep_takes_the_profile_of_an_earlier_run(copied, config, monkeypatch):
    forbid(monkeypatch, autosplit, "profile")
    other = copy.deepcopy(config)
    other.sweeps.uplink_bits_per_s = (3e5,)
    other.sweeps.output_error, other.sweeps.memory_bytes = (0.2,), (6000,)
    paper.run(other, copied)
    assert {float(row["value"]) for row in rows_of(copied, "bandwidth")} == {3e5}


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("bits", (4, 8)), ("edge", "tpu")])
def test_what_changes_the_profile_makes_it_anew(config, name, value):
    before = paper_case.profile_inputs(config)
    assert paper_case.profile_inputs(changed(config, name, value)) != before


def test_the_link_does_not_change_the_profile(config):
    other = changed(config, "network.uplink_bits_per_s", 7e5)
    assert paper_case.profile_inputs(other) == paper_case.profile_inputs(config)


def test_an_interrupted_run_leaves_no_result_and_goes_on(copied, config, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(paper, "run_all", interrupt)
    other = changed(config, "sweeps.output_error", (0.3,))
    with pytest.raises(KeyboardInterrupt):
        paper.run(other, copied)
    assert not (copied / "results.json").exists()
    assert not list(copied.glob(".*"))
    forbid(monkeypatch, autosplit, "profile")
    assert paper_case.make_case(other, copied).profile.bits.tolist() == list(config.bits)


def test_a_changed_file_does_not_count(copied, config):
    plain = paper.to_plain(config.to_dict())
    assert paper.finished(copied, plain) is not None
    path = copied / "results.json"
    path.write_text(path.read_text().replace("Tiny", "Huge"))
    assert paper.finished(copied, plain) is None


# ---- All workloads


def test_all_workloads_make_a_summary(workdir, copied, config, monkeypatch):
    forbid(monkeypatch, paper, "make_case")
    parent = copied.parent
    copied.rename(parent / "one")
    both = ml_collections.ConfigDict({"workloads": {"one": config}})
    page = paper.run(both, parent).read_text()
    assert (parent / "summary.png").exists()
    assert (parent / "chart.md").exists()
    assert f"(one/{paper_page.PAGE})" in page
    assert "simulated" in page.splitlines()[0]
    rows = rows_of(parent, "summary")
    assert [row["plan"] for row in rows] == [r["plan"] for r in rows_of(workdir, "comparison")]


# ---- Wrong input


@pytest.fixture
def fails(monkeypatch, tmp_path):
    """Returns a function that runs the program and returns the one sentence that it says."""

    def run(config):
        values = types.SimpleNamespace(config=config, workdir=str(tmp_path / "workdir"))
        monkeypatch.setattr(paper.flags, "FLAGS", values)
        with pytest.raises(SystemExit) as caught:
            paper.main(["paper"])
        assert caught.value.code.startswith("paper: ")
        assert not (tmp_path / "workdir" / "results.json").exists()
        return caught.value.code

    return run


@pytest.mark.parametrize(("name", "value", "says"), [
    ("network.uplink_bits_per_s", 0.0, "uplink_bits_per_s is 0.0"),
    ("sweeps.uplink_bits_per_s", (1e6, 0.0), "sweeps.uplink_bits_per_s has the value 0.0"),
    ("sweeps.memory_bytes", (-1,), "sweeps.memory_bytes has the value -1"),
    ("sweeps.output_error", (), "sweeps.output_error is ()"),
    ("sweeps.energy_networks", ("5G",), "expected one of"),
    ("constraints.quant_mse", 0.1, "config.constraints limits"),
    ("edge", "eyeris", "expected one of eyeriss, tpu"),
    ("model.name", "tinny", "expected one of"),
    ("images.source", "/no/such/folder", "/no/such/folder"),
    ("images.calibration", 0, "calibration is 0"),
])  # fmt: skip
def test_wrong_input_is_told_in_one_sentence(fails, config, name, value, says):
    assert says in fails(changed(config, name, value))


def test_wrong_input_of_one_workload_stops_all_of_them(fails, config):
    wrong = changed(config, "sweeps.output_error", ())
    both = ml_collections.ConfigDict({"workloads": {"right": config, "wrong": wrong}})
    assert "sweeps.output_error" in fails(both)
