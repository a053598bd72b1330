"""LiteRT files are read as their schema means it; folded MobileNets compute the same."""

import contextlib

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from autosplit import converters, models
from autosplit.converters.folded_mobilenet import folded_mobilenet_state_dict
from autosplit.converters.foreign_file import reading
from autosplit.converters.tflite_file import read_tflite
from autosplit.errors import ArtefactError, AutosplitError, ConversionError, InputError
from autosplit.models.layers import keras_batch_norm

from .model_files import write_tflite, write_tflite_mobilenet

pytest.importorskip("tflite", reason="needs tflite")

EPSILON = keras_batch_norm.keywords["epsilon"]


@pytest.fixture(scope="module")
def model():
    blocks = ((6, 1), (8, 2))
    return models.MobileNetV1(num_classes=3, blocks=blocks, stem_features=4)


@pytest.fixture(scope="module")
def params(model):
    rng = np.random.default_rng(0)
    shapes = models.variable_shapes(model, 32)["params"]
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)


def test_operations_and_constants_are_the_files(tmp_path):
    weights = np.arange(12, dtype=np.float32).reshape(2, 3, 2, 1)
    shape = np.array([1, -1], np.int32)
    tensors = [("in", None), ("w", weights), ("out", None), ("shape", shape), ("w", weights + 1)]
    operations = [("CONV_2D", (0, 1, -1), (2,)), ("RESHAPE", (2, 3), (0,))]
    graph = read_tflite(write_tflite(tmp_path / "net.tflite", tensors, operations))
    assert [(o.kind, o.inputs, o.outputs) for o in graph.operations] == [
        ("CONV_2D", ("0:in", "1:w", ""), ("2:out",)),
        ("RESHAPE", ("2:out", "3:shape"), ("0:in",)),
    ]
    assert list(graph.constants) == ["1:w", "3:shape", "4:w"]
    np.testing.assert_array_equal(graph.constants["1:w"], weights, strict=True)
    np.testing.assert_array_equal(graph.constants["3:shape"], shape, strict=True)
    np.testing.assert_array_equal(graph.constants["4:w"], weights + 1, strict=True)


def test_the_port_computes_what_was_folded(torch, model, params, tmp_path):
    path = write_tflite_mobilenet(tmp_path / "net.tflite", params)
    state_dict = folded_mobilenet_state_dict(read_tflite(path), 3, EPSILON)
    variables = converters.convert(state_dict, models.variable_shapes(model, 32))
    images = np.random.default_rng(1).normal(size=(2, 33, 33, 3)).astype(np.float32)
    expected = folded_forward(torch, params, images)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(model.apply(variables, images), expected, rtol=1e-4, atol=1e-5)


def folded_forward(torch, params, images):
    """Computes a MobileNet-v1 without batch norms; the sizes are odd, so padding is even."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    for index, stride in enumerate((2, 1, 1, 2, 1)):
        kernel = torch.from_numpy(params[f"features_{index}_0"]["kernel"]).permute(3, 2, 0, 1)
        bias = torch.from_numpy(params[f"features_{index}_1"]["bias"])
        groups = x.shape[1] // kernel.shape[1]
        pad = kernel.shape[-1] // 2
        x = torch.nn.functional.conv2d(x, kernel, bias, stride, pad, groups=groups).clip(0, 6)
    linear = params["classifier_1"]
    return x.mean((2, 3)).numpy() @ linear["kernel"] + linear["bias"]


def test_the_batch_norms_only_add_the_bias(model, params, tmp_path):
    path = write_tflite_mobilenet(tmp_path / "net.tflite", params)
    state_dict = folded_mobilenet_state_dict(read_tflite(path), 3, EPSILON)
    variables = converters.convert(state_dict, models.variable_shapes(model, 32))
    norm = {
        "params": variables["params"]["features_3_1"],
        "batch_stats": variables["batch_stats"]["features_3_1"],
    }
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 6)).astype(np.float32)
    outputs = keras_batch_norm(use_running_average=True).apply(norm, x)
    np.testing.assert_allclose(outputs, x + params["features_3_1"]["bias"], rtol=0, atol=1e-6)


def test_weights_without_a_place_are_named(params, tmp_path):
    extra = [("more/weights", np.zeros((3, 5), np.float32))]
    path = write_tflite_mobilenet(tmp_path / "net.tflite", params, extra)
    with pytest.raises(ConversionError, match=r"1 constants .* left over: \d+:more/weights"):
        folded_mobilenet_state_dict(read_tflite(path), 3, EPSILON)
    write_tflite(path, [("a", None)], [("SOFTMAX", (0,), (0,))])
    with pytest.raises(ConversionError, match="no convolutions"):
        folded_mobilenet_state_dict(read_tflite(path), 3, EPSILON)
    write_tflite(path, [("a", None), ("b", None)], [("CONV_2D", (0, 1, 1), (0,))])
    with pytest.raises(ConversionError, match="'1:b' is not stored"):
        folded_mobilenet_state_dict(read_tflite(path), 3, EPSILON)
    write_tflite(path, [("a", None), ("b", np.ones(3, np.float32))], [("CONV_2D", (0, 1), (0,))])
    with pytest.raises(ConversionError, match="2 inputs"):
        folded_mobilenet_state_dict(read_tflite(path), 3, EPSILON)


@pytest.fixture(scope="module")
def intact(params, tmp_path_factory):
    path = write_tflite_mobilenet(tmp_path_factory.mktemp("lite") / "net.tflite", params)
    return path, path.read_bytes()


def converted(path):
    return folded_mobilenet_state_dict(read_tflite(path), 3, EPSILON)


def test_a_truncated_file_is_refused_wherever_it_ends(intact, model):
    path, content = intact
    # The last bytes may fill up a word.
    for length in range(0, len(content) - 16, 43):
        path.write_bytes(content[:length])
        with pytest.raises(ArtefactError, match=r"net\.tflite"):
            read_tflite(path)
    path.unlink()
    with pytest.raises(InputError, match="there is no file"):
        read_tflite(path)


@hypothesis.given(where=st.floats(0, 1, exclude_max=True), value=st.binary(max_size=8))
@hypothesis.settings(max_examples=100)
def test_damage_raises_an_error_of_ours_or_changes_numbers(intact, where, value):
    path, content = intact
    damaged = bytearray(content)
    start = int(where * len(content))
    damaged[start : start + len(value)] = value
    path.write_bytes(damaged)
    with contextlib.suppress(AutosplitError), reading(path, "a network"):
        converted(path)
