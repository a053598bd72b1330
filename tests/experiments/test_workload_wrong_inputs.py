"""A workload that is asked for wrongly says so in one sentence and leaves nothing behind."""

from __future__ import annotations

import copy
import types

import ml_collections
import pytest

from experiments import workload


@pytest.fixture(scope="module")
def config(tiny_workload):
    return tiny_workload


def changed(config, values):
    other = copy.deepcopy(config).unlock()
    other.update_from_flattened_dict(values)
    return other


@pytest.fixture
def fails(monkeypatch, tmp_path):
    """Returns a function that runs the program and returns the one sentence that it says."""

    def run(config, step="all"):
        folder = tmp_path / "workdir"
        values = types.SimpleNamespace(config=config, workdir=str(folder), step=step)
        monkeypatch.setattr(workload.flags, "FLAGS", values)
        with pytest.raises(SystemExit) as caught:
            workload.main(["workload"])
        assert caught.value.code.startswith("workload: ")
        assert not list(folder.glob("*.json"))
        return caught.value.code

    return run


def test_an_unknown_step(fails, config):
    assert "no step 'splitt'; expected one of statistics" in fails(config, "splitt")


@pytest.mark.parametrize(("values", "says"), [
    ({"model.weights": "/no/such/file.pth"}, "/no/such/file.pth"),
    ({"model.name": "tinny"}, "expected one of"),
    ({"images.calibration": 4}, "calibration is 4; expected at most 3"),
    ({"images.calibration": 0}, "calibration is 0"),
    ({"images.limit": 9, "images.calibration": 8}, "calibration is 8; expected 1 to 3"),
    ({"images.source": "/no/such/folder"}, "/no/such/folder"),
    ({"latency.repeats": 0}, "latency.repeats is 0"),
    ({"edge": "eyeriss2"}, "expected one of"),
    ({"network.uplink_bits_per_s": 0.0}, "uplink_bits_per_s is 0.0"),
    ({"model.num_classes": 2}, "is labelled as class 2; expected 0 to 1"),
])  # fmt: skip
def test_wrong_input_is_told_in_one_sentence(fails, config, values, says):
    assert says in fails(changed(config, values))


@pytest.mark.parametrize("name", ["title", "sensitivity_calls", "latency.repeats"])
def test_a_field_that_is_missing(fails, config, name):
    other = copy.deepcopy(config).unlock()
    section, _, field = name.rpartition(".")
    del (other[section] if section else other)[field]
    assert f"lacks config.{name}" in fails(other)


def test_a_wrong_workload_stops_all_before_anything_runs(fails, config):
    wrong = changed(config, {"latency.repeats": 0})
    both = ml_collections.ConfigDict({"workloads": {"right": config, "wrong": wrong}})
    assert "latency.repeats is 0" in fails(both)


def test_nothing_to_collect(fails, config):
    assert "no workload with a finished latency.json" in fails(config, "collect")
