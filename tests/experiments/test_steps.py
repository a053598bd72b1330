"""A job is read from its configuration."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from autosplit.errors import CalibrationError, InputError
from autosplit.models import Checkpoint, load_checkpoint, preprocessing, zoo
from autosplit.models.resnet import BasicBlock, ResNet
from experiments.convert import convert_file
from experiments.steps import RANDOM, decoded_jpegs, load_job


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory):
    """Returns the directory that experiments.convert makes of the checkpoint."""
    path = tmp_path_factory.mktemp("converted") / "mobilenet"
    convert_file(checkpoint, path, "mobilenet_v2", 1000)
    return path


def test_a_converted_checkpoint_gives_the_same_variables(config, converted):
    from_torch = load_job(config).variables
    config.model.weights = str(converted)
    from_orbax = load_job(config).variables
    jax.tree.map(np.testing.assert_array_equal, from_torch, from_orbax)


def test_a_converted_checkpoint_of_another_model_is_refused(config, converted):
    assert isinstance(load_checkpoint(converted), Checkpoint)
    config.model.weights = str(converted)
    config.model.name = "resnet18"
    with pytest.raises(InputError, match="holds mobilenet_v2"):
        load_job(config)


# ---- Any network of the zoo


@pytest.fixture
def tiny_config(config, monkeypatch):
    """Returns a configuration of a small network with random weights and inputs of -1 to 1."""
    model = functools.partial(ResNet, stage_sizes=(1,), block=BasicBlock, features=8)
    monkeypatch.setitem(zoo.MODELS, "tiny", model)
    monkeypatch.setitem(preprocessing.INPUTS, "tiny", preprocessing.INPUTS["mobilenet_v1"])
    config.model.name, config.model.weights = "tiny", RANDOM
    return config


def test_a_network_gets_the_classes_and_inputs_that_it_was_made_for(tiny_config):
    tiny_config.model.unlock()
    tiny_config.model.num_classes = 7
    job = load_job(tiny_config)
    assert job.variables["params"]["fc"]["kernel"].shape[-1] == 7
    expected = job.photographs.images / 127.5 - 1
    np.testing.assert_allclose(job.inputs, expected, atol=1e-6)
    decoded = decoded_jpegs(job.photographs.images, job.normalize)["jpeg-q95"]
    assert np.abs(decoded - job.inputs).mean() < 0.1


@pytest.mark.parametrize("momentum", [0.9, 0.9997])
def test_random_weights_have_the_statistics_of_the_photographs(monkeypatch, tiny_config, momentum):
    """Then it makes no difference whether a batch norm takes its own or those of the batch."""
    norm = functools.partial(nn.BatchNorm, momentum=momentum)
    model = functools.partial(ResNet, stage_sizes=(1,), block=BasicBlock, features=8, norm=norm)
    monkeypatch.setitem(zoo.MODELS, "tiny", model)
    job = load_job(tiny_config)
    inputs = job.calibration_inputs
    found = job.apply(job.variables, inputs)
    expected, _ = job.apply(job.variables, inputs, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_labels_beyond_the_classes_are_refused(tiny_config):
    tiny_config.model.unlock()
    tiny_config.model.num_classes = 2
    with pytest.raises(CalibrationError, match="labelled as class 2; expected 0 to 1"):
        load_job(tiny_config)
