"""quant_mse against NumPy, tensor by tensor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import CalibrationError, InputError
from autosplit.graph import trace
from autosplit.graph.running import prepare
from autosplit.profiling import error_search
from autosplit.profiling.error_search import error_tables

BITS = (1, 2, 3, 4, 6, 8)


def mlp(p, x):
    """Returns every tensor, so that the reference needs no part of the graph."""
    h = jnp.maximum(x @ p["a"], 0)
    y = jnp.tanh(h @ p["b"])
    return h, y, y @ p["c"]


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    params = {
        "a": rng.normal(size=(6, 16)) * np.geomspace(0.01, 10, 16),
        "b": rng.laplace(size=(16, 12)),
        "c": rng.normal(size=(12, 5)),
    }
    params["a"][:, 3] = 0  # a channel without weights
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    graph = trace(mlp, params, jax.ShapeDtypeStruct((2, 6), jnp.float32))
    calls = [jnp.asarray(rng.normal(size=(20, 2, 6)), jnp.float32)]
    return graph, params, calls


@pytest.fixture(scope="module", params=["mse", "minmax", "aciq"])
def tables(case, request):
    graph, params, calls = case
    found = error_tables(graph, prepare(graph, params), calls, jnp.array(BITS), request.param)
    return jax.tree.map(np.asarray, found)


def reference_activation(x, low, high, bits):
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1) or 1.0
    zero = np.rint(-low / scale)
    level = np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1)
    return np.mean((x - (level - zero) * scale) ** 2)


def reference_weight(weight, ratio, bits):
    clip = ratio * np.abs(weight).max(axis=0)
    qmax = max(2 ** (bits - 1) - 1, 1)
    if bits == 1:
        value = np.where(weight < 0, -clip, clip)
    else:
        step = np.where(clip > 0, clip / qmax, 1.0)
        value = np.clip(np.rint(weight / step), -qmax, qmax) * step
    return np.mean((weight - value) ** 2)


def test_activation_errors_equal_numpy(case, tables):
    _, params, (x,) = case
    outputs = jax.vmap(lambda call: mlp(params, call))(x)
    for tensor, value in enumerate([x, *outputs]):
        value = np.asarray(value, np.float64)
        assert tables.extremes[tensor] == pytest.approx([value.min(), value.max()], rel=1e-5)
        for k, bits in enumerate(BITS):
            low, high = tables.activation_low[tensor, k], tables.activation_high[tensor, k]
            expected = reference_activation(value, float(low), float(high), bits)
            assert tables.activation_error[tensor, k] == pytest.approx(expected, rel=2e-3)


def test_weight_errors_equal_numpy(case, tables):
    _, params, _ = case
    for layer, name in enumerate("abc"):
        for k, bits in enumerate(BITS):
            ratio = float(tables.weight_ratio[layer, k])
            expected = reference_weight(np.asarray(params[name], np.float64), ratio, bits)
            assert tables.weight_error[layer, k] == pytest.approx(expected, rel=2e-3)


def test_clips_lie_within_the_range(tables):
    assert (tables.activation_low >= tables.extremes[:, :1]).all()
    assert (tables.activation_high <= tables.extremes[:, 1:]).all()
    assert ((tables.weight_ratio > 0) & (tables.weight_ratio <= 1)).all()


def test_mse_clip_is_near_the_best_for_each_weight(case):
    graph, params, calls = case
    found = error_tables(graph, prepare(graph, params), calls, jnp.array(BITS), "mse")
    for layer, name in enumerate("abc"):
        weight = np.asarray(params[name], np.float64)
        for k, bits in enumerate(BITS):
            best = min(reference_weight(weight, r, bits) for r in np.linspace(0.02, 1, 200))
            # The clip is chosen on a histogram of few values.
            assert float(found.weight_error[layer, k]) <= 1.05 * best


def test_errors_fall_with_bits(case):
    graph, params, calls = case
    found = error_tables(graph, prepare(graph, params), calls, jnp.array(BITS), "mse")
    assert (np.diff(found.weight_error, axis=1) < 0).all()
    assert (np.diff(found.activation_error, axis=1) < 0).all()


def test_bits_are_no_constants_of_the_program(monkeypatch):
    traced = []

    def counting_rule(values, bits, symmetric):
        traced.append(symmetric)
        return values.scaled(1.0 + 0.0 * bits, symmetric)

    monkeypatch.setattr(error_search, "clip_rule", lambda name: counting_rule)
    graph = trace(lambda w, x: x @ w, jnp.ones((3, 4)), jnp.ones((2, 3)))
    weights, calls = prepare(graph, jnp.ones((3, 4))), [jnp.ones((5, 2, 3))]
    for bits in ([2, 4], [3, 5], [7, 8]):
        found = error_tables(graph, weights, calls, jnp.array(bits), "minmax")
        assert found.weight_error.shape == (1, 2)
    assert sorted(traced) == [False, True]


def test_integer_tensors_have_no_error():
    graph = trace(lambda w, i: (i * w).sum(-1), jnp.arange(4), jnp.ones((2, 4), int))
    weights = prepare(graph, jnp.arange(4))
    found = error_tables(graph, weights, [jnp.ones((3, 2, 4), int)], jnp.array([2, 4]), "mse")
    assert not np.any(found.activation_error)
    assert not np.any(found.weight_error)


def test_a_tensor_that_overflows_is_named(make_profile):
    def fn(p, x):
        return jnp.exp(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["a"]

    params = {"a": jnp.ones((3, 3)), "b": jnp.full((3, 3), 100.0)}
    graph = trace(fn, params, jnp.ones((1, 3)))
    with pytest.raises(CalibrationError, match=r"'matmul_1'.*although the inputs are finite"):
        make_profile(graph, params, np.full((2, 3), 1.5))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(make_profile, bad):
    params = {"a": jnp.ones((3, 3)), "b": jnp.ones((3, 3)).at[1, 1].set(bad)}
    graph = trace(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], params, jnp.ones((1, 3)))
    with pytest.raises(InputError, match="weight of the layer 'matmul_1'"):
        make_profile(graph, params, np.ones((2, 3)))
