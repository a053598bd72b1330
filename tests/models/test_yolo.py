"""YOLO computes what a PyTorch build of its cfg computes, and its weights go there and back."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit import converters, models
from autosplit.errors import InputError
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.models.yolo import NAMES, YOLO, create_yolo
from tests.models.torch_modules import arrays, randomize

SMALL = pathlib.Path(__file__).with_name("yolo_small.cfg").read_text()
# As ultralytics' models of 2020 count them: without running statistics.
PARAMETERS = {"yolov3": 61_949_149, "yolov3_spp": 62_998_749, "yolov3_tiny": 8_852_366}
# Billions of operations for one image, as darknet prints them and its site lists them: two for a
# multiply-accumulate.
OPERATIONS = [("yolov3_tiny", 416, "5.56")] + [
    pytest.param(*row, marks=pytest.mark.heavy)
    for row in [
        ("yolov3", 320, "38.97"),
        ("yolov3", 416, "65.86"),
        ("yolov3", 608, "140.69"),
        ("yolov3_spp", 608, "141.45"),
    ]
]


def cfg_text(name):
    if name == "small":
        return SMALL
    return (pathlib.Path(models.__file__).with_name("darknet") / f"{name}.cfg").read_text()


def read_blocks(text):
    """The fields of every section; no part of autosplit's parser."""
    blocks = []
    for line in text.splitlines():
        line = line.partition("#")[0].replace(" ", "")
        if line.startswith("["):
            blocks.append({"kind": line[1:-1]})
        elif line:
            name, _, value = line.partition("=")
            blocks[-1][name] = value
    return blocks


def build_reference(torch, text, epsilon=1e-4):
    """Builds the network of a cfg in PyTorch, named as ultralytics names it."""
    net, *blocks = read_blocks(text)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module_list, channels = torch.nn.ModuleList(), []
            before = int(net["channels"])
            for index, block in enumerate(blocks):
                module, kind = torch.nn.Sequential(), block["kind"]
                if kind == "convolutional":
                    norm, size = block.get("batch_normalize") == "1", int(block["size"])
                    after = int(block["filters"])
                    module.add_module("Conv2d", torch.nn.Conv2d(
                        before, after, size, int(block["stride"]), size // 2, bias=not norm
                    ))  # fmt: skip
                    if norm:
                        module.add_module("BatchNorm2d", torch.nn.BatchNorm2d(after, eps=epsilon))
                    if block["activation"] == "leaky":
                        module.add_module("activation", torch.nn.LeakyReLU(0.1))
                elif kind == "route":
                    after = sum(channels[place] for place in self.places(block["layers"], index))
                else:
                    after = before
                self.module_list.append(module)
                channels.append(after)
                before = after

        @staticmethod
        def places(text, index):
            return [int(p) if int(p) >= 0 else index + int(p) for p in text.split(",")]

        def forward(self, x):
            outputs, heads = [], []
            for index, (block, module) in enumerate(zip(blocks, self.module_list, strict=True)):
                kind = block["kind"]
                if kind == "convolutional":
                    x = module(x)
                elif kind == "route":
                    x = torch.cat([outputs[p] for p in self.places(block["layers"], index)], 1)
                elif kind == "shortcut":
                    x = x + outputs[self.places(block["from"], index)[0]]
                elif kind == "upsample":
                    x = torch.nn.functional.interpolate(x, scale_factor=int(block["stride"]))
                elif kind == "maxpool":
                    low, high = (int(block["size"]) - 1) // 2, int(block["size"]) // 2
                    x = torch.nn.functional.pad(x, (low, high, low, high), value=-math.inf)
                    x = torch.nn.functional.max_pool2d(x, int(block["size"]), int(block["stride"]))
                else:
                    heads.append(x)
                outputs.append(x)
            return heads

    return randomize(torch, Network()).eval()


def heavy(name):
    return pytest.param(name, marks=pytest.mark.heavy)


@pytest.mark.parametrize("name", ["small", "yolov3_tiny", heavy("yolov3"), heavy("yolov3_spp")])
def test_heads_equal_pytorchs_and_the_weights_go_back(torch, name):
    text = cfg_text(name)
    reference, model = build_reference(torch, text), YOLO(parse_cfg(text))
    original = arrays(reference)
    variables = converters.convert(original, models.variable_shapes(model, 64))
    # A rectangle, so that height and width cannot be mixed up.
    images = np.random.default_rng(0).random((2, 64, 96, 3), np.float32)
    heads = jax.jit(model.apply)(variables, images)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    assert len(heads) == len(expected) == len(model.strides)
    for head, one, stride in zip(heads, expected, model.strides, strict=True):
        one = one.numpy().transpose(0, 2, 3, 1)
        assert head.shape == one.shape == (2, 64 // stride, 96 // stride, one.shape[-1])
        assert np.std(one) > 1e-2
        assert np.linalg.norm(head - one) <= 1e-4 * np.linalg.norm(one)
    back = converters.to_state_dict(variables)
    assert back.keys() == original.keys()
    reference.load_state_dict({k: torch.from_numpy(v) for k, v in back.items()}, strict=True)
    for key, value in original.items():
        np.testing.assert_array_equal(back[key], value)


def test_epsilon_is_an_attribute():
    model = YOLO(parse_cfg(SMALL), epsilon=1e-2)
    variables = random_variables(model)
    images = np.ones((1, 32, 32, 3), np.float32)
    one, other = (
        jax.jit(m.apply)(variables, images)[0] for m in (model, YOLO(parse_cfg(SMALL)))
    )
    assert jnp.abs(one - other).max() > 1e-4
    assert create_yolo("yolov3_tiny", epsilon=1e-6).epsilon == 1e-6


def random_variables(model):
    rng = np.random.default_rng(0)
    shapes = models.variable_shapes(model, 32)
    return jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts_are_the_published_ones(name):
    shapes = models.variable_shapes(create_yolo(name), 64)
    leaves = jax.tree.leaves(shapes["params"])
    assert sum(math.prod(s.shape) for s in leaves) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "pixels", "billions"), OPERATIONS)
def test_operations_are_the_published_ones(name, pixels, billions):
    model = create_yolo(name)
    images = jax.ShapeDtypeStruct((1, pixels, pixels, 3), jnp.float32)
    graph = autosplit.trace(model.apply, models.variable_shapes(model, 64), images)
    assert f"{2 * sum(layer.macs for layer in graph.layers) / 1e9:.2f}" == billions


def test_classes_change_the_heads():
    model = create_yolo("yolov3_tiny", num_classes=3)
    images = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    heads = jax.eval_shape(model.apply, models.variable_shapes(model, 32), images)
    assert [head.shape for head in heads] == [(1, 2, 3, 24), (1, 4, 6, 24)]


def test_keys_are_ultralytics():
    state_dict = converters.to_state_dict(random_variables(YOLO(parse_cfg(SMALL))))
    assert {
        "module_list.0.Conv2d.weight",
        "module_list.0.BatchNorm2d.running_var",
        "module_list.16.Conv2d.bias",
    } <= state_dict.keys()


def test_training_moves_the_running_mean_by_three_hundredths():
    model = YOLO(parse_cfg(SMALL))
    variables = random_variables(model)
    images = np.random.default_rng(1).random((4, 32, 32, 3), np.float32)
    kernel = variables["params"]["module_list_0"]["Conv2d"]["kernel"]

    def both():
        maps = jax.lax.conv_general_dilated(
            images, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        _, state = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return maps.mean((0, 1, 2)), state["batch_stats"]["module_list_0"]["BatchNorm2d"]["mean"]

    mean, moved = jax.jit(both)()
    before = variables["batch_stats"]["module_list_0"]["BatchNorm2d"]["mean"]
    np.testing.assert_allclose(moved, 0.97 * before + 0.03 * mean, rtol=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="yolov3, yolov3_spp, yolov3_tiny"):
        create_yolo("yolov5")
    with pytest.raises(InputError, match="num_classes is 0"):
        create_yolo("yolov3_tiny", num_classes=0)
    for shape in ((1, 64, 100, 3), (64, 64, 3)):
        with pytest.raises(InputError, match="multiples of 32"):
            jax.eval_shape(
                create_yolo("yolov3_tiny").init,
                jax.random.key(0),
                jax.ShapeDtypeStruct(shape, jnp.float32),
            )
