"""Small networks for post-training quantization, and NumPy's own quantization."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autosplit.graph import trace
from autosplit.graph.running import prepare


def conv(x, kernel, **options):
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    return lax.conv_general_dilated(
        x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def classifier(p, x):
    """Pointwise, depthwise and grouped convolutions, a ReLU6, a sum and a product."""
    h = jax.nn.relu(conv(x, p["first"]) + p["b0"])
    h = jax.nn.relu(conv(h, p["depthwise"], feature_group_count=8) + p["b1"])
    h = conv(h, p["grouped"], feature_group_count=2)
    h = jax.nn.relu6(conv(h, p["capped"]) + p["b2"])
    h = h + jax.nn.relu(conv(h, p["inner"]))
    return jax.nn.relu(h.mean((1, 2)) @ p["hidden"]) @ p["last"] + p["offset"]


@pytest.fixture(scope="session")
def net():
    """Function, parameters, graph, weights, calibration batch and labels of a classifier."""
    random = np.random.default_rng(0)

    def he(*shape):
        uneven = np.exp(random.normal(0, 0.7, shape[-1]))  # channels of unequal range
        return random.laplace(0, (1 / np.prod(shape[:-1])) ** 0.5, shape) * uneven

    params = {
        "first": he(3, 3, 3, 8), "depthwise": he(3, 3, 1, 8), "grouped": he(1, 1, 4, 6),
        "capped": he(3, 3, 6, 8), "inner": he(3, 3, 8, 8), "hidden": he(8, 12),
        "last": he(12, 5), "b0": random.normal(0, 0.3, 8), "b1": random.normal(0, 0.3, 8),
        "b2": random.normal(0.5, 0.3, 8), "offset": random.normal(0, 0.1, 5),
    }  # fmt: skip
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    images = random.normal(size=(24, 6, 6, 3)).astype(np.float32)
    graph = trace(classifier, params, jax.ShapeDtypeStruct((2, 6, 6, 3), jnp.float32))
    labels = np.asarray(classifier(params, images)).argmax(-1)
    return types.SimpleNamespace(
        fn=classifier, params=params, graph=graph, weights=prepare(graph, params), images=images,
        labels=labels, calls=[jnp.asarray(images.reshape(12, 2, 6, 6, 3))],
    )  # fmt: skip


def quantized_weight(weight, clip, bits):
    """Returns a weight on the symmetric grid of a clip."""
    qmax = max(2 ** (bits - 1) - 1, 1)
    step = np.where(clip > 0, clip / qmax, 1.0)
    return np.clip(np.rint(weight / step), -qmax, qmax) * step


def quantized_tensor(x, low, high, bits):
    """Returns a tensor on the asymmetric grid of a clip."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1) or 1.0
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1) - zero) * scale
