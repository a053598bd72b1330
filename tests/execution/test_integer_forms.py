"""Integer sums are exact in every form, against NumPy in int64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autosplit
from autosplit.execution.edge_layers import edge_layer, integer_weight
from autosplit.execution.grids import make_grid
from autosplit.execution.integer_forms import (
    _CONVOLUTIONS,
    FORMS,
    dense_kernel,
    form_of,
    integer_kind,
    pads_with_zeros,
)
from autosplit.execution.weights import pack_weight, unpack_levels


def convolution(kernel, x, stride, padding, dilation, groups):
    return lax.conv_general_dilated(
        x, kernel, stride, padding, rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def layer_of(kernel_shape, channels, size=(6, 7), stride=(1, 1), padding=((0, 0), (0, 0)),
             dilation=(1, 1), groups=1):  # fmt: skip
    """Returns the graph of a convolution."""
    return autosplit.trace(
        lambda k, x: convolution(k, x, stride, padding, dilation, groups),
        jax.ShapeDtypeStruct(kernel_shape, jnp.float32),
        jax.ShapeDtypeStruct((2, *size, channels), jnp.float32),
    )


def numpy_sums(q, w, stride, padding, dilation, groups):
    """Sums ``w (q - z)``, given ``q - z``, which is 0 in the padding; int64, one loop per tap."""
    q = np.pad(q, ((0, 0), *padding, (0, 0)))
    height, width, per_group, out_channels = w.shape
    rows = (q.shape[1] - (height - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (q.shape[2] - (width - 1) * dilation[1] - 1) // stride[1] + 1
    total = np.zeros((q.shape[0], rows, columns, out_channels), np.int64)
    each = out_channels // groups
    for i, j, o in itertools.product(range(height), range(width), range(out_channels)):
        top, left, first = i * dilation[0], j * dilation[1], o // each * per_group
        window = q[:, top:, left:][:, : (rows - 1) * stride[0] + 1 : stride[0]]
        window = window[:, :, : (columns - 1) * stride[1] + 1 : stride[1]]
        total[..., o] += window[..., first : first + per_group] @ w[i, j, :, o]
    return total


SAME, UNEVEN, LARGE = ((1, 1), (1, 1)), ((0, 2), (1, 0)), ((3, 2), (4, 4))
CONVOLUTIONS = {
    "pointwise": {"kernel_shape": (1, 1, 4, 5), "channels": 4, "stride": (2, 2)},
    "pointwise padded": {"kernel_shape": (1, 1, 4, 5), "channels": 4, "padding": SAME},
    "dense": {"kernel_shape": (3, 3, 4, 5), "channels": 4, "padding": SAME},
    "dense valid": {"kernel_shape": (3, 2, 8, 5), "channels": 8},
    "dense stride": {
        "kernel_shape": (3, 3, 4, 5), "channels": 4,
        "padding": UNEVEN, "stride": (2, 3),
    },
    "dense dilated": {
        "kernel_shape": (3, 3, 4, 5), "channels": 4,
        "padding": ((2, 2), (1, 1)), "dilation": (2, 1),
    },
    "dense larger output": {"kernel_shape": (3, 3, 4, 5), "channels": 4, "padding": LARGE},
    "few": {"kernel_shape": (3, 3, 3, 5), "channels": 3, "padding": SAME, "stride": (2, 2)},
    "few dilated": {
        "kernel_shape": (3, 3, 5, 4), "channels": 5,
        "padding": LARGE, "dilation": (1, 2),
    },
    "depthwise": {"kernel_shape": (3, 3, 1, 6), "channels": 6, "padding": SAME, "groups": 6},
    "depthwise stride": {
        "kernel_shape": (3, 3, 1, 6), "channels": 6,
        "padding": UNEVEN, "groups": 6, "stride": (2, 1), "dilation": (1, 2),
    },
    "depthwise of several filters": {
        "kernel_shape": (3, 3, 1, 6), "channels": 3,
        "padding": SAME, "groups": 3,
    },
    "grouped": {"kernel_shape": (3, 3, 2, 6), "channels": 4, "padding": SAME, "groups": 2},
    "grouped stride": {
        "kernel_shape": (3, 3, 4, 6), "channels": 12,
        "padding": LARGE, "groups": 3, "stride": (2, 2),
    },
}  # fmt: skip
CLIPS = {"zero at the end": (0.0, 1.0), "zero within": (-0.4, 1.0), "all negative": (-1.0, -0.2)}


def levels_and_codes(weight_shape, axes, data_shape, w_bits, grid, seed=0):
    """Draws a weight that uses all its levels, and codes that use all of the grid."""
    random = np.random.default_rng(seed)
    weight = jnp.asarray(random.uniform(-1, 1, weight_shape), jnp.float32)
    reach = jnp.abs(weight).max()
    packed = pack_weight(weight, axes, reach, w_bits, w_bits)
    code = random.integers(-grid.offset, grid.offset, data_shape)
    return packed, np.asarray(unpack_levels(packed), np.int64), code


@pytest.mark.parametrize("clip", list(CLIPS))
@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_convolutions_are_exact_in_every_form(name, clip):
    options = CONVOLUTIONS[name]
    graph = layer_of(**options)
    layer = graph.layers[-1]
    bits = {"zero at the end": (8, 8), "zero within": (1, 5), "all negative": (4, 1)}[clip]
    grid = make_grid(*CLIPS[clip], bits[1])
    step = edge_layer(graph, len(graph.layers) - 1, [grid] * len(graph.tensors), bits[0])
    assert step.product is not None
    assert step.product.kind == integer_kind(layer) == name.split()[0]
    shape = graph.tensors[layer.inputs[0]].shape
    packed, levels, code = levels_and_codes(options["kernel_shape"], (3,), shape, bits[0], grid)
    ready = integer_weight(step.product, packed)
    keys = ("stride", "padding", "dilation", "groups")
    defaults = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    expected = numpy_sums(code - grid.zero, levels, *({**defaults, **options}[k] for k in keys))
    x = jnp.asarray(code, jnp.int8)
    found = [step.product.sums(x, ready.weight)]
    # The forms of the other backends run here too.
    found += [
        _CONVOLUTIONS[form](step.product.anchor, step.product.pad_code, x, ready.weight)
        for form in sorted(set(FORMS[step.product.kind].values()))
        if not (form == "conv" and step.product.kind == "few")
    ]
    for sums in found:
        assert sums.dtype == jnp.int32
        total = sums if ready.correction is None else sums + ready.correction
        np.testing.assert_array_equal(total, expected)


PRODUCTS = {
    "rows": ("ij,jk->ik", (3, 4), (4, 5)),
    "weight first": ("jk,ij->ki", (4, 5), (3, 4)),
    "several axes": ("abij,ijk->abk", (2, 3, 4, 2), (4, 2, 5)),
    "batched": ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    "a vector": ("j,jk->k", (4,), (4, 5)),
}


@pytest.mark.parametrize("name", list(PRODUCTS))
@pytest.mark.parametrize("w_bits", range(1, 9))
def test_products_are_exact(name, w_bits):
    spec, *shapes = PRODUCTS[name]
    first = name == "weight first"
    weight_shape, data_shape = shapes if first else shapes[::-1]

    def fn(w, x):
        return jnp.einsum(spec, w, x) if first else jnp.einsum(spec, x, w)

    graph = autosplit.trace(
        fn,
        jax.ShapeDtypeStruct(weight_shape, jnp.float32),
        jax.ShapeDtypeStruct(data_shape, jnp.float32),
    )
    index = next(i for i, layer in enumerate(graph.layers) if layer.weight is not None)
    layer, grid = graph.layers[index], make_grid(-0.3, 1.0, 9 - w_bits)
    step = edge_layer(graph, index, [grid] * len(graph.tensors), w_bits)
    assert step.product is not None
    assert step.form("cpu") == step.form("gpu") == "dot"
    packed, levels, code = levels_and_codes(
        weight_shape, layer.weight.channel_axes, data_shape, w_bits, grid
    )
    ready = integer_weight(step.product, packed)
    sums = step.product.sums(jnp.asarray(code, jnp.int8), ready.weight)
    total = sums if ready.correction is None else sums + ready.correction
    expected = step.product.anchor.eqn.outvars[0].aval.shape
    assert total.shape == expected
    operands = (levels, code - grid.zero) if first else (code - grid.zero, levels)
    found = np.sort(np.asarray(total).ravel())
    np.testing.assert_array_equal(found, np.sort(np.einsum(spec, *operands).ravel()))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_shape": (9, 9, 1, 4), "channels": 4, "groups": 4, "size": (9, 9)},
        {"kernel_shape": (3, 3, 2, 260), "channels": 260, "groups": 130},
    ],
)
def test_too_many_taps_or_groups_stay_float(options):
    kind = integer_kind(layer_of(**options).layers[-1])
    assert kind in (None, "grouped")
    assert (kind is None) == (options["groups"] > 64)


def test_a_dense_kernel_has_the_groups_on_its_diagonal():
    kernel = np.arange(1, 1 + 2 * 6).reshape(1, 1, 2, 6).astype(np.int8)
    dense = np.array(dense_kernel(jnp.asarray(kernel), 3))[0, 0]
    assert dense.shape == (6, 6)
    for group in range(3):
        rows, columns = slice(2 * group, 2 * group + 2), slice(2 * group, 2 * group + 2)
        np.testing.assert_array_equal(dense[rows, columns], kernel[0, 0, :, columns])
        dense[rows, columns] = 0
    assert not dense.any()


def test_padding_that_enlarges_is_made_explicit():
    layers = {name: layer_of(**options).layers[-1] for name, options in CONVOLUTIONS.items()}
    zeros = {
        name
        for name, layer in layers.items()
        if pads_with_zeros(integer_kind(layer), layer.anchor)
    }
    assert zeros == {"dense", "dense valid", "dense stride", "dense dilated", "grouped"}


def test_every_backend_has_a_form_for_every_kind():
    for kind in FORMS:
        for backend in ("cpu", "gpu", "tpu"):
            assert form_of(kind, backend) in (*_CONVOLUTIONS, "dot")
