"""The models have the right shapes and train; unknown names list the known ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit import models
from autosplit.errors import InputError
from autosplit.models.efficientnet_lite import MBConv

FAMILIES = (
    "resnet18",
    "mobilenet_v1",
    "mobilenet_v2",
    "mnasnet1_0",
    "googlenet_aux",
    "efficientnet_lite0",
)
STEM_OF_MOBILENET = ("features_0_0", "features_0_1")


@pytest.mark.parametrize("name", FAMILIES)
def test_output_shape(name):
    model = models.create_model(name, num_classes=7)
    shapes = models.variable_shapes(model)
    size = models.image_input(name).crop_pixels
    images = jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32)
    outputs = jax.eval_shape(model.apply, shapes, images)
    assert outputs.shape == (3, 7)
    assert outputs.dtype == jnp.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_variables_do_not_depend_on_the_image_size(name):
    model = models.create_model(name, num_classes=7)
    assert models.variable_shapes(model, 64) == models.variable_shapes(model, 224)


def test_equal_names_give_equal_models():
    for name in models.MODELS:
        first, second = models.create_model(name), models.create_model(name)
        assert first == second
        assert hash(first) == hash(second)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"resnet18, resnet34, resnet50, .*mobilenet_v2"):
        models.create_model("resnet19")


@pytest.mark.parametrize(
    "model",
    [
        models.MobileNetV2(num_classes=3, stages=((1, 8, 1, 1), (2, 8, 2, 2)), last_features=16),
        models.ResNet(
            stage_sizes=(1, 1),
            block=models.create_model("resnet18").block,
            num_classes=3,
            features=8,
        ),
    ],
    ids=["mobilenet", "resnet"],
)
def test_training_moves_the_running_mean_by_a_tenth(model):
    rng = np.random.default_rng(0)
    images = rng.normal(1.0, size=(4, 16, 16, 3)).astype(np.float32)
    shapes = models.variable_shapes(model, 16)
    variables = jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)
    _, state = jax.jit(
        lambda: model.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: module.name in ("conv1", "features_0_0"),
            rngs={"dropout": jax.random.key(2)},
        )
    )()
    stem, norm = ("conv1", "bn1") if "bn1" in state["batch_stats"] else STEM_OF_MOBILENET
    outputs = state["intermediates"][stem]["__call__"][0]
    before = variables["batch_stats"][norm]["mean"]
    expected = 0.9 * before + 0.1 * jnp.mean(outputs, axis=(0, 1, 2))
    np.testing.assert_allclose(state["batch_stats"][norm]["mean"], expected, rtol=1e-4)


def test_a_dropped_block_lets_whole_images_pass_unchanged():
    images = np.random.default_rng(0).normal(size=(32, 5, 5, 4)).astype(np.float32)
    block = MBConv(4, kernel=3, stride=1, expansion=1, drop_rate=0.0)
    variables = jax.jit(block.init)(jax.random.key(0), images)

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(drop_rate, variables, images, key):
        block = MBConv(4, kernel=3, stride=1, expansion=1, drop_rate=drop_rate)
        rngs = {"dropout": key}
        return block.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    arguments = variables, images, jax.random.key(1)
    added, whole = (outputs(rate, *arguments) - images for rate in (0.5, 0.0))
    kept = np.any(added != 0, axis=(1, 2, 3))
    assert 0 < np.sum(kept) < 32
    # What is kept counts twice, so that the mean stays.
    np.testing.assert_allclose(added[kept], 2 * whole[kept], atol=1e-5)
