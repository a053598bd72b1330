"""Primitives: families, layers that stand alone, and those that are unknown."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from autosplit.errors import UnknownPrimitiveError
from autosplit.graph import primitives, trace


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def kinds(fn, *inputs):
    return [layer.kind for layer in trace(lambda _, *a: fn(*a), (), *inputs).layers]


def test_no_primitive_is_in_two_families():
    families = list(primitives._FAMILIES.values())
    assert sum(map(len, families)) == len(frozenset().union(*families))
    assert not set(primitives._KINDS) & frozenset().union(*families)


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("fft", lambda x: jnp.fft.fft(x).real),
        ("cholesky", lambda x: lax.linalg.cholesky(x @ x.T)),
        ("triangular_solve", lambda x: lax.linalg.triangular_solve(x, x)),
        ("eigh", lambda x: jnp.linalg.eigh(x)[0]),
        (
            "pure_callback",
            lambda x: jax.pure_callback(lambda a: a, jax.ShapeDtypeStruct((4, 4), x.dtype), x),
        ),
    ],
)
def test_unknown_primitives_raise_with_name_and_place(name, fn):
    with pytest.raises(UnknownPrimitiveError, match=name) as caught:
        trace(lambda w, x: fn(x @ w), shaped(4, 4), shaped(4, 4))
    assert "test_primitives.py" in str(caught.value)


def test_unknown_primitives_of_parameters_alone_are_hoisted():
    graph = trace(lambda w, x: x @ lax.linalg.cholesky(w), shaped(4, 4), shaped(2, 4))
    assert [layer.kind for layer in graph.layers] == ["matmul"]


@pytest.mark.parametrize(
    ("kind", "fn"),
    [
        ("sort", jnp.sort),
        ("sort", lambda x: lax.top_k(x, 2)),
        ("sort", lambda x: jnp.argsort(x)),
        ("loop", lambda x: lax.scan(lambda c, row: (c + row, c * 2), x[0], x)[1]),
        ("loop", lambda x: lax.while_loop(lambda v: v.sum() < 9, lambda v: v + 1, x)),
        ("loop", lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x)),
        ("loop", lambda x: lax.fori_loop(0, 3, lambda i, v: v * 2, x)),
        ("scatter", lambda x: x.at[1].set(7.0)),
        ("reduce", lambda x: x.sum()),
        ("reduce", lambda x: jax.nn.softmax(x)),
        ("elementwise", lambda x: jnp.sin(x) * 2),
        ("gather", lambda x: x[jnp.array([0, 2]), jnp.array([1, 1])]),
    ],
)
def test_single_layers(kind, fn):
    found = kinds(fn, shaped(4, 4))
    assert found[-1] == kind or (kind == "gather" and found == ["reshape"])
    assert sum(k in ("loop", "sort", "scatter") for k in found) == (
        kind in ("loop", "sort", "scatter")
    )


@pytest.mark.parametrize("length", [1, 5])
def test_scan_costs_its_length(length):
    def fn(w, x):
        return lax.scan(lambda c, _: (jax.nn.relu(c @ w), None), x, None, length=length)[0]

    (layer,) = trace(fn, shaped(4, 4), shaped(2, 4)).layers
    assert layer.kind == "loop"
    assert layer.macs == length * 2 * 4 * 4


def test_nested_scan_costs_the_product_of_the_lengths():
    def inner(w, x):
        return lax.scan(lambda c, _: (c @ w, None), x, None, length=3)[0]

    def outer(w, x):
        return lax.scan(lambda c, _: (inner(w, c), None), x, None, length=5)[0]

    (layer,) = trace(outer, shaped(4, 4), shaped(2, 4)).layers
    assert layer.macs == 15 * 2 * 4 * 4


def test_cond_costs_its_dearest_branch():
    def fn(w, x):
        return lax.cond(x[0, 0] > 0, lambda v: v @ w @ w, lambda v: v @ w, x)

    loop = trace(fn, shaped(4, 4), shaped(2, 4)).layers[-1]
    assert loop.kind == "loop"
    assert loop.macs == 2 * (2 * 4 * 4)


def test_while_costs_one_pass():
    def fn(w, x):
        return lax.while_loop(lambda v: v.sum() < 9, lambda v: v @ w, x)

    (layer,) = trace(fn, shaped(4, 4), shaped(2, 4)).layers
    assert layer.macs == 2 * 4 * 4


def test_unknown_primitive_inside_a_loop_raises():
    def fn(_, x):
        return lax.scan(lambda c, _: (jnp.fft.fft(c).real, None), x, None, length=2)[0]

    with pytest.raises(UnknownPrimitiveError, match="fft"):
        trace(fn, (), shaped(4))
