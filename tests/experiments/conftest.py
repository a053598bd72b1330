"""A small job: MobileNet-v2 with random weights on three small photographs."""

from __future__ import annotations

import functools
import importlib

import jax
import numpy as np
import PIL.Image
import pytest

from autosplit import converters, models
from autosplit.models import preprocessing, zoo
from autosplit.models.resnet import BasicBlock, ResNet
from configs.workloads._base import make_classifier

IMAGES, PIXELS = 3, 32


def draw_photographs(folder, pattern):
    """Writes JPEGs of smooth noise, labelled by their names where the pattern says so."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(IMAGES):
        coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        picture = PIL.Image.fromarray(coarse).resize((48, 40), PIL.Image.Resampling.BILINEAR)
        picture.save(folder / pattern.format(index), quality=95)


@pytest.fixture(scope="session")
def checkpoint(torch, tmp_path_factory):
    """Returns a file of torch.save with random weights that keep activations in range."""
    random = np.random.default_rng(1)

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            return random.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        spread = {"scale": (0.5, 1.5), "var": (0.5, 1.5), "bias": (-0.2, 0.2), "mean": (-0.1, 0.1)}
        return random.uniform(*spread[kind], leaf.shape)

    shapes = models.variable_shapes(models.create_model("mobilenet_v2"))
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: draw(path, leaf).astype(leaf.dtype), shapes
    )
    path = tmp_path_factory.mktemp("checkpoint") / "random.pth"
    state_dict = converters.to_state_dict(variables)
    torch.save({key: torch.from_numpy(value) for key, value in state_dict.items()}, path)
    return path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """Returns a folder of photographs with labels 0, 1, 2."""
    folder = tmp_path_factory.mktemp("photographs") / "labelled"
    draw_photographs(folder, "{:04d}_n01440764.jpg")
    return folder


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory):
    """Returns a folder of the same photographs without labels."""
    folder = tmp_path_factory.mktemp("photographs") / "unlabelled"
    draw_photographs(folder, "picture {}.jpg")
    return folder


@pytest.fixture
def config(checkpoint, labelled):
    """Returns the demo's configuration, made small."""
    return small_config(checkpoint, labelled)


@pytest.fixture(scope="session")
def make_config(checkpoint):
    """Returns a function from a folder of photographs to a small configuration."""
    return lambda folder: small_config(checkpoint, folder)


def small_config(weights, folder):
    config = importlib.import_module("configs.demo").get_config()
    config.model.weights = str(weights)
    config.images.source = str(folder)
    config.images.resize_pixels = config.images.crop_pixels = PIXELS
    config.images.calibration = 2
    config.bits = (4, 8)
    config.constraints.memory_bytes = 1 << 20  # the whole network does not fit
    config.constraints.output_error = 0.5
    config.network.uplink_bits_per_s = config.network.downlink_bits_per_s = 1e5
    return config


@pytest.fixture(scope="module")
def tiny_workload(labelled):
    """Returns the workload of a classifier of one small block, known while a module runs."""
    with pytest.MonkeyPatch.context() as patch:
        model = functools.partial(ResNet, stage_sizes=(1,), block=BasicBlock, features=8)
        patch.setitem(zoo.MODELS, "tiny", model)
        patch.setitem(preprocessing.INPUTS, "tiny", preprocessing.INPUTS["mobilenet_v1"])
        config = make_classifier("tiny", "Tiny", memory_bytes=6000)
        config.model.num_classes = 10
        config.images.source = str(labelled)
        config.images.limit, config.images.calibration = 3, 2
        config.images.resize_pixels = config.images.crop_pixels = 32
        config.bits = (2, 8)
        config.network.uplink_bits_per_s = 1e5
        # Random, but held to the output error as a trained network is.
        del config.constraints.quant_mse
        config.constraints.output_error = 0.5
        config.sensitivity_calls, config.latency.repeats, config.evaluation.chunk = 1, 1, 2
        yield config
