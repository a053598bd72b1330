"""Wrong input ends the main job with one sentence, and leaves no file half-written."""

import os
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

import autosplit
from experiments import main
from experiments.steps import REQUIRED

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def fails(monkeypatch, tmp_path, capsys):
    """Returns a function that runs the program here and returns the one sentence that it says."""

    def run(config):
        values = types.SimpleNamespace(config=config, workdir=str(tmp_path / "workdir"))
        monkeypatch.setattr(main.flags, "FLAGS", values)
        with pytest.raises(SystemExit) as caught:
            main.main(["main"])
        said = caught.value.code
        assert said.startswith("main: ")
        assert "\n" not in said
        assert "done" not in capsys.readouterr().out.splitlines()[-1:]
        return said

    return run


def files_in(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


# ---- Before anything is computed


def test_a_checkpoint_that_is_not_there(fails, config, tmp_path):
    config.model.weights = str(tmp_path / "none.pth")
    assert f"there is no file {tmp_path / 'none.pth'}" in fails(config)
    assert not (tmp_path / "workdir").exists()


def test_a_checkpoint_of_another_model(fails, config):
    config.model.name = "resnet18"
    assert "does not fit the model" in fails(config)


def test_a_model_that_nobody_knows(fails, config):
    config.model.name = "resnet19"
    assert "expected one of resnet18" in fails(config)


def test_a_folder_that_is_not_there(fails, config, tmp_path):
    config.images.source = str(tmp_path / "none")
    assert f"there is no folder {tmp_path / 'none'}" in fails(config)


def test_a_folder_without_images(fails, config, tmp_path):
    config.images.source = str(tmp_path)
    assert f"{tmp_path} has no images" in fails(config)


@pytest.mark.parametrize("size", [0, 100, 300])
def test_a_corrupt_photograph(fails, config, labelled, tmp_path, size):
    folder = shutil.copytree(labelled, tmp_path / "copy")
    broken = folder / "0001_n01440764.jpg"
    broken.write_bytes(broken.read_bytes()[:size])
    config.images.source = str(folder)
    assert f"{broken} cannot be decoded" in fails(config)


def test_a_label_that_is_no_class(fails, config, labelled, tmp_path):
    folder = shutil.copytree(labelled, tmp_path / "copy")
    (folder / "0001_n01440764.jpg").rename(folder / "1000_n01440764.jpg")
    config.images.source = str(folder)
    assert "is labelled as class 1000; expected 0 to 999" in fails(config)


@pytest.mark.parametrize("count", [0, -1, 4])
def test_a_calibration_batch_of_impossible_size(fails, config, count):
    config.images.calibration = count
    assert f"config.images.calibration is {count}; expected 1 to 3" in fails(config)


def test_no_images_asked_for(fails, config):
    config.images.limit = 0
    assert "limit is 0" in fails(config)


@pytest.mark.parametrize("side", ["edge", "cloud"])
def test_a_device_that_nobody_knows(fails, config, side):
    config[side] = "abacus"
    assert "no preset device 'abacus'; expected one of eyeriss" in fails(config)


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("constraints", "memory_bytes", -1, "expected 0 or more bytes"),
        ("constraints", "output_error", float("nan"), "expected a number or None"),
        ("constraints", "memory", 3, "config.constraints has the fields"),
        ("network", "uplink_bits_per_s", 0.0, "expected a finite rate above 0"),
        ("network", "speed", 3.0, "config.network has the fields"),
    ],
)
def test_a_constraint_or_link_that_is_none(fails, config, part, name, value, words):
    config[part][name] = value
    assert words in fails(config)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_field_that_is_missing(fails, config, name):
    section, _, field = name.rpartition(".")
    del (config[section] if section else config)[field]
    assert f"lacks config.{name}" in fails(config)


def test_a_workdir_that_is_a_file(fails, config, tmp_path):
    (tmp_path / "workdir").write_text("mine")
    assert str(tmp_path / "workdir") in fails(config)
    assert (tmp_path / "workdir").read_text() == "mine"


@pytest.mark.parametrize("bits", [(0, 9), (0,), (9,), ()])
def test_bits_that_cannot_be(fails, config, tmp_path, bits):
    config.bits = bits
    assert f"The bit candidates are {bits}; expected some of 1 to 8." in fails(config)
    assert files_in(tmp_path / "workdir") == set()


# ---- Limits that nothing keeps


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [
        ("memory_bytes", 10, "memory_bytes: 10 was asked for, the best attainable is"),
        ("output_error", 0.0, "output_error: 0 was asked for, the best attainable is"),
    ],
)
def test_a_limit_that_only_cloud_only_keeps(fails, config, tmp_path, name, limit, words):
    config.constraints[name] = limit
    config.bits = (8,)
    said = fails(config)
    assert "No plan with a layer on the edge keeps the constraints." in said
    assert words in said
    workdir = tmp_path / "workdir"
    assert files_in(workdir) == {"profile.npz", "plans.json", "plans.csv"}
    plans = autosplit.Plans.load(workdir / "plans.json")
    assert plans.fastest.label.startswith("cloud-only")


# ---- Flags


def program(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.main", *arguments], cwd=ROOT, text=True,
        capture_output=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/none.py"], "No such file or directory: 'configs/none.py'"),
        (["--config=configs/demo.py", "--config.netwrk=3"], 'Did you mean "network"'),
        (["--config=configs/demo.py", "--config.network.speed=3"], "has no field 'speed'. Take"),
        (["--config=configs/demo.py", "--config.edge=abacus"], "no preset device 'abacus'"),
    ],
)
def test_wrong_flags_end_with_status_1_and_one_sentence(tmp_path, arguments, words):
    run = program(*arguments, f"--workdir={tmp_path / 'workdir'}")
    assert run.returncode == 1
    assert run.stderr.startswith("main: ")
    assert len(run.stderr.splitlines()) == 1
    assert words in run.stderr
    assert not (tmp_path / "workdir").exists()


@pytest.mark.heavy
def test_flags_that_are_missing_are_named(tmp_path):
    run = program(f"--workdir={tmp_path}")
    assert run.returncode == 1
    assert "Flag --config must have a value" in run.stderr
    assert "Traceback" not in run.stderr
