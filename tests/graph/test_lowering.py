"""Every form of a layer gives what XLA's own gives, gradients included, on each backend."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autosplit.graph import _jax_compat as compat
from autosplit.graph import lowering
from autosplit.graph.inlining import flatten

UPSAMPLED = {"lhs_dilation": (2, 2), "padding": [(1, 1), (1, 1)]}


def convolution(x_shape, kernel_shape, dtype=jnp.float32, layout="NHWC", **options):
    """Returns a convolution as XLA runs it, and as `lowering` does."""
    dims = {"NHWC": ("NHWC", "HWIO", "NHWC"), "NCHW": ("NCHW", "OIHW", "NCHW")}[layout]
    options = {"window_strides": (1, 1), "padding": "SAME", **options}

    def plain(x, kernel):
        return lax.conv_general_dilated(x, kernel, dimension_numbers=dims, **options)

    shapes = [jax.ShapeDtypeStruct(s, dtype) for s in (x_shape, kernel_shape)]
    closed, _ = compat.make_jaxpr(plain, shapes)
    (equation,) = flatten(closed).equations

    def lowered(x, kernel):
        return lowering.evaluate(equation, [x, kernel])[0]

    return plain, lowered


def program_for(backend, fn, *shapes, dtype=jnp.float32):
    """The program that a backend would compile; the backend need not be there."""
    traced = jax.jit(fn).trace(*(jax.ShapeDtypeStruct(s, dtype) for s in shapes))
    return traced.lower(lowering_platforms=(backend,)).as_text()


def uses_convolution(fn, *shapes, dtype=jnp.float32, backend="cpu"):
    return "stablehlo.convolution" in program_for(backend, fn, *shapes, dtype=dtype)


def assert_close(found, expected):
    scale = float(jnp.abs(expected).max())
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=1e-5)


def assert_same_values(plain, lowered, *shapes):
    x, kernel = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes))
    assert_close(jax.jit(lowered)(x, kernel), plain(x, kernel))


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        (1, {}),
        (3, {"padding": "VALID"}),
        (2, {"window_strides": (2, 2)}),
        (3, {"window_strides": (2, 3), "padding": [(0, 2), (3, 1)]}),
        (1, {"rhs_dilation": (2, 2)}),
        (3, {"rhs_dilation": (2, 1), "window_strides": (1, 2), "padding": "VALID"}),
    ],
    ids=str,
)
def test_depthwise_equals_convolution(batch, options):
    shapes = (batch, 11, 9, 6), (3, 3, 1, 6)
    plain, lowered = convolution(*shapes, feature_group_count=6, **options)
    assert not uses_convolution(lowered, *shapes)
    assert_same_values(plain, lowered, *shapes)


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (5, 2), (7, 7)])
def test_depthwise_kernels_of_any_size(kernel):
    shapes = (2, 8, 9, 4), (*kernel, 1, 4)
    plain, lowered = convolution(*shapes, feature_group_count=4)
    assert not uses_convolution(lowered, *shapes)
    assert_same_values(plain, lowered, *shapes)


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        (1, {}),
        (3, {"window_strides": (2, 2)}),
        (1, {"window_strides": (3, 2), "padding": "VALID"}),
        (3, {"padding": [(1, 2), (0, 3)]}),
        (2, {"padding": [(1, 1), (1, 1)], "window_strides": (2, 2)}),
        (1, {"rhs_dilation": (3, 3)}),
    ],
    ids=str,
)
def test_pointwise_equals_convolution(batch, options):
    shapes = (batch, 7, 10, 5), (1, 1, 5, 8)
    plain, lowered = convolution(*shapes, **options)
    assert not uses_convolution(lowered, *shapes)
    assert_same_values(plain, lowered, *shapes)


@pytest.mark.parametrize(
    ("channels", "groups", "out_channels", "dense"),
    [
        (4, 2, 6, 1),  # all groups together are still few channels
        (64, 32, 64, 4),
        (12, 12, 24, 1),  # two filters per channel
        (64, 4, 8, 4),  # wide groups stay apart
        (60, 12, 12, 3),  # 4 groups of 5 channels are the first to reach 16
    ],
)
def test_grouped_equals_convolution(channels, groups, out_channels, dense):
    shapes = (2, 7, 6, channels), (3, 2, channels // groups, out_channels)
    options = {"window_strides": (2, 1), "rhs_dilation": (1, 2), "padding": [(1, 0), (0, 2)]}
    plain, lowered = convolution(*shapes, feature_group_count=groups, **options)
    text = program_for("cpu", lowered, *shapes)
    assert text.count("stablehlo.convolution") == dense
    assert "feature_group_count = 1 " in text
    assert_same_values(plain, lowered, *shapes)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window_strides": (2, 3), "padding": [(0, 2), (3, 1)]},
        {"rhs_dilation": (2, 1), "padding": "VALID"},
    ],
    ids=str,
)
def test_few_pixels_equal_convolution(options):
    shapes = (2, 9, 8, 16), (3, 2, 16, 5)
    plain, lowered = convolution(*shapes, **options)
    assert not uses_convolution(lowered, *shapes)
    assert_same_values(plain, lowered, *shapes)


def spatial_sum(axes=(1, 2)):
    """A sum over an image, as XLA runs it and as `lowering` does."""
    shape = jax.ShapeDtypeStruct((2, 5, 4, 3), jnp.float32)
    plain = functools.partial(jnp.sum, axis=axes)
    (equation,) = flatten(compat.make_jaxpr(plain, [shape])[0]).equations
    return plain, lambda x: lowering.evaluate(equation, [x])[0]


def test_spatial_sum_equals_the_sum():
    plain, lowered = spatial_sum()
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    assert "stablehlo.reduce" not in program_for("cpu", lowered, x.shape)
    assert_close(jax.jit(lowered)(x), plain(x))
    assert_close(jax.jit(jax.grad(lambda x: lowered(x**2).sum()))(x), 2 * x)


def test_other_sums_are_left_to_xla():
    plain, lowered = spatial_sum(axes=(0, 1))
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    assert "stablehlo.reduce" in program_for("cpu", lowered, x.shape)
    assert_close(lowered(x), plain(x))


# Kind of layer -> shapes, options, and whether the CPU and other backends run a convolution.
CHOICES = {
    "pointwise": (((1, 5, 5, 4), (1, 1, 4, 6)), {}, False, False),
    "depthwise": (((1, 5, 5, 4), (3, 3, 1, 4)), {"feature_group_count": 4}, False, True),
    "grouped": (((1, 5, 5, 64), (3, 3, 16, 8)), {"feature_group_count": 4}, True, True),
    "few pixels": (((1, 5, 5, 16), (3, 3, 16, 8)), {}, False, True),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_each_backend_gets_the_form_of_its_column(kind):
    shapes, options, on_cpu, on_others = CHOICES[kind]
    plain, lowered = convolution(*shapes, **options)
    own = program_for("cuda", plain, *shapes).count("stablehlo.convolution")
    assert own == 1
    assert uses_convolution(lowered, *shapes) == on_cpu
    for backend in ("cuda", "rocm", "tpu"):
        found = program_for(backend, lowered, *shapes)
        assert found.count("stablehlo.convolution") == int(on_others)
    assert_same_values(plain, lowered, *shapes)


def test_every_kind_is_tested():
    assert {*CHOICES, "spatial sum"} == set(lowering.TABLE)


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((2, 8, 8, 4), (3, 3, 4, 6), {}),
        ((2, 8, 8, 15), (3, 3, 15, 6), {}),
        ((3, 12, 12, 16), (3, 3, 16, 6), {}),
        ((2, 8, 8, 4), (3, 3, 2, 6), {"feature_group_count": 2, **UPSAMPLED}),
        ((2, 9, 9, 4), (9, 9, 1, 4), {"feature_group_count": 4}),
        ((2, 8, 8, 4), (3, 3, 1, 4), {"feature_group_count": 4, **UPSAMPLED}),
        ((2, 8, 8, 4), (1, 1, 4, 6), UPSAMPLED),
        ((2, 8, 8, 4), (1, 1, 4, 6), {"padding": [(-1, 0), (0, -1)]}),
        ((2, 4, 8, 8), (6, 4, 1, 1), {"layout": "NCHW"}),
        ((2, 8, 8, 1), (3, 3, 1, 1), {}),
        ((4, 8, 8, 4), (1, 1, 4, 6), {"batch_group_count": 2}),
    ],
    ids=str,
)
def test_every_other_convolution_is_left_to_xla(x, kernel, options):
    plain, lowered = convolution(x, kernel, **options)
    assert uses_convolution(lowered, x, kernel)
    assert_same_values(plain, lowered, x, kernel)


@pytest.mark.parametrize("groups", [1, 4])
def test_other_result_types_are_left_to_xla(groups):
    shapes = (1, 5, 5, 4), (1, 1, 4 // groups, 4)
    plain, lowered = convolution(
        *shapes, jnp.bfloat16, feature_group_count=groups, preferred_element_type=jnp.float32
    )
    assert uses_convolution(lowered, *shapes, dtype=jnp.bfloat16)
    x, kernel = (jnp.ones(s, jnp.bfloat16) for s in shapes)
    assert lowered(x, kernel).dtype == plain(x, kernel).dtype == jnp.float32


@pytest.mark.parametrize("groups", [1, 4])
def test_bfloat16_stays_bfloat16(groups):
    shapes = (1, 5, 5, 4), (1, 1, 4 // groups, 4)
    plain, lowered = convolution(*shapes, jnp.bfloat16, feature_group_count=groups)
    x = jax.random.normal(jax.random.key(0), shapes[0], jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), shapes[1], jnp.bfloat16)
    found, expected = lowered(x, kernel), plain(x, kernel)
    assert found.dtype == expected.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found), np.float32(expected), rtol=2e-2, atol=2e-2)


def test_works_under_vmap():
    shapes = (1, 6, 6, 4), (3, 3, 1, 4)
    plain, lowered = convolution(*shapes, feature_group_count=4)
    x = jax.random.normal(jax.random.key(0), (5, *shapes[0]))
    kernel = jax.random.normal(jax.random.key(1), shapes[1])
    over_x = functools.partial(jax.vmap, in_axes=(0, None))
    assert_close(over_x(lowered)(x, kernel), over_x(plain)(x, kernel))


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "options"),
    [
        (
            (2, 9, 8, 3),
            (3, 2, 1, 3),
            {"feature_group_count": 3, "window_strides": (2, 1), "rhs_dilation": (1, 2)},
        ),
        ((2, 7, 6, 3), (1, 1, 3, 4), {"window_strides": (2, 3), "padding": [(1, 0), (0, 2)]}),
        ((2, 7, 6, 6), (3, 2, 2, 6), {"feature_group_count": 3, "window_strides": (2, 1)}),
        ((2, 7, 6, 16), (3, 2, 16, 4), {"window_strides": (2, 1), "rhs_dilation": (1, 2)}),
    ],
)
def test_gradients_equal_those_of_the_convolution(x_shape, kernel_shape, options):
    plain, lowered = convolution(x_shape, kernel_shape, **options)
    x, kernel = jax.random.normal(jax.random.key(0), x_shape), jnp.ones(kernel_shape)
    back = jax.random.normal(jax.random.key(2), jax.eval_shape(plain, x, kernel).shape)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(fn, x, kernel):
        return jax.vjp(fn, x, kernel)[1](back)

    for one, other in zip(gradients(lowered, x, kernel), gradients(plain, x, kernel), strict=True):
        assert_close(one, other)
