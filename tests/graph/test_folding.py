"""Per-channel affine chains fold into the layer before them, and nothing else does."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from autosplit.graph import trace


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


IMAGE = shaped(2, 8, 8, 4)
PARAMS = {"k": shaped(3, 3, 4, 6), "a": shaped(6), "b": shaped(6), "s": shaped()}


def folded(chain, params=PARAMS, image=IMAGE):
    """Returns the names of the primitives folded behind a convolution, and the layers."""
    graph = trace(lambda p, x: chain(p, conv(x, p["k"]), x), params, image)
    weighted = next(layer for layer in graph.layers if layer.weight)
    return [f.primitive for f in weighted.weight.folds], graph.layers


@pytest.mark.parametrize(
    ("expected", "chain"),
    [
        (["add"], lambda p, y, x: y + p["b"]),
        (["add"], lambda p, y, x: p["b"] + y),
        (["sub"], lambda p, y, x: p["b"] - y),
        (["mul", "add"], lambda p, y, x: y * p["a"] + p["b"]),
        (["div"], lambda p, y, x: y / p["a"]),
        (["neg"], lambda p, y, x: -y),
        (["mul"], lambda p, y, x: y * 2.0),
        (["mul"], lambda p, y, x: y * p["s"]),
        (["div", "add"], lambda p, y, x: y / 4 + 1.5),
        (["sub", "mul", "add"], lambda p, y, x: (y - p["b"]) * lax.rsqrt(p["a"] + 1e-5) + p["b"]),
        (["mul", "neg", "sub"], lambda p, y, x: p["a"] - (-(y * p["b"]))),
        (["add"], lambda p, y, x: jax.nn.relu(y + p["b"])),
        (["add"], lambda p, y, x: jnp.tanh(y + p["b"]) * p["a"]),
        (["mul"], lambda p, y, x: y * p["a"].reshape(1, 1, 1, 6)),
        (["mul"], lambda p, y, x: y * jnp.broadcast_to(p["a"], (2, 8, 8, 6))),
    ],
)
def test_affine_chains_fold(expected, chain):
    names, layers = folded(chain)
    assert names == expected
    assert [layer.kind for layer in layers] == ["conv"]
    assert layers[0].has_bias
    # What is folded runs no longer.
    assert not set(expected) & set(layers[0].activation) - {"mul"}


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param(lambda p, y, x: 1.0 / y, id="reciprocal"),
        pytest.param(lambda p, y, x: y * y, id="square"),
        pytest.param(lambda p, y, x: y + y, id="doubled by itself"),
        pytest.param(lambda p, y, x: y + x.sum(), id="depends on data"),
        pytest.param(lambda p, y, x: y * x[..., :1], id="gate from data"),
        pytest.param(lambda p, y, x: y + p["map"], id="varies along space"),
        pytest.param(lambda p, y, x: y * p["rows"], id="varies along one space axis"),
        pytest.param(lambda p, y, x: (y * p["a"], y), id="value returned"),
        pytest.param(lambda p, y, x: y * p["a"] + jnp.sin(y), id="value read twice"),
        pytest.param(lambda p, y, x: jnp.maximum(y, p["a"]), id="not affine"),
        pytest.param(lambda p, y, x: y**2 * p["a"], id="behind a nonlinearity"),
        pytest.param(
            lambda p, y, x: y * jnp.cumsum(jnp.ones((8, 8, 6)), axis=0), id="constant ramp"
        ),
        pytest.param(
            lambda p, y, x: y.reshape(2, 64, 6) * p["token"][:, None], id="other axis after reshape"
        ),
    ],
)
def test_what_is_not_per_channel_stays(chain):
    extra = {"map": shaped(8, 8, 6), "rows": shaped(8, 1, 1), "token": shaped(64)}
    names, _ = folded(chain, PARAMS | extra)
    assert names == []


def test_a_bias_that_varies_over_the_batch_stays():
    names, _ = folded(
        lambda p, y, x: y + p["per_image"], PARAMS | {"per_image": shaped(2, 1, 1, 1)}
    )
    assert names == []


def test_the_chain_ends_at_the_first_step_that_does_not_fold():
    extra = {"map": shaped(8, 8, 6)}
    names, layers = folded(lambda p, y, x: (y * p["a"] + p["map"]) * p["b"], PARAMS | extra)
    assert names == ["mul"]
    assert layers[0].activation == ("add", "mul")


def test_a_returned_middle_ends_the_chain():
    def chain(p, y, x):
        scaled = y * p["a"]
        return scaled, scaled + p["b"]

    names, layers = folded(chain)
    assert names == ["mul"]
    assert len(layers) == 2


def test_batch_norm_of_flax_folds():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3))(x))

    variables = jax.eval_shape(Net().init, jax.random.key(0), IMAGE)
    (layer,) = trace(Net().apply, variables, IMAGE).layers
    # Bias of the convolution, then mean, gain and offset.
    assert [f.primitive for f in layer.weight.folds] == ["add", "sub", "mul", "add"]
    assert layer.activation == ()
    assert layer.macs == 2 * 8 * 8 * 9 * 4 * 6


def test_batch_norm_in_training_mode_does_not_fold():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(nn.Conv(6, (3, 3), use_bias=False)(x))

    variables = jax.eval_shape(Net().init, jax.random.key(0), IMAGE)
    graph = trace(lambda v, x: Net().apply(v, x, mutable=["batch_stats"])[0], variables, IMAGE)
    assert graph.layers[0].weight.folds == ()


@pytest.mark.parametrize(
    ("features", "axis", "channels"),
    [(5, -1, 5), ((2, 3), -1, 6), (5, (-2, -1), 5), ((2, 3), (-2, -1), 6)],
)
def test_bias_of_a_general_dense_folds(features, axis, channels):
    module = nn.DenseGeneral(features, axis=axis)
    x = shaped(7, 3, 4)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    (layer,) = trace(module.apply, variables, x).layers
    assert [f.primitive for f in layer.weight.folds] == ["add"]
    assert layer.weight.channels == channels
    contracted = 4 if axis == -1 else 12
    outputs = (7 * 3 if axis == -1 else 7) * channels
    assert layer.macs == outputs * contracted


def test_weight_on_the_left_of_a_product():
    graph = trace(
        lambda p, x: p["w"] @ x + p["b"][:, None],
        {"w": shaped(5, 3), "b": shaped(5)},
        shaped(3, 7),
    )
    (layer,) = graph.layers
    assert layer.weight.position == 0
    assert (layer.weight.channels, layer.weight.channel_axes) == (5, (0,))
    assert [f.primitive for f in layer.weight.folds] == ["add"]
    assert layer.workloads[0].out_channels == 5


def test_a_bias_along_the_tokens_does_not_fold():
    graph = trace(
        lambda p, x: x @ p["w"] + p["b"][:, None],
        {"w": shaped(3, 5), "b": shaped(7)},
        shaped(7, 3),
    )
    assert graph.layers[0].weight.folds == ()


def test_channels_are_found_in_every_layout():
    def channel_first(p, x):
        y = lax.conv_general_dilated(
            x, p["k"], (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        return y * p["a"][:, None, None]

    graph = trace(channel_first, {"k": shaped(6, 4, 3, 3), "a": shaped(6)}, shaped(1, 4, 8, 8))
    (layer,) = graph.layers
    assert (layer.weight.channel_axes, layer.weight.output_axes) == ((0,), (1,))
    assert [f.primitive for f in layer.weight.folds] == ["mul"]


def test_a_gain_of_the_wrong_axis_does_not_fold_where_sizes_agree():
    # Height and channels are both 6: the shape alone does not tell them apart.
    params = {"k": shaped(3, 3, 4, 6), "a": shaped(6)}
    names, _ = folded(lambda p, y, x: y * p["a"][:, None, None], params, shaped(1, 6, 6, 4))
    assert names == []


def test_a_change_of_dtype_ends_the_chain():
    names, _ = folded(lambda p, y, x: y.astype(jnp.bfloat16) * jnp.bfloat16(2))
    assert names == []


def test_integers_are_no_weight():
    def fn(w, x):
        return lax.div(x @ w, jnp.int32(2))

    (layer,) = trace(fn, shaped(3, 3, dtype=jnp.int32), shaped(2, 3, dtype=jnp.int32)).layers
    assert layer.kind == "matmul"
    assert layer.weight is None
    assert layer.constant_bytes == 9 * 4
    assert layer.macs == 18


def test_products_of_two_data_tensors_have_no_weight():
    (layer,) = trace(lambda _, x, y: x @ y, (), shaped(2, 3), shaped(3, 4)).layers
    assert layer.kind == "matmul"
    assert layer.weight is None
    assert layer.macs == 2 * 3 * 4
