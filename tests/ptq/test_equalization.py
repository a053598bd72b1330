"""Equalization changes weights, never the function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.graph import trace
from autosplit.graph.running import prepare
from autosplit.profiling.assignment import float_outputs
from autosplit.ptq.equalization import equalize, find_pairs


def names_of(graph, pairs):
    return [(graph.layers[p.first].name, graph.layers[p.second].name) for p in pairs]


def ranges(graph, weights, pair):
    """Returns the ranges of the channels between two layers, by brute force over channels."""
    layers = (weights.layers[i] for i in (pair.first, pair.second))
    first, second = (np.abs(np.asarray(own.weight)) for own in layers)
    r1 = first.max(axis=tuple(range(first.ndim - 1)))
    anchor = graph.layers[pair.second].anchor
    if anchor.primitive == "dot_general":
        return r1, second.max(axis=1)
    groups, outputs = anchor.params["feature_group_count"], second.shape[-1]
    per_group = len(r1) // groups
    r2 = [
        second[:, :, c % per_group, (c // per_group) * outputs // groups :][
            ..., : outputs // groups
        ].max()
        for c in range(len(r1))
    ]
    return r1, np.array(r2)


def test_pairs_are_found_by_structure(net):
    pairs, skipped = find_pairs(net.graph)
    first, depthwise, grouped, capped = range(4)
    found = [(p.first, p.second) for p in pairs]
    assert found[:3] == [(first, depthwise), (depthwise, grouped), (grouped, capped)]
    kinds = {net.graph.layers[p.first].kind for p in pairs[3:]}
    assert len(pairs) == 4
    assert kinds == {"matmul"}  # the hidden product and the last
    assert skipped == ()  # what follows the ReLU6 is a sum with two readers


def test_the_function_is_unchanged_and_the_ranges_meet(net):
    found = equalize(net.graph, net.weights)
    both = (net.weights, found.weights)
    before, after = (float_outputs(net.graph, w, net.calls)[0] for w in both)
    np.testing.assert_allclose(after, before, rtol=2e-4, atol=2e-5)
    for pair in found.pairs:
        old, new = (ranges(net.graph, w, pair) for w in both)
        assert np.abs(np.log(old[0] / old[1])).max() > 0.3
        np.testing.assert_allclose(new[0], new[1], rtol=5e-3)


def test_two_layers_by_hand():
    """One pair takes one step: s = sqrt(r1 r2) / r2."""
    random = np.random.default_rng(1)
    a, b = random.normal(size=(4, 3)), random.normal(size=(3, 2))
    a[:, 1], b[2] = a[:, 1] * 100, 0.0  # a dead channel keeps its scale
    bias = random.normal(size=3)

    def fn(p, x):
        return jax.nn.relu(x @ p["a"] + p["bias"]) @ p["b"]

    params = {k: jnp.asarray(v, jnp.float32) for k, v in {"a": a, "b": b, "bias": bias}.items()}
    graph = trace(fn, params, jax.ShapeDtypeStruct((1, 4), jnp.float32))
    found = equalize(graph, prepare(graph, params)).weights
    r1, r2 = np.abs(a).max(0), np.abs(b).max(1)
    s = np.where(r2 > 0, np.sqrt(r1 * r2) / np.where(r2 > 0, r2, 1), 1.0)
    np.testing.assert_allclose(found.layers[0].weight, a / s, rtol=1e-5)
    np.testing.assert_allclose(np.ravel(found.layers[0].bias), bias / s, rtol=1e-5)
    np.testing.assert_allclose(found.layers[1].weight, b * s[:, None], rtol=1e-5)


@pytest.mark.parametrize("activation", [jax.nn.relu6, jax.nn.sigmoid, jnp.tanh, lambda x: x + 1.0])
def test_what_does_not_commute_with_a_scale_is_skipped_and_counted(activation):
    params = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 2))}
    graph = trace(
        lambda p, x: activation(jnp.maximum(x @ p["a"], 0)) @ p["b"],
        params,
        jax.ShapeDtypeStruct((1, 4), jnp.float32),
    )
    found = equalize(graph, prepare(graph, params))
    assert found.pairs == ()
    assert len(found.skipped) == 1
    np.testing.assert_array_equal(found.weights.layers[0].weight, params["a"])


def test_shared_weights_outputs_and_second_readers_stay():
    params = {"a": jnp.ones((3, 3)), "b": jnp.ones((3, 3))}

    def returned(p, x):
        h = x @ p["a"]
        return h, h @ p["b"]

    def read_twice(p, x):
        h = x @ p["a"]
        return h @ p["b"] + h

    def shared(p, x):
        return (x @ p["a"]) @ p["a"]

    for fn in (returned, read_twice, shared):
        graph = trace(fn, params, jax.ShapeDtypeStruct((1, 3), jnp.float32))
        assert find_pairs(graph) == ((), ()), fn.__name__
