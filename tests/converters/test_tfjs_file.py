"""TensorFlow.js layers models are read to the last byte; damaged ones are refused."""

import contextlib
import json

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from flax import traverse_util

from autosplit import converters, models
from autosplit.converters.keras_resnet import keras_resnet_state_dict
from autosplit.converters.tfjs_file import read_tfjs
from autosplit.errors import ArtefactError, AutosplitError, ConversionError, InputError
from autosplit.models.layers import keras_batch_norm
from autosplit.models.resnet import Bottleneck

from .model_files import keras_name, write_tfjs

WEIGHTS = {
    "conv1/kernel": np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3),
    "conv1/bias": np.array([1.5, -2, 0], np.float32),
    "steps": np.array(7, np.int32),
    "empty": np.zeros((0, 2), np.float32),
    "codes": np.array([0, 255], np.uint8),
    "mask": np.array([True, False]),
}


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_every_weight_is_read(tmp_path, shards):
    read = read_tfjs(write_tfjs(tmp_path, WEIGHTS, shards))
    assert list(read) == list(WEIGHTS)
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


def small_resnet():
    return models.ResNet(
        stage_sizes=(2, 1, 1, 1),
        block=lambda *args, **kw: Bottleneck(*args, stride_in_first=True, **kw),
        num_classes=5,
        features=4,
        norm=keras_batch_norm,
        use_bias=True,
    )


def test_keras_weights_become_those_of_the_port(tmp_path):
    shapes = models.variable_shapes(small_resnet(), 64)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)
    flat = traverse_util.flatten_dict(variables)
    # Keras' layout of kernels is Linen's.
    path = write_tfjs(tmp_path, {keras_name(path): leaf for path, leaf in flat.items()})
    converted = converters.convert(keras_resnet_state_dict(read_tfjs(path)), shapes)
    jax.tree.map(np.testing.assert_array_equal, converted, variables)


@pytest.mark.parametrize("name", ["conv2d_1/kernel", "res6a_branch2a/kernel", "conv1/scale"])
def test_a_name_of_another_network_is_refused(name):
    with pytest.raises(ConversionError, match=f"{name}' is none of Keras' ResNet-50"):
        keras_resnet_state_dict({name: np.zeros((1, 1, 2, 2), np.float32)})


def altered(path, change):
    manifest = json.loads(path.read_text())
    change(manifest["weightsManifest"][0])
    path.write_text(json.dumps(manifest))
    return path


def test_a_shard_elsewhere_on_the_machine_is_not_opened(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_tfjs(folder, WEIGHTS)
    (tmp_path / "secret").write_bytes(b"secret")
    for name in ("../secret", str(tmp_path / "secret")):
        altered(path, lambda group, name=name: group["paths"].append(name))
        with pytest.raises(ArtefactError, match=r"model\.json: .*below its own folder"):
            read_tfjs(path)


def test_missing_or_misshapen_shards_are_named(tmp_path):
    path = write_tfjs(tmp_path, WEIGHTS)
    shard = tmp_path / "group1-shard2of2.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole + b"\0")
    with pytest.raises(ArtefactError, match=r"model\.json: the shards hold \d+ bytes; expected"):
        read_tfjs(path)
    shard.write_bytes(whole[:-3])
    with pytest.raises(ArtefactError, match=r"model\.json"):
        read_tfjs(path)
    shard.unlink()
    with pytest.raises(ArtefactError, match=r"no shard .*group1-shard2of2\.bin"):
        read_tfjs(path)
    path.unlink()
    with pytest.raises(InputError, match="there is no file"):
        read_tfjs(path)


def test_quantized_weights_are_refused(tmp_path):
    path = write_tfjs(tmp_path, WEIGHTS)
    altered(path, lambda group: group["weights"][0].update(quantization={"dtype": "uint8"}))
    with pytest.raises(ConversionError, match=r"model\.json: .*conv1/kernel is quantized"):
        read_tfjs(path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfjs")
    return write_tfjs(folder, WEIGHTS), (folder / "model.json").read_bytes()


def test_a_truncated_manifest_is_refused_wherever_it_ends(intact):
    path, content = intact
    for length in range(0, len(content), 23):
        path.write_bytes(content[:length])
        with pytest.raises(ArtefactError, match=r"model\.json"):
            read_tfjs(path)


@hypothesis.given(where=st.floats(0, 1, exclude_max=True), value=st.binary(max_size=6))
@hypothesis.settings(max_examples=100)
def test_damage_raises_an_error_of_ours_or_changes_numbers(intact, where, value):
    path, content = intact
    damaged = bytearray(content)
    start = int(where * len(content))
    damaged[start : start + len(value)] = value
    path.write_bytes(damaged)
    with contextlib.suppress(AutosplitError):
        keras_resnet_state_dict(read_tfjs(path))


def test_a_manifest_of_another_structure_is_refused(tmp_path):
    path = tmp_path / "model.json"
    for content in ("[]", "{}", '{"weightsManifest": 3}', "[" * 100_000, "\ud800"):
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(ArtefactError, match=r"model\.json"):
            read_tfjs(path)
