"""The entry point turns a checkpoint file into a directory, or says why not."""

import os
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from autosplit import converters, models

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.convert", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_file_becomes_a_checkpoint(torch, tmp_path):
    rng = np.random.default_rng(0)
    shapes = models.variable_shapes(models.create_model("mobilenet_v2", num_classes=4))
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)
    state_dict = converters.to_state_dict(variables)
    source, target = tmp_path / "file.pth", tmp_path / "converted"
    torch.save({k: torch.from_numpy(v) for k, v in state_dict.items()}, source)
    finished = run(
        "--from", source, "--to", target, "--model", "mobilenet_v2", "--num_classes", "4"
    )
    assert finished.returncode == 0, finished.stderr
    assert "mobilenet_v2" in finished.stdout
    loaded = models.load_checkpoint(target)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "truncated, damaged"), (pickle.dumps(os.system), "asks to run posix.system")],
)
def test_a_bad_file_ends_in_one_sentence_and_no_directory(tmp_path, content, message):
    (tmp_path / "bad.pth").write_bytes(content)
    finished = run("--from", tmp_path / "bad.pth", "--to", tmp_path / "new", "--model", "resnet18")
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "new").exists()
