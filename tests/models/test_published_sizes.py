"""Parameters and multiply-accumulates equal the published numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

import autosplit
from autosplit import models

# Trainable parameters.
PARAMETERS = {
    # torchvision's tables of weights, num_params.
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnext50_32x4d": 25_028_904,
    "mobilenet_v2": 3_504_872,
    "mnasnet1_0": 4_383_312,
    "googlenet": 6_624_904,
    # torchvision's network as it is built without weights.
    "googlenet_aux": 13_004_888,
    # Keras' summaries of its applications.
    "mobilenet_v1": 4_231_976,
    "resnet50_v1": 25_583_592,
    # The README of EfficientNet-Lite says 4.7, 5.4 and 6.1 million; keras-hub's preset of the
    # first gives it exactly, and the tensors of the published checkpoint have as many.
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
}
# With the running statistics, which Keras counts as parameters that are not trained.
KERAS_TOTALS = {"mobilenet_v1": 4_253_864, "resnet50_v1": 25_636_712}
# Billions of multiply-accumulates for one image, with as many digits as are published.
MACS = {
    # torchvision's tables of weights, GFLOPS, at 224 pixels.
    "resnet18": "1.814",
    "resnet34": "3.664",
    "resnet50": "4.089",
    "resnet101": "7.801",
    "resnext50_32x4d": "4.23",
    "mobilenet_v2": "0.301",
    "mnasnet1_0": "0.314",
    "googlenet": "1.498",
    # Howard et al. 2017, table 8.
    "mobilenet_v1": "0.569",
    # Tan and Le 2019, table 2, EfficientNet-B0: the same convolutions, and squeeze and
    # excitation, which adds less than the last digit.
    "efficientnet_lite0": "0.39",
}
# Numbers that do not say what they count: He et al. 2016, table 1; the README of
# EfficientNet-Lite. tests/models/test_tensorflow_parity.py counts the same networks by torch.
ROUGH_MACS = {
    "resnet50_v1": 3.8,
    "efficientnet_lite0": 0.407,
    "efficientnet_lite1": 0.631,
    "efficientnet_lite2": 0.899,
}


def elements(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@functools.cache
def shapes_of(name):
    return models.variable_shapes(models.create_model(name))


@functools.cache
def traced(name):
    size = models.image_input(name).crop_pixels
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return autosplit.trace(models.create_model(name).apply, shapes_of(name), image)


def billions(name):
    return sum(layer.macs for layer in traced(name).layers) / 1e9


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    assert elements(shapes_of(name)["params"]) == PARAMETERS[name]


@pytest.mark.parametrize("name", KERAS_TOTALS)
def test_parameters_and_running_statistics(name):
    assert elements(shapes_of(name)) == KERAS_TOTALS[name]


@pytest.mark.parametrize("name", MACS)
def test_multiply_accumulates(name):
    digits = len(MACS[name].partition(".")[2])
    assert f"{billions(name):.{digits}f}" == MACS[name]


@pytest.mark.parametrize("name", ROUGH_MACS)
def test_multiply_accumulates_where_the_published_number_counts_otherwise(name):
    assert billions(name) == pytest.approx(ROUGH_MACS[name], rel=0.06)


@pytest.mark.parametrize("name", MACS | ROUGH_MACS)
def test_norms_and_activations_are_fused(name):
    """Every kernel is one layer with a bias; only poolings, sums and joins stand alone."""
    parameters = jax.tree.leaves_with_path(shapes_of(name)["params"])
    kernels = [path for path, _ in parameters if path[-1].key == "kernel"]
    weighted = [layer for layer in traced(name).layers if layer.weight]
    assert len(weighted) == len(kernels)
    assert all(layer.has_bias for layer in weighted)
    rest = {layer.kind for layer in traced(name).layers if not layer.weight}
    assert rest <= {"add", "concat", "pool", "reduce"}
