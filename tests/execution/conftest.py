"""Small networks of many kinds, and what belongs to them."""

import shutil
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import autosplit
from autosplit.hardware import EYERISS, TPU, Network


class Cnn(nn.Module):
    """Residual, depthwise and concatenating; its outputs are a dict."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3))(x)))
        y = nn.relu6(nn.Conv(6, (3, 3), feature_group_count=6)(x))
        x = x + nn.Conv(6, (1, 1))(y)
        pooled = nn.max_pool(nn.Conv(4, (1, 1))(x), (2, 2), (2, 2))
        x = jnp.concatenate([nn.Conv(4, (3, 3), strides=2)(x), pooled], -1)
        return {"logits": nn.Dense(5)(x.mean((1, 2))), "aux": (x, [x.max()])}


class Transformer(nn.Module):
    """An embedding of ids and one block."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(11, 8)(ids)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        y = nn.gelu(nn.Dense(16)(nn.LayerNorm()(x)))
        return x + nn.Dense(8)(y)


def several(p, batch, scale):
    """Outputs that are an input, that depend on parameters alone, and that are integers."""
    h = jnp.tanh(batch["a"] @ p["w"])
    y = h + batch["b"] * scale
    return {"a": batch["a"], "constant": p["w"] * 2, "best": jnp.argmax(y, -1), "y": (y, y > 0)}


def shared(p, x):
    """One weight for three products."""
    for _ in range(3):
        x = jax.nn.relu(x @ p["w"] + p["b"])
    return x @ p["v"]


def control_flow(p, x):
    """Loops of known and unknown length, a branch, sorting."""
    h = x @ p["w"]
    h, _ = lax.scan(lambda c, w: (jnp.tanh(c @ w), None), h, p["steps"])
    h = lax.while_loop(lambda c: jnp.abs(c).max() > 0.5, lambda c: c * 0.7, h)
    h = lax.cond(h.sum() > 0, lambda v: v @ p["w"], lambda v: v - 1.0, h)
    return jnp.sort(h, -1) @ p["w"], jnp.argsort(h, -1)


def transposed(p, x):
    h = jax.nn.relu(lax.conv_transpose(x, p["k"], (2, 2), "SAME"))
    return h.mean((1, 2)) @ p["w"]


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.linear = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.linear(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


def normal(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def linen(module, *inputs):
    """Fills the shapes with random numbers: initialising compiles for seconds."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)

    def fill(path, shape):
        values = rng.normal(size=shape.shape) * (0.3 if len(shape.shape) > 1 else 0.1)
        # Variances and scales are positive.
        positive = path[-1].key in ("var", "scale")
        return jnp.asarray(1 + np.abs(values) if positive else values, shape.dtype)

    return module.apply, jax.tree_util.tree_map_with_path(fill, shapes), inputs


def nnx_network():
    definition, state = nnx.split(Nnx(nnx.Rngs(0)))
    return lambda s, x: nnx.merge(definition, s)(x), state, (normal(0, 1, 5, 5, 2),)


NETWORKS = {
    "cnn": lambda: linen(Cnn(), normal(0, 1, 8, 8, 3)),
    "transformer": lambda: linen(Transformer(), jnp.array([[1, 5, 10, 0]])),
    "several": lambda: (
        several,
        {"w": normal(1, 4, 4)},
        ({"a": normal(2, 2, 4), "b": normal(3, 2, 4)}, jnp.float32(1.5)),
    ),
    "shared": lambda: (
        shared,
        {"w": normal(1, 5, 5), "b": normal(2, 5), "v": normal(3, 5, 2)},
        (normal(4, 2, 5),),
    ),
    "control flow": lambda: (
        control_flow,
        {"w": normal(1, 4, 4), "steps": normal(2, 3, 4, 4)},
        (normal(3, 2, 4),),
    ),
    "transposed": lambda: (
        transposed,
        {"k": normal(1, 3, 3, 2, 4), "w": normal(2, 4, 3)},
        (normal(3, 1, 4, 4, 2),),
    ),
    "nnx": nnx_network,
}


def make_case(name):
    fn, params, inputs = NETWORKS[name]()
    graph = autosplit.trace(fn, params, *inputs)
    return types.SimpleNamespace(fn=fn, params=params, inputs=inputs, graph=graph)


@pytest.fixture(scope="session", params=list(NETWORKS))
def network(request):
    """Each of the networks in turn."""
    return make_case(request.param)


def profile_case(case, calibration, **options):
    profile = autosplit.profile(
        case.graph, case.params, calibration, edge=EYERISS, cloud=TPU,
        network=Network(uplink_bits_per_s=3e6, name="test"), **options
    )  # fmt: skip
    case.calibration, case.profile = calibration, profile
    return case


def mlp(p, x):
    h = jax.nn.relu(x @ p["a"] + p["bias"])
    h = jnp.tanh(h @ p["b"] + p["bias"]) + h
    return {"y": h @ p["c"], "h": (h,)}


@pytest.fixture(scope="session")
def dense():
    """A network that compiles fast, with its profile."""
    shapes = {"a": (6, 9), "b": (9, 9), "c": (9, 5), "bias": (9,)}
    params = {name: normal(seed, *shape) for seed, (name, shape) in enumerate(shapes.items())}
    inputs = (normal(4, 2, 6),)
    graph = autosplit.trace(mlp, params, *inputs)
    case = types.SimpleNamespace(fn=mlp, params=params, inputs=inputs, graph=graph)
    return profile_case(case, np.asarray(normal(5, 10, 6)), bits=(2, 4, 8))


@pytest.fixture(scope="session")
def split_plan(dense):
    """A plan with two of three products on the edge, at different bits."""
    from autosplit.solvers.charging import price

    profile = dense.profile
    cut = int(np.flatnonzero(profile.on_edge.sum(axis=1) == len(profile.macs) - 1)[0])
    w_bits = np.resize([2, 4, 8], len(profile.macs))
    a_bits = np.resize([8, 4], len(profile.producer))
    return price(profile, cut=cut, w_bits=w_bits, a_bits=a_bits, label="auto-split")


@pytest.fixture(scope="session")
def made(dense, split_plan):
    """The split of that plan."""
    return autosplit.split(dense.graph, dense.params, split_plan)


@pytest.fixture(scope="session")
def saved(made, tmp_path_factory):
    """The directory of the saved split."""
    path = tmp_path_factory.mktemp("saved") / "split"
    made.save(path)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    """A copy that may be spoiled."""
    return shutil.copytree(saved, tmp_path / "copy")
