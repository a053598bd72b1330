"""One function reads every format, chosen by suffix, into the model that is asked for."""

import functools
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util

from autosplit import converters, models
from autosplit.converters.darknet_weights import DarknetWeights, write_darknet_weights
from autosplit.errors import ConversionError, InputError
from autosplit.models import zoo
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.models.darknet_sections import Convolutional
from autosplit.models.yolo import YOLO

from .model_files import keras_name, write_onnx, write_tfjs, write_tflite_mobilenet

CFG = """
[net]
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=8
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0
anchors=3,4
classes=3
num=1
"""


@pytest.fixture(autouse=True)
def _small_models(monkeypatch):
    sections = parse_cfg(CFG)
    networks = {
        "resnet50_v1": functools.partial(zoo.MODELS["resnet50_v1"], stage_sizes=(1, 2), features=4),
        "mobilenet_v1": functools.partial(
            models.MobileNetV1, blocks=((8, 1), (8, 2)), stem_features=4
        ),
        "yolov3_tiny": lambda num_classes: YOLO(sections=sections),
    }
    for name, network in networks.items():
        monkeypatch.setitem(zoo.MODELS, name, network)


def random_variables(name, seed=0):
    shapes = models.variable_shapes(models.create_model(name, 3), 64)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.uniform(0.1, 1, s.shape).astype(s.dtype), shapes)


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_darknet(tmp_path):
    variables = random_variables("yolov3_tiny")
    sections = models.create_model("yolov3_tiny", 3).sections
    weights = DarknetWeights(
        version=(0, 2, 5),
        images_seen=1,
        num_sections=len(sections),
        state_dict=converters.to_state_dict(variables),
    )
    path = tmp_path / "net.weights"
    write_darknet_weights(path, sections, weights)
    assert_equal(converters.load_weights(path, "yolov3_tiny", 3), variables)


def write_yolo_onnx(path, variables):
    state_dict = converters.to_state_dict(variables)
    sections = enumerate(models.create_model("yolov3_tiny", 3).sections)
    places = [f"module_list.{i}" for i, s in sections if isinstance(s, Convolutional)]
    first, last = "conv2d_1/kernel:0", "conv2d_2/kernel:0"
    norm = [f"{places[0]}.BatchNorm2d.{n}" for n in ("weight", "bias")]
    norm += [f"{places[0]}.BatchNorm2d.running_{n}" for n in ("mean", "var")]
    epsilon = models.create_model("yolov3_tiny", 3).epsilon
    operations = [
        ("Conv", ["images", first], ["a"], {}),
        ("BatchNormalization", ["a", *norm], ["b"], {"epsilon": epsilon}),
        ("Conv", ["b", last, f"{places[1]}.Conv2d.bias"], ["outputs"], {}),
    ]
    constants = {k: v for k, v in state_dict.items() if not k.endswith("batches_tracked")}
    for place, name in zip(places, (first, last), strict=True):
        constants[name] = constants.pop(f"{place}.Conv2d.weight")
    return write_onnx(path, operations, constants)


def test_onnx(tmp_path):
    pytest.importorskip("onnx", reason="needs onnx")
    variables = random_variables("yolov3_tiny")
    path = write_yolo_onnx(tmp_path / "net.onnx", variables)
    assert_equal(converters.load_weights(path, "yolov3_tiny", 3), variables)
    for name in ("mobilenet_v1", "resnet50_v1"):
        with pytest.raises(ConversionError, match=r"net\.onnx .* expected a YOLO"):
            converters.load_weights(path, name, 3)


def test_tensorflow_js(tmp_path):
    variables = random_variables("resnet50_v1")
    flat = traverse_util.flatten_dict(variables)
    path = write_tfjs(tmp_path, {keras_name(path): leaf for path, leaf in flat.items()})
    assert_equal(converters.load_weights(path, "resnet50_v1", 3), variables)
    with pytest.raises(ConversionError, match=r"model\.json: .*fc\.weight \(3, 32\)"):
        converters.load_weights(path, "resnet50_v1", 4)
    with pytest.raises(ConversionError, match=r"model\.json: .*1 left over|left over"):
        converters.load_weights(path, "resnet50", 3)


def test_lite(tmp_path):
    pytest.importorskip("tflite", reason="needs tflite")
    params = random_variables("mobilenet_v1")["params"]
    path = write_tflite_mobilenet(tmp_path / "net.tflite", params)
    variables = converters.load_weights(path, "mobilenet_v1", 3)
    assert_equal(variables["params"]["classifier_1"], params["classifier_1"])
    # The first class is the background.
    fewer = converters.load_weights(path, "mobilenet_v1", 2)["params"]["classifier_1"]
    np.testing.assert_array_equal(fewer["kernel"], params["classifier_1"]["kernel"][:, 1:])
    np.testing.assert_array_equal(fewer["bias"], params["classifier_1"]["bias"][1:])
    with pytest.raises(ConversionError, match=r"net\.tflite: .*classifier\.1\.weight \(3, 8\)"):
        converters.load_weights(path, "mobilenet_v1", 4)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", ".th", ".safetensors"])
def test_state_dict(torch, tmp_path, suffix):
    variables = random_variables("resnet50_v1")
    written, path = tmp_path / "written.pth", tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        written = tmp_path / "written.safetensors"
    converters.write_state_dict(written, converters.to_state_dict(variables))
    written.rename(path)
    assert_equal(converters.load_weights(path, "resnet50_v1", 3), variables)


def test_another_suffix_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r"ends in '\.h5'; expected \.pth, .*\.tflite"):
        converters.load_weights(tmp_path / "net.h5", "mobilenet_v1")
    with pytest.raises(InputError, match="no model named 'vgg'"):
        converters.load_weights(tmp_path / "net.pth", "vgg")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".weights", ".onnx"])
def test_an_absent_file_is_named(tmp_path, suffix):
    with pytest.raises(InputError, match=rf"net\{suffix}"):
        converters.load_weights(tmp_path / f"net{suffix}", "yolov3_tiny", 3)


@pytest.mark.parametrize(
    ("name", "model", "library"),
    [("net.onnx", "yolov3_tiny", "onnx"), ("net.tflite", "mobilenet_v1", "tflite")],
)
def test_a_library_that_is_absent_is_named(tmp_path, monkeypatch, name, model, library):
    (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConversionError, match=rf"(?s){library}.*autosplit\[converters\]"):
        converters.load_weights(tmp_path / name, model)
