"""Corrections of biases and weights against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.graph import trace
from autosplit.graph.running import prepare
from autosplit.profiling.assignment import (
    Assignment,
    Quantized,
    assignment_outputs,
    float_outputs,
    relative_error,
)
from autosplit.ptq.bias_correction import correct_biases
from autosplit.ptq.weight_correction import correct_weights
from autosplit.workload import FLOAT_BITS

from .conftest import quantized_tensor, quantized_weight

BITS = 3


@pytest.fixture(scope="module")
def two_layers():
    random = np.random.default_rng(2)
    params = {
        "a": jnp.asarray(random.laplace(size=(6, 9)), jnp.float32),
        "bias": jnp.asarray(random.normal(size=9), jnp.float32),
        "b": jnp.asarray(random.laplace(size=(9, 4)), jnp.float32),
    }
    graph = trace(
        lambda p, x: jax.nn.relu(x @ p["a"] + p["bias"]) @ p["b"],
        params,
        jax.ShapeDtypeStruct((2, 6), jnp.float32),
    )
    x = np.abs(random.normal(size=(30, 2, 6))).astype(np.float32)
    clips = [np.abs(np.asarray(params[n])).max(0, keepdims=True) * 0.7 for n in ("a", "b")]
    assignment = Assignment(
        on_edge=jnp.ones(2, bool), w_bits=jnp.full(2, BITS), w_high=tuple(map(jnp.asarray, clips)),
        a_bits=jnp.array([FLOAT_BITS, BITS, FLOAT_BITS]), a_low=jnp.zeros(3),
        a_high=jnp.array([0.0, 4.0, 0.0]),
    )  # fmt: skip
    quantized = Quantized(weights=prepare(graph, params), assignment=assignment)
    return graph, params, x, clips, quantized


def test_biases_equal_numpy_layer_by_layer(two_layers):
    graph, params, x, clips, quantized = two_layers
    found = correct_biases(graph, quantized.weights, quantized, [jnp.asarray(x)])
    a, b, bias = (np.asarray(params[n], np.float64) for n in ("a", "b", "bias"))
    x = x.reshape(-1, 6)
    levels = quantized_weight(a, clips[0], BITS)
    first = bias - (x @ (levels - a)).mean(0)
    np.testing.assert_allclose(np.ravel(found.weights.layers[0].bias), first, rtol=1e-4, atol=1e-4)
    # The second layer sees what the corrected first one writes, quantized.
    seen = quantized_tensor(np.maximum(x @ levels + first, 0), 0.0, 4.0, BITS)
    second = -(seen @ (quantized_weight(b, clips[1], BITS) - b)).mean(0)
    # A level of 3 bits may turn where float32 and float64 differ.
    np.testing.assert_allclose(np.ravel(found.weights.layers[1].bias), second, rtol=1e-2, atol=1e-2)


def test_the_mean_of_a_single_layer_is_that_of_float():
    random = np.random.default_rng(3)
    params = {"a": jnp.asarray(random.laplace(size=(6, 9)), jnp.float32)}
    graph = trace(lambda p, x: x @ p["a"], params, jax.ShapeDtypeStruct((2, 6), jnp.float32))
    calls = [jnp.asarray(random.gamma(1.0, size=(30, 2, 6)), jnp.float32)]
    assignment = Assignment(
        on_edge=jnp.ones(1, bool), w_bits=jnp.full(1, BITS), w_high=(jnp.ones((1, 9)),),
        a_bits=jnp.full(2, FLOAT_BITS), a_low=jnp.zeros(2), a_high=jnp.zeros(2),
    )  # fmt: skip
    quantized = Quantized(weights=prepare(graph, params), assignment=assignment)
    found = correct_biases(graph, quantized.weights, quantized, calls)
    target = float_outputs(graph, quantized.weights, calls)[0].mean((0, 1))
    for each, close in ((quantized, False), (found, True)):
        (y,) = assignment_outputs(graph, each.weights, each.assignment, calls)
        assert np.allclose(y.mean((0, 1)), target, atol=1e-4) == close


def test_corrected_weights_keep_mean_and_deviation_of_channels(two_layers):
    graph, params, x, clips, quantized = two_layers
    found = correct_weights(graph, quantized, [jnp.asarray(x)])
    a = np.asarray(params["a"], np.float64)
    levels = quantized_weight(a, clips[0], BITS)
    xi = a.std(0) / levels.std(0)
    np.testing.assert_allclose(found.weights.layers[0].weight, levels * xi, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.assignment.w_high[0], clips[0] * xi, rtol=1e-4)
    # The offset acts through the bias, at the mean of the inputs.
    offset = a.mean(0) - (levels * xi).mean(0)
    bias = np.asarray(params["bias"]) + offset * x.reshape(-1, 6).sum(1).mean()
    np.testing.assert_allclose(np.ravel(found.weights.layers[0].bias), bias, rtol=1e-4, atol=1e-4)


def test_corrected_weights_lie_on_their_grid(two_layers):
    graph, _, x, _, quantized = two_layers
    found = correct_weights(graph, quantized, [jnp.asarray(x)])
    for own, clip in zip(found.weights.layers, found.assignment.w_high, strict=True):
        weight = np.asarray(own.weight, np.float64)
        again = quantized_weight(weight, np.asarray(clip, np.float64), BITS)
        np.testing.assert_allclose(again, weight, rtol=1e-5, atol=1e-6)


def test_correction_lowers_the_output_error(net):
    clips = tuple(
        None if own.weight is None else jnp.max(jnp.abs(own.weight), keepdims=True)
        for own in net.weights.layers
    )
    tensors = len(net.graph.tensors)
    assignment = Assignment(
        on_edge=jnp.ones(len(clips), bool), w_bits=jnp.full(len(clips), BITS), w_high=clips,
        a_bits=jnp.full(tensors, FLOAT_BITS), a_low=jnp.zeros(tensors), a_high=jnp.zeros(tensors),
    )  # fmt: skip
    quantized = Quantized(weights=net.weights, assignment=assignment)
    target = float_outputs(net.graph, net.weights, net.calls)

    def error(one):
        found = assignment_outputs(net.graph, one.weights, one.assignment, net.calls)
        return relative_error(found, target)

    corrected = correct_biases(net.graph, net.weights, quantized, net.calls)
    assert error(corrected) < error(quantized)
    unchanged = dataclasses.replace(
        quantized, assignment=dataclasses.replace(assignment, w_bits=jnp.full(len(clips), 32))
    )
    again = correct_biases(net.graph, net.weights, unchanged, net.calls)
    assert error(again) < 1e-9
