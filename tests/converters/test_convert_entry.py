"""The entry point turns weights into a directory or a file and back, or says why not."""

import functools
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from autosplit import converters, models
from autosplit.errors import ConversionError, InputError
from autosplit.models import zoo
from experiments.convert import convert_file

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.convert", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def random_variables(name, num_classes):
    shapes = models.variable_shapes(models.create_model(name, num_classes))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)


def test_a_file_becomes_a_checkpoint(torch, tmp_path):
    variables = random_variables("mobilenet_v2", 4)
    state_dict = converters.to_state_dict(variables)
    source, target = tmp_path / "file.pth", tmp_path / "converted"
    torch.save({k: torch.from_numpy(v) for k, v in state_dict.items()}, source)
    finished = run(f"--from={source}", f"--to={target}", "--model=mobilenet_v2", "--num_classes=4")
    assert finished.returncode == 0, finished.stderr
    assert "mobilenet_v2" in finished.stdout
    loaded = models.load_checkpoint(target)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)


def test_a_bad_file_ends_in_one_sentence_and_no_directory(tmp_path):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(os.system))
    finished = run(f"--from={tmp_path / 'bad.pth'}", f"--to={tmp_path / 'new'}", "--model=resnet18")
    assert finished.returncode == 1
    assert "asks to run posix.system" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "new").exists()


@pytest.fixture
def small(monkeypatch):
    """A ResNet of 10,000 parameters in place of resnet18."""
    network = functools.partial(zoo.MODELS["resnet18"], stage_sizes=(1, 1), features=8)
    monkeypatch.setitem(zoo.MODELS, "resnet18", network)
    return random_variables("resnet18", 5)


@pytest.mark.parametrize("suffix", converters.STATE_DICT_SUFFIXES)
def test_a_checkpoint_becomes_a_file_and_the_file_the_checkpoint(torch, small, tmp_path, suffix):
    first, file, second = tmp_path / "first", tmp_path / f"net{suffix}", tmp_path / "second"
    checkpoint = models.Checkpoint(model_name="resnet18", num_classes=5, variables=small)
    models.save_checkpoint(first, checkpoint)
    convert_file(first, file, "resnet18", 5)
    expected = converters.to_state_dict(small)
    read = converters.read_state_dict(file)
    assert read.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(read[key], array, strict=True)
    convert_file(file, second, "resnet18", 5)
    jax.tree.map(np.testing.assert_array_equal, models.load_checkpoint(second).variables, small)


def test_a_file_becomes_a_file_of_another_format(torch, small, tmp_path):
    first, second = tmp_path / "net.safetensors", tmp_path / "net.pth"
    converters.write_state_dict(first, converters.to_state_dict(small))
    convert_file(first, second, "resnet18", 5)
    variables = converters.load_weights(second, "resnet18", 5)
    jax.tree.map(np.testing.assert_array_equal, variables, small)


def test_what_exists_is_not_replaced(small, tmp_path):
    source, target = tmp_path / "net.safetensors", tmp_path / "target.safetensors"
    converters.write_state_dict(source, converters.to_state_dict(small))
    target.write_bytes(b"precious")
    with pytest.raises(InputError, match="exists; expected a new path"):
        convert_file(source, target, "resnet18", 5)
    assert target.read_bytes() == b"precious"


def test_a_checkpoint_of_another_model_or_size_is_refused(small, tmp_path):
    checkpoint = models.Checkpoint(model_name="resnet18", num_classes=5, variables=small)
    models.save_checkpoint(tmp_path / "five", checkpoint)
    for name, num_classes in (("resnet34", 5), ("resnet18", 6)):
        with pytest.raises(InputError, match="holds resnet18 with 5 classes; expected"):
            convert_file(tmp_path / "five", tmp_path / "new", name, num_classes)
    assert not (tmp_path / "new").exists()


def test_another_number_of_classes_is_named_with_the_file(small, tmp_path):
    source = tmp_path / "net.safetensors"
    converters.write_state_dict(source, converters.to_state_dict(small))
    with pytest.raises(ConversionError, match=r"net\.safetensors: .*fc\.weight \(5, 16\)"):
        convert_file(source, tmp_path / "new", "resnet18", 6)
    assert not (tmp_path / "new").exists()
