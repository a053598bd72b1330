"""Layers as products of patches with matrices, against the layers themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autosplit.graph import trace
from autosplit.graph.running import prepare, run_layer
from autosplit.ptq.products import elementwise_tail, product_form


def convolution(numbers, **options):
    def run(w, x):
        return jax.nn.silu(lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options))

    return run


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
CASES = {
    "plain": (convolution(NHWC, window_strides=(1, 1), padding="SAME"), (3, 3, 4, 5), (2, 6, 7, 4)),
    "strided, dilated, uneven": (
        convolution(
            NHWC, window_strides=(2, 1), padding=((0, 2), (1, 0)), rhs_dilation=(1, 2)
        ), (3, 2, 4, 5), (2, 7, 6, 4),
    ),
    "grouped": (
        convolution(NHWC, window_strides=(1, 1), padding="VALID", feature_group_count=2),
        (2, 3, 3, 8), (1, 5, 5, 6),
    ),
    "depthwise": (
        convolution(NHWC, window_strides=(2, 2), padding="SAME", feature_group_count=6),
        (3, 3, 1, 6), (1, 5, 5, 6),
    ),
    "channels first": (
        convolution(NCHW, window_strides=(1, 2), padding="SAME", feature_group_count=2),
        (4, 3, 3, 3), (2, 6, 5, 6),
    ),
    "one axis": (
        convolution(("NWC", "WIO", "NWC"), window_strides=(2,), padding="SAME"),
        (3, 4, 5), (2, 9, 4),
    ),
    "cropped": (
        convolution(NHWC, window_strides=(1, 1), padding=((-1, 0), (0, -1))),
        (2, 2, 3, 4), (1, 5, 5, 3),
    ),
    "dense": (lambda w, x: jnp.tanh(x @ w), (4, 5), (3, 4)),
    "weight on the left": (lambda w, x: jnp.tanh(w @ x), (5, 4), (4, 3)),
    "heads": (lambda w, x: jnp.einsum("btc,chd->bthd", x, w), (4, 2, 3), (2, 5, 4)),
    "two contracted axes": (
        lambda w, x: jnp.einsum("bthd,hdc->btc", x, w), (2, 3, 4), (2, 5, 2, 3)
    ),
}  # fmt: skip


def layer_of(case):
    fn, weight_shape, x_shape = CASES[case]
    random = np.random.default_rng(0)
    weight = jnp.asarray(random.normal(size=weight_shape), jnp.float32)
    graph = trace(fn, weight, jax.ShapeDtypeStruct(x_shape, jnp.float32))
    own = prepare(graph, weight).layers[0]
    calls = random.normal(size=(3, *x_shape)).astype(np.float32)
    return graph.layers[0], own, calls


@pytest.mark.parametrize("case", list(CASES))
def test_all_patches_give_all_outputs(case):
    layer, own, calls = layer_of(case)
    form = product_form(layer)
    patches = form.take(calls, np.arange(form.positions * len(calls)))
    matrix = form.matrix(own.weight, own.weight.shape)
    found = elementwise_tail(layer, own)(
        jnp.einsum("pgk,gko->pgo", patches, matrix).reshape(len(patches), -1)
    )
    expected = [run_layer(layer, own, [x], own.weight)[0] for x in calls]
    # The order of positions and channels is the form's own: the same numbers come out.
    np.testing.assert_allclose(
        np.sort(np.ravel(found)), np.sort(np.ravel(expected)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("case", list(CASES))
def test_a_matrix_becomes_the_weight_again(case):
    layer, own, _ = layer_of(case)
    form = product_form(layer)
    matrix = form.matrix(own.weight, own.weight.shape)
    np.testing.assert_array_equal(form.weight(matrix), own.weight)
    axes = tuple(a for a in range(own.weight.ndim) if a not in layer.weight.channel_axes)
    reach = jnp.abs(own.weight).max(axes, keepdims=True)
    of_channels = form.matrix(reach, own.weight.shape)
    assert of_channels.shape[1] == 1
    np.testing.assert_array_equal(of_channels[:, 0], jnp.abs(matrix).max(1))


def transposed(w, x):
    return lax.conv_general_dilated(
        x, w, (1, 1), ((1, 1), (1, 1)), lhs_dilation=(2, 2), dimension_numbers=NHWC
    )


@pytest.mark.parametrize(
    ("fn", "weight", "x"),
    [
        (transposed, (2, 2, 3, 4), (1, 4, 4, 3)),
        (lambda w, x: jnp.einsum("btc,bcd->btd", x, w), (2, 4, 3), (2, 5, 4)),
    ],
)
def test_other_products_have_no_form(fn, weight, x):
    graph = trace(fn, jnp.ones(weight), jax.ShapeDtypeStruct(x, jnp.float32))
    assert product_form(graph.layers[0]) is None


def test_an_activation_with_slopes_by_channel_needs_the_whole_output():
    def prelu(p, x):
        y = x @ p["w"]
        return jnp.where(y > 0, y, y * p["slope"])

    params = {"w": jnp.eye(4), "slope": jnp.arange(4.0)}
    graph = trace(prelu, params, jax.ShapeDtypeStruct((2, 4), jnp.float32))
    own = prepare(graph, params).layers[0]
    assert len(graph.layers) == 1
    assert elementwise_tail(graph.layers[0], own) is None
