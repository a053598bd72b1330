"""Output gains: exact for linear functions, a good first-order prediction for others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.graph import trace
from autosplit.graph.running import prepare
from autosplit.profiling.assignment import (
    Assignment,
    assignment_outputs,
    float_outputs,
    relative_error,
    weight_clips,
)
from autosplit.profiling.sensitivity import output_gains
from autosplit.workload import FLOAT_BITS


def gains(fn, params, x, calls, seed=0):
    """Returns the gains by layer and tensor for calls that repeat ``x``."""
    graph = trace(fn, params, x)
    repeated = jnp.broadcast_to(x, (calls, *x.shape))
    found = output_gains(graph, prepare(graph, params), [repeated], jax.random.key(seed))
    return graph, *(np.asarray(g) for g in found)


def test_linear_function_has_the_gains_of_its_matrices():
    rng = np.random.default_rng(0)
    x, a, b = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 4), (4, 6), (6, 5)))
    graph, by_layer, by_tensor = gains(lambda p, x: (x @ p[0]) @ p[1], (a, b), x, 600)
    norm = float(jnp.sum((x @ a @ b) ** 2))
    # d f = x dA B and h dB; d f = dh B for each of the two rows.
    expected = [
        float(jnp.sum(x**2) * jnp.sum(b**2)) / norm,
        float(jnp.sum((x @ a) ** 2)) * 5 / norm,
    ]
    np.testing.assert_allclose(by_layer, expected, rtol=0.05)
    hidden, output = (layer.outputs[0] for layer in graph.layers)
    assert by_tensor[hidden] == pytest.approx(2 * float(jnp.sum(b**2)) / norm, rel=0.05)
    # An output moves itself: exact for any signs.
    assert by_tensor[output] == pytest.approx(2 * 5 / norm, rel=1e-5)


def test_a_tensor_read_twice_counts_both_ways():
    a = jnp.eye(3) * 2

    def fn(p, x):
        h = x @ p
        return h @ p + h @ p

    graph, _, by_tensor = gains(fn, a, jnp.ones((1, 3)), 4)
    hidden = graph.layers[0].outputs[0]
    # f = 4 h: the Jacobian is 4 I (diagonal: exact), f = 8.
    assert by_tensor[hidden] == pytest.approx(3 * 16 / (3 * 64), rel=1e-5)


def test_inputs_integers_and_layers_without_weight_have_none():
    def fn(p, x):
        h = jax.nn.relu(x @ p)
        return jnp.take_along_axis(h, jnp.argsort(h, -1), -1), h.max()

    graph, by_layer, by_tensor = gains(fn, jnp.eye(4), jnp.arange(8.0).reshape(2, 4), 2)
    for index, layer in enumerate(graph.layers):
        assert (by_layer[index] > 0) == (layer.weight is not None)
    for index, tensor in enumerate(graph.tensors):
        assert (by_tensor[index] > 0) == (tensor.is_float and tensor.producer >= 0)


def test_what_a_while_loop_reads_counts_as_an_output():
    def fn(p, x):
        h = jnp.tanh(x @ p)
        return jax.lax.while_loop(lambda c: jnp.abs(c).max() > 0.1, lambda c: c / 2, h)

    graph, by_layer, by_tensor = gains(fn, jnp.eye(4), jnp.ones((2, 4)), 2)
    matmul, loop = graph.layers
    assert np.isfinite([*by_layer, *by_tensor]).all()
    assert by_layer[0] > 0
    assert by_tensor[matmul.outputs[0]] > 0
    assert by_tensor[loop.outputs[0]] > 0


def test_loops_of_known_length_are_differentiated():
    def fn(p, x):
        h, _ = jax.lax.scan(lambda c, w: (c @ w, None), x @ p["a"], p["ws"])
        return h

    rng = np.random.default_rng(1)
    params = {"a": jnp.eye(4), "ws": jnp.asarray(rng.normal(size=(3, 4, 4)), jnp.float32)}
    graph, _, by_tensor = gains(fn, params, jnp.ones((1, 4)), 400)
    product = np.linalg.multi_dot(np.asarray(params["ws"]))
    norm = np.sum((np.ones((1, 4)) @ product) ** 2)
    hidden = graph.layers[0].outputs[0]
    assert by_tensor[hidden] == pytest.approx(np.sum(product**2) / norm, rel=0.1)


@pytest.fixture(scope="module")
def measured(net, profiled):
    """Returns a function from bit-widths to the measured output error; it compiles once."""
    graph, profile = net.graph, profiled
    weights = prepare(graph, net.params)
    calls = [jnp.asarray(net.calibration[:, None])]
    reference = float_outputs(graph, weights, calls)
    made = profile.producer >= 0

    def error(bits, only_weights=False, only_activations=False):
        k = int(np.searchsorted(profile.bits, bits))
        plain = Assignment(
            on_edge=jnp.ones(len(graph.layers), bool),
            w_bits=jnp.full(len(graph.layers), FLOAT_BITS),
            w_high=weight_clips(graph, weights, profile.weight_ratio[:, k]),
            a_bits=jnp.full(len(graph.tensors), FLOAT_BITS),
            a_low=jnp.asarray(profile.activation_low[:, k], jnp.float32),
            a_high=jnp.asarray(profile.activation_high[:, k], jnp.float32),
        )
        changes = {}
        if not only_activations:
            changes["w_bits"] = jnp.where(profile.has_weight, bits, FLOAT_BITS)
        if not only_weights:
            changes["a_bits"] = jnp.where(made, bits, FLOAT_BITS)
        chosen = dataclasses.replace(plain, **changes)
        return relative_error(assignment_outputs(graph, weights, chosen, calls), reference)

    return error


@pytest.mark.parametrize("bits", [6, 8])
def test_predicted_error_is_near_the_measured_one(profiled, measured, bits):
    k = int(np.searchsorted(profiled.bits, bits))
    by_weights = float(profiled.weight_gain @ profiled.weight_error[:, k])
    by_tensors = float(profiled.activation_gain @ profiled.activation_error[:, k])
    for predicted, found in (
        (by_weights, measured(bits, only_weights=True)),
        (by_tensors, measured(bits, only_activations=True)),
        (by_weights + by_tensors, measured(bits)),
    ):
        assert 0.5 < predicted / found < 2


def test_prediction_orders_the_bits(profiled, measured):
    found = [measured(int(bits)) for bits in profiled.bits]
    assert found == sorted(found, reverse=True)
