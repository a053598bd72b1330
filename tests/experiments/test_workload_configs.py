"""Every workload's configuration describes something that exists."""

from __future__ import annotations

import functools
import importlib
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import config_flags

from autosplit.data import PACKAGES
from autosplit.hardware import named_device
from autosplit.models import create_model, image_input
from autosplit.quant.clipping import METHODS
from experiments.steps import RANDOM, classes_of, constraints_of, is_detector, traced_function
from experiments.workload_case import check_config

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs" / "workloads"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
WORKLOADS = [name for name in NAMES if name != "all"]
DETECTORS = ("yolov3_tiny", "yolov3", "yolov3_spp")
SIZES = (416, 512, 608)

# auto_split.md: MB by network, of the full detectors by size. What is not there has one of ours.
PAPER_MIB = {
    "resnet18": 1, "mobilenet_v2": 1, "resnet50": 4, "resnext50_32x4d": 4, "mnasnet1_0": 4,
    "googlenet": 8, **{f"yolov3_tiny_{size}": 32 for size in SIZES},
    **{f"{name}_{size}": mib for name in ("yolov3", "yolov3_spp")
       for size, mib in zip(SIZES, (128, 256, 512), strict=True)},
}  # fmt: skip


def module_of(name):
    return importlib.import_module(f"configs.workloads.{name}")


def config_of(name):
    return module_of(name).get_config()


def test_the_issues_workloads_are_all_there():
    detectors = {f"{name}_{size}" for name in DETECTORS for size in SIZES}
    assert detectors <= set(WORKLOADS)
    assert len(set(WORKLOADS) - detectors) >= 8
    assert set(PAPER_MIB) <= set(WORKLOADS)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_how_it_is_run_what_comes_out_and_how_long_it_takes(name):
    text = module_of(name).__doc__
    assert f"python -m experiments.workload --config=configs/workloads/{name}.py" in text
    assert re.search(r"^Expected", text, re.M)
    assert re.search(r"^Duration: ", text, re.M)
    assert "TODO" not in text


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_config_has_all_that_the_steps_read(name):
    config = config_of(name)
    check_config(config)
    assert named_device(config.edge).name == "eyeriss"
    assert named_device(config.cloud).name == "tpu"
    assert config.network.uplink_bits_per_s == 3 * 1024**2
    assert config.network.round_trip_s == 0
    assert set(config.bits) == {1, 2, 4, 5, 6, 7, 8}
    assert config.cloud_bits == 16
    assert config.clipping in METHODS
    assert config.images.source in PACKAGES
    if name in PAPER_MIB:
        assert config.constraints.memory_bytes == PAPER_MIB[name] << 20


@pytest.mark.parametrize("name", WORKLOADS)
def test_one_error_is_limited_that_means_something(name):
    config = config_of(name)
    limited = "quant_mse" if config.model.weights == RANDOM else "output_error"
    assert set(constraints_of(config).limits()) == {"memory_bytes", limited}


@pytest.mark.parametrize("name", WORKLOADS)
def test_weights_exist_or_are_random(name):
    config = config_of(name)
    assert config.model.weights == RANDOM or config.model.weights in PACKAGES
    assert (config.model.weights == RANDOM) == ("random" in module_of(name).__doc__)


@functools.cache
def variables_of(model):
    """Returns the shapes of a model's variables, which do not depend on the size of images."""
    small = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), small)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_traced_function_takes_the_images(name):
    config = config_of(name)
    model = create_model(config.model.name, classes_of(config.model))
    pixels = config.images.crop_pixels
    images = jax.ShapeDtypeStruct((2, pixels, pixels, 3), jnp.float32)
    variables = variables_of(model)
    outputs = jax.eval_shape(traced_function(model, config.model), variables, images)
    if is_detector(config.model.name):
        assert name == f"{config.model.name}_{pixels}"
        assert image_input(config.model.name).letterbox
        assert outputs.boxes.shape == (2, config.model.detector.max_detections, 4)
    else:
        assert (config.images.crop_pixels, outputs.shape) == (224, (2, 1000))


def test_all_has_every_workload():
    workloads = config_of("all").workloads
    assert set(workloads) == set(WORKLOADS)
    for name in WORKLOADS:
        assert workloads[name].to_dict() == config_of(name).to_dict()


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
