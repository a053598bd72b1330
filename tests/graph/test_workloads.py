"""MACs of convolutions and products against a count of the taps that exist."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autosplit.graph import trace


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def only_layer(module, x):
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    graph = trace(module.apply, variables, x)
    (layer,) = graph.layers
    return layer, graph.tensors[layer.outputs[0]].shape


def dense_macs(out_shape, kernel, in_features, groups=1):
    """Every output sums kernel x input channels of its group; padding counts."""
    return int(np.prod(out_shape)) * int(np.prod(kernel)) * (in_features // groups)


@pytest.mark.parametrize(
    ("kernel", "size", "options"),
    [
        ((3, 3), (9, 7), {}),
        ((3, 5), (9, 7), {"strides": (2, 1)}),
        ((3, 3), (9, 7), {"kernel_dilation": (2, 3)}),
        ((1, 1), (9, 7), {"strides": (2, 2)}),
        ((3, 3), (9, 7), {"feature_group_count": 2}),
        ((3, 3), (9, 7), {"feature_group_count": 4}),
        ((5,), (11,), {}),
        ((5,), (11,), {"strides": (3,), "padding": "VALID"}),
        ((3,), (11,), {"feature_group_count": 4}),
        ((3, 3, 3), (6, 5, 4), {}),
        ((2, 3, 3), (6, 5, 4), {"strides": (2, 1, 1), "padding": "VALID"}),
        ((2, 3, 3), (6, 5, 4), {"feature_group_count": 2}),
        ((2, 3, 3), (6, 5, 4), {"feature_group_count": 4}),
    ],
)
def test_convolutions(kernel, size, options):
    layer, out = only_layer(nn.Conv(8, kernel, **options), shaped(2, *size, 4))
    groups = options.get("feature_group_count", 1)
    assert layer.kind == "conv"
    assert layer.macs == dense_macs(out, kernel, 4, groups)
    assert layer.weight_elements == int(np.prod(kernel)) * 4 // groups * 8
    (workload,) = layer.workloads
    assert workload.input_elements == 2 * int(np.prod(size)) * 4
    assert workload.output_elements == int(np.prod(out))
    assert workload.weight_elements == layer.weight_elements + 8


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 2), (3, 1), (6, 3)])
def test_transposed_convolutions_count_no_inserted_zeros(kernel, stride):
    module = nn.ConvTranspose(8, (kernel, kernel), strides=(stride, stride), use_bias=False)
    layer, out = only_layer(module, shaped(1, 5, 5, 4))
    assert out == (1, 5 * stride, 5 * stride, 8)
    taps = kernel // stride
    assert layer.macs == int(np.prod(out)) * taps**2 * 4


def test_a_dimension_of_kernel_three_is_not_a_batch():
    layer, out = only_layer(nn.Conv(8, (3, 3, 3), use_bias=False), shaped(1, 4, 4, 4, 2))
    # Counted by brute force over all outputs and taps.
    count = sum(1 for _ in np.ndindex(*out) for _ in np.ndindex(3, 3, 3, 2))
    assert layer.macs == count


@pytest.mark.parametrize(
    "spec",
    ["mk,kn->mn", "bmk,bkn->bmn", "bhqd,bhkd->bhqk", "abk,kcd->abcd", "ijk,jki->i", "bmk,kn->nbm"],
)
def test_products_against_the_iteration_space(spec):
    sizes = {letter: 2 + index for index, letter in enumerate("abcdhijkmnq")}
    left, right = spec.split("->")[0].split(",")
    x = shaped(*(sizes[c] for c in left))
    y = shaped(*(sizes[c] for c in right))
    graph = trace(lambda w, x: jnp.einsum(spec, x, w), y, x)
    # One multiply-accumulate for each combination of all indices.
    expected = int(np.prod([sizes[c] for c in set(left + right)]))
    assert sum(layer.macs for layer in graph.layers) == expected


def test_traffic_counts_every_tensor_once():
    def fn(p, x, y):
        return jax.nn.relu(x @ p["w"] + p["b"]) + y

    params = {"w": shaped(3, 5), "b": shaped(5)}
    product, add = trace(fn, params, shaped(2, 3), shaped(2, 5)).layers
    (gemm,) = product.workloads
    assert (gemm.input_elements, gemm.output_elements, gemm.weight_elements) == (6, 10, 15 + 5)
    (vector,) = add.workloads
    assert (vector.kind, vector.macs) == ("vector", 0)
    assert (vector.input_elements, vector.output_elements, vector.weight_elements) == (20, 10, 0)
    assert vector.vector_ops == 10


def test_a_loop_holds_the_workloads_of_its_body():
    def fn(w, x):
        def step(c, _):
            return jax.nn.relu(c @ w[0]) @ w[1], None

        return lax.scan(step, x, None, length=7)[0]

    (layer,) = trace(fn, shaped(2, 4, 4), shaped(3, 4)).layers
    assert len(layer.workloads) == 2
    assert [w.repeat for w in layer.workloads] == [7, 7]
    assert layer.macs == 7 * 2 * 3 * 4 * 4


def test_gradient_convolutions_keep_their_macs():
    # batch_group_count appears in the gradient of a depthwise filter.
    def fn(_, x, g):
        return lax.conv_general_dilated(
            x, g, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), batch_group_count=2
        )

    graph = trace(fn, (), shaped(2, 5, 5, 4), shaped(3, 3, 4, 6))
    (layer,) = graph.layers
    out = graph.tensors[layer.outputs[0]].shape
    assert layer.macs == dense_macs(out, (3, 3), 4)
