"""Files that torch wrote are read as torch reads them; damaged ones are refused."""

import contextlib
import pathlib
import pickle

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from autosplit.converters import read_state_dict
from autosplit.errors import ArtefactError, AutosplitError, ConversionError, InputError

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "weights"
WRITERS = ("zip", "legacy", "pickle")


def write(torch, value, path, writer):
    if writer == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=writer == "zip")


@pytest.fixture
def tensors(torch):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 3, 2, generator=generator)
    return {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "slice": base[1:, ::2],
        "half": base.half(),
        "double": base.double(),
        "integers": torch.arange(-3, 3),
        "bytes": torch.arange(6, dtype=torch.uint8),
        "truth": base > 0,
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[0]),
    }


@pytest.mark.parametrize("writer", WRITERS)
def test_every_tensor_equals_torchs(torch, tensors, tmp_path, writer):
    path = tmp_path / "file.pth"
    write(torch, tensors, path, writer)
    read = read_state_dict(path)
    assert list(read) == list(tensors)
    for key, tensor in tensors.items():
        expected = tensor.detach().numpy()
        assert read[key].dtype == expected.dtype, key
        np.testing.assert_array_equal(read[key], expected, strict=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_bfloat16_is_read(torch, tmp_path, writer):
    tensor = torch.linspace(-2, 2, 9).bfloat16()
    write(torch, {"weight": tensor}, tmp_path / "file.pth", writer)
    read = read_state_dict(tmp_path / "file.pth")["weight"]
    np.testing.assert_array_equal(read.astype(np.float32), tensor.float().numpy())


@pytest.mark.parametrize("writer", WRITERS)
def test_a_modules_state_dict_is_read_through_wrapper_and_prefix(torch, tmp_path, writer):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    wrapped = {f"module.{k}": v for k, v in module.state_dict().items()}
    write(torch, {"epoch": 3, "state_dict": wrapped}, tmp_path / "file.pth", writer)
    read = read_state_dict(tmp_path / "file.pth")
    assert list(read) == list(module.state_dict())
    for key, tensor in module.state_dict().items():
        np.testing.assert_array_equal(read[key], tensor.numpy())


def test_safetensors_equal_the_arrays_written(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2)}
    safetensors.save_file(arrays, tmp_path / "file.safetensors")
    read = read_state_dict(tmp_path / "file.safetensors")
    assert read.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array, strict=True)


def test_a_training_checkpoint_of_another_project_is_read(torch):
    path = SHARED / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    expected = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    read = read_state_dict(path)
    assert [f"module.{key}" for key in read] == list(expected)
    for key, array in read.items():
        np.testing.assert_array_equal(array, expected[f"module.{key}"].numpy())


@pytest.mark.parametrize("writer", WRITERS)
def test_a_truncated_file_is_refused_wherever_it_ends(torch, tmp_path, writer):
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    write(torch, {"weight": torch.arange(1000.0), "bias": torch.zeros(8)}, whole, writer)
    content = whole.read_bytes()
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ArtefactError, match=r"cut\.pth"):
            read_state_dict(cut)


@pytest.fixture(scope="module")
def intact(torch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    for writer in WRITERS:
        write(torch, {"weight": torch.arange(12.0).reshape(3, 4)}, folder / writer, writer)
    return {writer: (folder / writer).read_bytes() for writer in WRITERS}


@hypothesis.given(
    writer=st.sampled_from(WRITERS), where=st.floats(0, 1, exclude_max=True), value=st.binary()
)
@hypothesis.settings(max_examples=150)
def test_damage_raises_an_error_of_ours_or_changes_numbers(
    intact, tmp_path_factory, writer, where, value
):
    content = bytearray(intact[writer])
    start = int(where * len(content))
    content[start : start + len(value)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(content)
    with contextlib.suppress(AutosplitError):
        read = read_state_dict(path)
        assert all(isinstance(array, np.ndarray) for array in read.values())


def test_what_is_no_state_dict_is_named(torch, tmp_path):
    path = tmp_path / "file.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ConversionError, match="holds a list"):
        read_state_dict(path)
    torch.save({"weight": torch.zeros(1), "epoch": 3}, path)
    with pytest.raises(ConversionError, match=r"no tensors: \['epoch'\]"):
        read_state_dict(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ConversionError, match=r"Save model\.state_dict"):
        read_state_dict(path)
    with pytest.raises(InputError, match="there is no file"):
        read_state_dict(tmp_path / "absent.pth")
