"""GoogLeNet's pooling is torch's, and its auxiliary heads exist in training alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit import models
from autosplit.models import googlenet


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("size", [3, 4, 7, 8])
def test_maxima_of_incomplete_windows_are_torchs(torch, window, size):
    x = np.random.default_rng(size).normal(size=(1, size, size + 1, 2)).astype(np.float32)
    pool = torch.nn.MaxPool2d(window, stride=2, ceil_mode=True)
    expected = pool(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(googlenet.ceil_max_pool(x, window), expected)


@pytest.mark.parametrize("shape", [(14, 14), (4, 5), (3, 17)])
def test_means_of_overlapping_windows_are_torchs(torch, shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    pool = torch.nn.AdaptiveAvgPool2d(4)
    expected = pool(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(googlenet.adaptive_mean(x, 4), expected, atol=1e-6)


def test_the_heads_have_parameters_and_answer_in_training_only():
    model = models.GoogLeNet(num_classes=5, aux_heads=True)
    shapes = models.variable_shapes(model, 64)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    plain = models.variable_shapes(models.GoogLeNet(num_classes=5), 64)
    assert shapes["params"].keys() - plain["params"].keys() == {"aux1", "aux2"}
    assert jax.eval_shape(model.apply, shapes, images).shape == (2, 5)

    def train(variables, images):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    outputs = jax.eval_shape(train, shapes, images)
    assert [leaf.shape for leaf in outputs] == [(2, 5)] * 3
    assert outputs._fields == ("logits", "aux2", "aux1")
