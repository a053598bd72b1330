"""A checkpoint comes back bit for bit; a damaged or foreign one is refused."""

import json
import shutil

import jax
import numpy as np
import pytest

from autosplit import files, models
from autosplit.errors import ArtefactError, InputError
from autosplit.models import checkpoint as module


@pytest.fixture(scope="module")
def checkpoint():
    rng = np.random.default_rng(0)
    shapes = models.variable_shapes(models.create_model("mobilenet_v2", num_classes=5))
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)
    return models.Checkpoint(model_name="mobilenet_v2", num_classes=5, variables=variables)


@pytest.fixture(scope="module")
def saved(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "mobilenet"
    models.save_checkpoint(path, checkpoint)
    return path


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copied")


def test_what_is_saved_is_loaded(saved, checkpoint):
    loaded = models.load_checkpoint(saved)
    assert loaded.model == models.create_model("mobilenet_v2", num_classes=5)
    assert jax.tree.structure(loaded.variables) == jax.tree.structure(checkpoint.variables)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, checkpoint.variables)


def test_nothing_is_left_beside_the_checkpoint(saved):
    assert [path.name for path in saved.parent.iterdir()] == ["mobilenet"]


def test_an_interrupted_save_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        models.save_checkpoint(tmp_path / "new", checkpoint)
    assert not list(tmp_path.iterdir())


def test_an_existing_path_is_not_overwritten(saved, checkpoint):
    with pytest.raises(InputError, match="exists"):
        models.save_checkpoint(saved, checkpoint)


def test_variables_of_another_model_are_refused(checkpoint, tmp_path):
    other = models.Checkpoint(
        model_name="mobilenet_v2", num_classes=6, variables=checkpoint.variables
    )
    with pytest.raises(InputError, match=r"2 variables.*classifier_1"):
        models.save_checkpoint(tmp_path / "other", other)


def test_an_absent_directory_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no directory"):
        models.load_checkpoint(tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1}'])
def test_a_damaged_description_is_refused(copied, text):
    (copied / "model.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"model\.json"):
        models.load_checkpoint(copied)


def test_another_version_is_refused(copied):
    about = json.loads((copied / "model.json").read_text())
    (copied / "model.json").write_text(json.dumps(about | {"version": 2}))
    with pytest.raises(ArtefactError, match="version"):
        models.load_checkpoint(copied)


def test_a_description_that_was_edited_is_refused(copied):
    about = json.loads((copied / "model.json").read_text())
    about["body"]["num_classes"] = 6
    (copied / "model.json").write_text(json.dumps(about))
    with pytest.raises(ArtefactError, match="was changed after it was saved"):
        models.load_checkpoint(copied)


def test_variables_of_another_shape_are_refused(copied):
    body = files.read_document(copied / "model.json", module.KIND, module.FORMAT_VERSION)
    body["num_classes"] = 6
    files.write_document(copied / "model.json", module.KIND, module.FORMAT_VERSION, body)
    with pytest.raises(ArtefactError, match="Convert the checkpoint again"):
        models.load_checkpoint(copied)


def test_a_truncated_array_file_is_refused(copied):
    data = [p for p in (copied / "variables").rglob("*") if p.is_file() and p.parent.name == "d"]
    assert data
    for path in data:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtefactError, match="differ from those that were written"):
        models.load_checkpoint(copied)
