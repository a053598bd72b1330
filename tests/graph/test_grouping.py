"""Which equations make a layer together."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from autosplit.graph import trace


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, kernel, **options):
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    return lax.conv_general_dilated(
        x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def layers(fn, params, *inputs):
    return trace(fn, params, *inputs).layers


def kinds(fn, params, *inputs):
    return [layer.kind for layer in layers(fn, params, *inputs)]


IMAGE = shaped(1, 8, 8, 4)
KERNEL = shaped(3, 3, 4, 4)


@pytest.mark.parametrize(
    "activation",
    [
        jax.nn.relu,
        jax.nn.relu6,
        jax.nn.silu,
        lambda x: x * jax.nn.sigmoid(x),
        jax.nn.gelu,
        jax.nn.hard_swish,
        lambda x: jax.nn.leaky_relu(x, 0.1),
        lambda x: jnp.where(x > 0, x, 0.2 * x),
        lambda x: x * jnp.tanh(jax.nn.softplus(x)),
        lambda x: jnp.clip(x, -1, 1).reshape(1, -1),
        lambda x: x.transpose(0, 3, 1, 2),
    ],
)
def test_activations_join_the_convolution_before_them(activation):
    (layer,) = layers(lambda k, x: activation(conv(x, k)), KERNEL, IMAGE)
    assert layer.kind == "conv"
    assert layer.activation


def test_a_result_that_is_read_twice_ends_the_layer():
    def skip(k, x):
        y = conv(x, k)
        return jax.nn.relu(y) + y * conv(x, k)

    graph = trace(skip, KERNEL, IMAGE)
    assert next(layer.activation for layer in graph.layers if layer.weight) == ()


def test_pre_activation_residual_keeps_the_skip_outside():
    def block(p, x):
        x = conv(x, p["stem"])
        y = conv(jax.nn.relu(x * p["gain"] + p["bias"]), p["k"])
        return x + y

    graph = trace(block, {"stem": KERNEL, "k": KERNEL, "gain": shaped(4), "bias": shaped(4)}, IMAGE)
    stem, normalised, second, add = graph.layers
    assert [layer.kind for layer in graph.layers] == ["conv", "elementwise", "conv", "add"]
    assert stem.weight.folds == ()
    assert stem.activation == ()
    assert normalised.inputs == stem.outputs
    assert set(add.inputs) == {stem.outputs[0], second.outputs[0]}


def test_residual_addition_is_a_layer_with_the_activation_behind_it():
    def block(k, x):
        y = jax.nn.relu(conv(x, k))
        return jax.nn.relu(y + conv(y, k))

    first, second, add = layers(block, KERNEL, IMAGE)
    assert add.kind == "add"
    assert add.inputs == (first.outputs[0], second.outputs[0])
    assert add.activation == ("add", "max")
    assert add.macs == 0


def test_concatenation_is_a_layer():
    def fn(k, x):
        y = conv(x, k)
        return jnp.concatenate([y, conv(y, k), x], axis=-1)

    graph = trace(fn, KERNEL, IMAGE)
    concat = graph.layers[-1]
    assert concat.kind == "concat"
    assert len(concat.inputs) == 3
    assert graph.tensors[concat.outputs[0]].shape == (1, 8, 8, 12)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4,
    ],
)
def test_pools_are_layers(pool):
    first, second = layers(lambda k, x: pool(conv(x, k)), KERNEL, IMAGE)
    assert (first.kind, second.kind) == ("conv", "pool")
    # Four inputs are combined for each output.
    assert second.workloads[0].vector_ops >= 4 * (4 * 4 * 4)
    assert second.macs == 0


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_resizes_are_layers(method):
    def fn(k, x):
        y = jax.image.resize(conv(x, k), (1, 16, 16, 4), method)
        return conv(y, k)

    graph = trace(fn, KERNEL, IMAGE)
    first, *between, last = graph.layers
    assert (first.kind, last.kind) == ("conv", "conv")
    assert between
    # The small tensor before the resize can be sent.
    assert graph.tensors[first.outputs[0]].shape == (1, 8, 8, 4)
    assert graph.tensors[between[-1].outputs[0]].shape == (1, 16, 16, 4)
    # Both axes are gathered in one layer; the linear method is a product for each axis,
    # whose matrix is no weight.
    expected = {"nearest": ["resize"], "linear": ["matmul", "matmul"]}[method]
    assert [layer.kind for layer in between] == expected
    assert all(layer.weight is None for layer in between)


def test_repeating_by_broadcast_is_a_resize():
    def fn(k, x):
        y = conv(x, k)
        y = jnp.broadcast_to(y[:, :, None, :, None, :], (1, 8, 2, 8, 2, 4)).reshape(1, 16, 16, 4)
        return conv(y, k)

    assert kinds(fn, KERNEL, IMAGE) == ["conv", "resize", "conv"]


def test_padding_joins_the_layer_behind_it():
    def fn(k, x):
        x = jax.nn.relu(conv(x, k))
        return conv(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), k, padding="VALID")

    first, second = layers(fn, KERNEL, IMAGE)
    assert "pad" in second.activation
    assert first.activation == ("max",)


def test_input_scaling_joins_the_first_layer():
    (layer,) = layers(lambda k, x: conv(x / 255.0 - 0.5, k), KERNEL, IMAGE)
    assert layer.kind == "conv"
    assert layer.inputs == (0,)


def test_input_scaling_that_is_read_twice_is_a_layer():
    def fn(k, x):
        x = x / 255.0
        return x + conv(x, k)

    assert kinds(fn, KERNEL, IMAGE) == ["elementwise", "conv", "add"]


def test_integer_images_are_converted_in_the_first_layer():
    fn = lambda k, x: conv(x.astype(jnp.float32) / 255, k)  # noqa: E731
    graph = trace(fn, KERNEL, shaped(1, 8, 8, 4, dtype=jnp.uint8))
    assert [layer.kind for layer in graph.layers] == ["conv"]
    assert graph.tensors[0].dtype == jnp.uint8
    assert not graph.tensors[0].is_float


def test_layer_norm_is_one_layer():
    def norm(p, x):
        x = x @ p["w"]
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        return ((x - mean) * lax.rsqrt(variance + 1e-6) * p["g"] + p["b"]) @ p["w"]

    params = {"w": shaped(8, 8), "g": shaped(8), "b": shaped(8)}
    found = layers(norm, params, shaped(3, 8))
    assert [layer.kind for layer in found] == ["matmul", "reduce", "matmul"]
    # Gain and bias of the norm stay in float beside it.
    assert found[1].constant_bytes >= 2 * 8 * 4


def test_layers_are_in_topological_order_and_hold_every_equation_once():
    def fn(k, x):
        a = jax.nn.relu(conv(x, k))
        b, c = jnp.split(a, 2, axis=-1)
        d = jnp.concatenate([jnp.sin(c), b], axis=-1)
        e = conv(d, k)
        return lax.top_k(e.reshape(-1) + a.sum(), 3), d

    graph = trace(fn, KERNEL, IMAGE)
    for index, layer in enumerate(graph.layers):
        assert all(graph.tensors[t].producer < index for t in layer.inputs)
    inside = [id(e.eqn) for layer in graph.layers for e in layer.equations]
    live = len(graph.program.equations) - len(graph.hoisted)
    assert len(inside) == len(set(inside)) == live


def test_embedding_lookup_carries_its_table():
    graph = trace(
        lambda p, ids: p["table"][ids] @ p["w"],
        {"table": shaped(100, 8), "w": shaped(8, 4)},
        shaped(2, 5, dtype=jnp.int32),
    )
    lookup = next(layer for layer in graph.layers if layer.kind == "gather")
    assert lookup.weight_elements == 800
    assert lookup.macs == 0
    assert graph.layers[-1].kind == "matmul"
