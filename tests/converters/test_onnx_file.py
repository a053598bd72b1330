"""ONNX files are read as the library that wrote them means it; damaged ones are refused."""

import contextlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from autosplit import converters, models
from autosplit.converters.foreign_file import reading
from autosplit.converters.onnx_file import read_onnx
from autosplit.converters.onnx_yolo import onnx_yolo_state_dict
from autosplit.errors import ArtefactError, AutosplitError, ConversionError, InputError
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.models.yolo import YOLO

from .model_files import write_onnx

onnx = pytest.importorskip("onnx", reason="needs onnx")

# A body of two scales with a head of one anchor and two classes on each.
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
filters=7
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0
anchors=3,4
classes=2
num=1
[route]
layers=0
[convolutional]
batch_normalize=1
filters=5
size=3
stride=1
pad=1
activation=leaky
[convolutional]
filters=7
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0
anchors=3,4
classes=2
num=1
"""
PLACES = (0, 1, 4, 5)
FILE_EPSILON = 1e-3


def kernel(index):
    """Names kernels as Keras does: from 1, and not in the order of the operations."""
    return f"conv2d_{(1, 2, 10, 11)[index]}/kernel:0"


def leaky(source, target):
    return ("LeakyRelu", [source], [target], {"alpha": 0.1})


def unit(index, source, target, pad, stride=1, normed=True):
    """Returns the operations of one convolution, with batch norm and activation or bias."""
    attributes = {"kernel_shape": [1 + 2 * pad] * 2, "pads": [pad] * 4, "strides": [stride] * 2}
    if not normed:
        return [("Conv", [source, kernel(index), f"b{index}"], [target], attributes)]
    norm = [f"{name}{index}" for name in ("scale", "shift", "mean", "variance")]
    return [
        ("Conv", [source, kernel(index)], [f"c{index}"], attributes),
        ("BatchNormalization", [f"c{index}", *norm], [f"n{index}"], {"epsilon": FILE_EPSILON}),
        leaky(f"n{index}", target),
    ]


OPERATIONS = [
    *unit(0, "images", "first", 1, stride=2),
    *unit(2, "first", "second", 1),
    *unit(3, "second", "fine", 0, normed=False),
    *unit(1, "first", "coarse", 0, normed=False),
]


def constants(seed=0):
    rng = np.random.default_rng(seed)
    found = {"anchors": np.array([3, 4], np.float32)}
    for index, shape in enumerate([(4, 3, 3, 3), (7, 4, 1, 1), (5, 4, 3, 3), (7, 5, 1, 1)]):
        found[kernel(index)] = rng.normal(size=shape).astype(np.float32)
        for name in ("scale", "shift", "mean", "variance") if index % 2 == 0 else ("b",):
            # Variances so small that the epsilon matters.
            found[f"{name}{index}"] = rng.uniform(1e-3, 2e-3, shape[0]).astype(np.float32)
    return found


@pytest.fixture
def model():
    return YOLO(sections=parse_cfg(CFG), epsilon=1e-4)


@pytest.fixture
def file(tmp_path):
    return write_onnx(tmp_path / "net.onnx", OPERATIONS, constants(), outputs=("coarse", "fine"))


def test_the_port_computes_what_onnx_evaluates(model, file):
    from onnx.reference import ReferenceEvaluator

    state_dict = onnx_yolo_state_dict(read_onnx(file), PLACES, model.epsilon)
    variables = converters.convert(state_dict, models.variable_shapes(model, 8))
    images = np.random.default_rng(1).normal(size=(2, 8, 10, 3)).astype(np.float32)
    heads = model.apply(variables, images)
    expected = ReferenceEvaluator(str(file)).run(None, {"images": images.transpose(0, 3, 1, 2)})
    for head, reference in zip(heads, expected, strict=True):
        assert np.std(reference) > 0.01
        np.testing.assert_allclose(head, reference.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_typed_fields_are_read_like_raw_bytes(tmp_path):
    array = np.array([[1, 2.5, -3]], np.float32)
    tensor = onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT, array.shape, array.ravel())
    node = onnx.helper.make_node("Identity", ["typed"], ["outputs"])
    graph = onnx.helper.make_graph([node], "graph", [], [], [tensor])
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    np.testing.assert_array_equal(read_onnx(path).constants["typed"], array, strict=True)


def converted(path, places=PLACES):
    return onnx_yolo_state_dict(read_onnx(path), places, 1e-4)


def test_every_weight_is_used_or_named(tmp_path):
    path = tmp_path / "net.onnx"
    write_onnx(path, OPERATIONS, constants() | {"dense": np.zeros((4, 5), np.float32)})
    with pytest.raises(ConversionError, match=r"1 constants .* left over: dense \(4, 5\)"):
        converted(path)
    write_onnx(path, OPERATIONS[:-1], constants())
    with pytest.raises(ConversionError, match="3 convolutions and 2 batch norms; expected 4"):
        converted(path)
    write_onnx(path, [*OPERATIONS, ("BatchNormalization", ["fine"] * 5, ["x"], {})], constants())
    with pytest.raises(ConversionError, match="4 convolutions and 3 batch norms"):
        converted(path, PLACES[:3])
    missing = constants()
    del missing["mean0"]
    write_onnx(path, OPERATIONS, missing)
    with pytest.raises(ConversionError, match="'mean0' is not stored"):
        converted(path)


def test_a_negative_variance_is_refused(tmp_path):
    damaged = constants()
    damaged["variance2"][1] = -1
    path = write_onnx(tmp_path / "net.onnx", OPERATIONS, damaged)
    with pytest.raises(ArtefactError, match=r"'n2' has a variance of -1\.0"):
        converted(path)


def test_weights_in_another_file_are_refused_and_it_is_not_opened(tmp_path):
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "weight")
    onnx.external_data_helper.set_external_data(tensor, "/dev/zero")
    node = onnx.helper.make_node("Identity", ["weight"], ["outputs"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [], [], [tensor]))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match=r"net\.onnx: .*'weight' lies in another file"):
        read_onnx(path)


def test_a_truncated_file_is_refused_wherever_it_ends(file):
    content = file.read_bytes()
    # Behind the graph there are versions alone.
    end = content.rindex(b"outputs") if b"outputs" in content else content.rindex(b"fine")
    for length in range(0, end, 31):
        file.write_bytes(content[:length])
        with pytest.raises(ArtefactError, match=r"net\.onnx"):
            read_onnx(file)
    file.unlink()
    with pytest.raises(InputError, match="there is no file"):
        read_onnx(file)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    write_onnx(path, OPERATIONS, constants())
    return path, path.read_bytes()


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
