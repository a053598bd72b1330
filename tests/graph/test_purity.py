"""Functions that cannot be traced raise an error that says why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from autosplit.errors import TraceError
from autosplit.graph import trace

W = jnp.ones((3, 3))
X = jnp.ones((2, 3))


def printing(w, x):
    jax.debug.print("{}", x)
    return x @ w


def calling_back(w, x):
    io_callback(lambda a: None, None, x)
    return x @ w


def branching(w, x):
    return x @ w if x.sum() > 0 else x


def looping(w, x):
    while x.max() < 10:
        x = x @ w
    return x


def through_numpy(w, x):
    return np.asarray(x) @ w


def to_float(w, x):
    return x @ w * float(x[0, 0])


def boolean_mask(w, x):
    return (x @ w)[x > 0]


def shapes_that_do_not_fit(w, x):
    return x @ w.reshape(9, 1)


@pytest.mark.parametrize("fn", [printing, calling_back])
def test_side_effects_raise(fn):
    with pytest.raises(TraceError, match="side effects"):
        trace(fn, W, X)


@pytest.mark.parametrize(
    "fn", [branching, looping, through_numpy, to_float, boolean_mask, shapes_that_do_not_fit]
)
def test_what_jax_cannot_trace_raises_with_its_reason(fn):
    with pytest.raises(TraceError, match=r"cannot be traced: \w+: .*pure JAX function"):
        trace(fn, W, X)


def test_a_counter_in_a_literal_raises():
    calls = []

    def counting(w, x):
        calls.append(0)
        return x @ w * len(calls)

    with pytest.raises(TraceError, match="two traces"):
        trace(counting, W, X)


def test_structure_that_alternates_raises():
    state = {"on": False}

    def alternating(w, x):
        state["on"] = not state["on"]
        return jnp.sin(x @ w) if state["on"] else x @ w

    with pytest.raises(TraceError, match="two traces"):
        trace(alternating, W, X)


def test_fresh_random_numbers_raise():
    random = np.random.default_rng(0)

    def noisy(w, x):
        return x @ w + jnp.asarray(random.normal(size=(2, 3)).astype(np.float32))

    with pytest.raises(TraceError, match="two traces"):
        trace(noisy, W, X)


def test_a_leaked_tracer_raises():
    leaked = []

    def leaky(w, x):
        y = x @ w + (leaked[-1] if leaked else 0)
        leaked.append(y)
        return y

    with pytest.raises(TraceError, match="pure"):
        trace(leaky, W, X)


def test_state_that_is_only_read_is_a_constant():
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    key = jax.random.key(0)

    def reading(w, x):
        return x @ w + table + jax.random.normal(key, (3,))

    assert [layer.kind for layer in trace(reading, W, X).layers] == ["matmul"]
