"""The models have the published sizes and shapes; unknown names list the known ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit import models
from autosplit.errors import InputError

# As torchvision's documentation of the weights gives them.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
}
STEM_OF_MOBILENET = ("features_0_0", "features_0_1")


def test_every_model_is_covered_here():
    assert PARAMETERS.keys() == models.MODELS.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_and_output_shape(name):
    model = models.create_model(name)
    shapes = models.variable_shapes(model)
    assert sum(math.prod(s.shape) for s in jax.tree.leaves(shapes["params"])) == PARAMETERS[name]
    images = jax.ShapeDtypeStruct((3, 224, 224, 3), jnp.float32)
    outputs = jax.eval_shape(model.apply, shapes, images)
    assert outputs.shape == (3, 1000)
    assert outputs.dtype == jnp.float32


@pytest.mark.parametrize("name", PARAMETERS)
def test_variables_do_not_depend_on_the_image_size(name):
    model = models.create_model(name, num_classes=7)
    assert models.variable_shapes(model, 64) == models.variable_shapes(model, 224)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="resnet18, resnet34, resnet50, mobilenet_v2"):
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
