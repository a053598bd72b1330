"""State dicts are written as PyTorch reads them, whole or not at all."""

import contextlib
import sys

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from autosplit import converters, models
from autosplit.converters import state_dict_file
from autosplit.errors import ArtefactError, AutosplitError, ConversionError, InputError

SUFFIXES = converters.STATE_DICT_SUFFIXES


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "fc.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "fc.bias": np.zeros(3, np.float32),
        "bn.num_batches_tracked": np.zeros((), np.int64),
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_again(torch, arrays, tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    converters.write_state_dict(path, arrays)
    read = converters.read_state_dict(path)
    assert read.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array, strict=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_axis_order_that_is_no_ordinary_one_survives(torch, tmp_path, suffix):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    converters.write_state_dict(tmp_path / f"net{suffix}", {"weight": array})
    read = converters.read_state_dict(tmp_path / f"net{suffix}")
    np.testing.assert_array_equal(read["weight"], array)


def test_torchvision_loads_safetensors_strictly(torchvision, tmp_path):
    reader = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    shapes = models.variable_shapes(models.create_model("resnet18", num_classes=3))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)
    path = tmp_path / "net.safetensors"
    converters.write_state_dict(path, converters.to_state_dict(variables))
    network = torchvision.models.resnet18(num_classes=3)
    network.load_state_dict(reader.load_file(path), strict=True)
    variance = network.state_dict()["layer4.1.bn2.running_var"].numpy()
    np.testing.assert_array_equal(variance, variables["batch_stats"]["layer4_1"]["bn2"]["var"])


@pytest.mark.parametrize(
    ("suffix", "library"), [(".pth", "torch"), (".safetensors", "safetensors")]
)
def test_a_library_that_is_absent_is_named(arrays, tmp_path, monkeypatch, suffix, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"{library}.numpy", raising=False)
    with pytest.raises(ConversionError, match=rf"(?s){library}.*autosplit\[converters\]"):
        converters.write_state_dict(tmp_path / f"net{suffix}", arrays)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_older_file(arrays, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    converters.write_state_dict(path, arrays)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            converters.write_state_dict(path, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_suffix_lists_the_known_ones(arrays, tmp_path):
    with pytest.raises(InputError, match=r"ends in '\.npz'; expected \.safetensors, \.pth, \.pt"):
        state_dict_file.write_state_dict(tmp_path / "net.npz", arrays)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("intact") / "net.safetensors"
    arrays = {"weight": np.arange(12.0).reshape(3, 4), "bias": np.zeros(2, np.float32)}
    converters.write_state_dict(path, arrays)
    return path, path.read_bytes()


def test_a_truncated_safetensors_file_is_refused_wherever_it_ends(intact):
    path, content = intact
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ArtefactError, match=r"net\.safetensors"):
            converters.read_state_dict(path)


@hypothesis.given(where=st.floats(0, 1, exclude_max=True), value=st.binary(max_size=8))
@hypothesis.settings(max_examples=100)
def test_damage_raises_an_error_of_ours_or_changes_numbers(intact, where, value):
    path, content = intact
    damaged = bytearray(content)
    start = int(where * len(content))
    damaged[start : start + len(value)] = value
    path.write_bytes(damaged)
    with contextlib.suppress(AutosplitError):
        converters.read_state_dict(path)
