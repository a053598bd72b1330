"""Every configuration of the paper's experiments describes something that exists."""

from __future__ import annotations

import importlib
import pathlib
import re
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from autosplit.data import PACKAGES
from autosplit.hardware import named_device
from autosplit.models import zoo
from autosplit.quant.clipping import METHODS
from experiments.paper_sweeps import check_sweeps, error_limit
from experiments.steps import check_fields, constraints_of, profile_settings

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs" / "paper"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
WORKLOADS = [name for name in NAMES if name != "all"]
# auto_split.md: 1 MB for ResNet-18 and MobileNet-v2, 4 MB for ResNet-50. ResNet-34 is not in it.
PAPER_MIB = {"resnet18": 1, "mobilenet_v2": 1, "resnet50": 4}


def module_of(name):
    return importlib.import_module(f"configs.paper.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_how_it_is_run_what_comes_out_and_how_long_it_takes(name):
    text = module_of(name).__doc__
    assert f"python -m experiments.paper --config=configs/paper/{name}.py" in text
    assert re.search(r"^Expected", text, re.M)
    assert re.search(r"^Duration: [\d.]+ (s|min)\b", text, re.M)
    assert "TODO" not in text


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_config_has_all_that_is_read(name):
    config = module_of(name).get_config()
    check_fields(config)
    check_sweeps(config)
    settings = profile_settings(config)
    assert settings["network"].uplink_bits_per_s == 3 * 1024**2
    assert settings["network"].round_trip_s == 0
    assert constraints_of(config).memory_bytes == config.constraints.memory_bytes
    assert named_device(config.edge).name == "eyeriss"
    assert named_device(config.cloud).name == "tpu"
    assert set(config.bits) == {1, 2, 4, 5, 6, 7, 8}
    assert config.cloud_bits == 16
    assert config.clipping in METHODS
    assert config.model.name in zoo.MODELS


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_sweeps_are_the_papers(name):
    config = module_of(name).get_config()
    assert [rate / 1024**2 for rate in config.sweeps.uplink_bits_per_s] == [1, 3, 10, 20]
    assert config.constraints.memory_bytes in config.sweeps.memory_bytes
    limited = error_limit(constraints_of(config))
    assert limited == ("quant_mse" if config.model.weights == "random" else "output_error")
    assert config.constraints[limited] in config.sweeps[limited]
    if name in PAPER_MIB:
        assert config.constraints.memory_bytes == PAPER_MIB[name] << 20


@pytest.mark.parametrize("name", WORKLOADS)
def test_weights_exist_or_are_called_random(name):
    config = module_of(name).get_config()
    random = config.model.weights == "random"
    assert random != (config.model.weights in PACKAGES)
    assert random == ("random" in config.title)
    assert random == ("random" in module_of(name).__doc__)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(("name", "path"), [("resnet50", ""), ("all", "workloads.resnet50.")])
def test_flags_override_fields(monkeypatch, name, path):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    override = f"--config.{path}network.uplink_bits_per_s=1e6"
    command = ["program", f"--config={FOLDER / name}.py", override]
    monkeypatch.setattr(sys, "argv", command)  # where ml_collections looks for overrides
    values(command)
    config = values["config"].value
    assert (config.workloads.resnet50 if path else config).network.uplink_bits_per_s == 1e6


def test_all_has_every_workload():
    workloads = module_of("all").get_config().workloads
    assert set(workloads) == set(WORKLOADS)
    for name in WORKLOADS:
        assert workloads[name].to_dict() == module_of(name).get_config().to_dict()
