"""A small network with every kind of layer that matters here, and its profile."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autosplit
from autosplit.hardware import EYERISS, TPU, Network

BITS = (2, 4, 6, 8)


def conv(x, kernel, **options):
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    return lax.conv_general_dilated(
        x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def cnn(p, x):
    """Residual, depthwise, pool, concatenation; batch norm as an affine chain."""
    h = jax.nn.relu(conv(x, p["first"]) + p["bias"])
    d = jax.nn.relu6(conv(h, p["depthwise"], feature_group_count=8) * p["gain"] + p["bias"])
    y = h + conv(d, p["point"])
    a = conv(y, p["strided"], window_strides=(2, 2))
    m = lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    z = jnp.concatenate([a, m], -1)
    return {"logits": z.mean((1, 2)) @ p["dense"] + p["offset"], "map": z}


def he(key, *shape):
    fan_in = int(np.prod(shape[:-1]))
    return jax.random.normal(key, shape) * (2 / fan_in) ** 0.5


@pytest.fixture(scope="session")
def net():
    """The function, its parameters, graph and calibration batch."""
    k = iter(jax.random.split(jax.random.key(0), 9))
    params = {
        "first": he(next(k), 3, 3, 3, 8),
        "depthwise": he(next(k), 3, 3, 1, 8),
        "point": he(next(k), 1, 1, 8, 8),
        "strided": he(next(k), 3, 3, 8, 4),
        "dense": he(next(k), 12, 10),
        "bias": jax.random.normal(next(k), (8,)) * 0.2,
        "gain": jax.random.uniform(next(k), (8,), minval=0.5, maxval=2.0),
        "offset": jax.random.normal(next(k), (10,)),
    }
    images = np.asarray(jax.random.normal(next(k), (8, 8, 8, 3)))
    graph = autosplit.trace(cnn, params, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    return types.SimpleNamespace(fn=cnn, params=params, graph=graph, calibration=images)


NETWORK = Network(uplink_bits_per_s=3e6, round_trip_s=0.01)


@pytest.fixture(scope="session")
def make_profile():
    """Returns a profiler with the devices filled in."""

    def make(graph, params, calibration, **options):
        options = {"edge": EYERISS, "cloud": TPU, "network": NETWORK, "bits": BITS, **options}
        return autosplit.profile(graph, params, calibration, **options)

    return make


@pytest.fixture(scope="session")
def profiled(net, make_profile):
    return make_profile(net.graph, net.params, net.calibration)
