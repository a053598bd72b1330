"""A job is read from its configuration."""

import jax
import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.models import Checkpoint, load_checkpoint
from experiments.convert import convert_file
from experiments.steps import load_job


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
