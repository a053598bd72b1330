"""Output gains: exact for linear functions, a good first-order prediction for others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import InputError
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


def gains(fn, params, x, calls, seed=0, metric="output"):
    """Returns the gains by layer and tensor for calls that repeat ``x``."""
    graph = trace(fn, params, x)
    repeated = jnp.broadcast_to(x, (calls, *x.shape))
    found = output_gains(graph, prepare(graph, params), [repeated], jax.random.key(seed), metric)
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
    by_weights = float((profiled.weight_gain * profiled.weight_error)[:, k].sum())
    by_tensors = float((profiled.activation_gain * profiled.activation_error)[:, k].sum())
    for predicted, found in (
        (by_weights, measured(bits, only_weights=True)),
        (by_tensors, measured(bits, only_activations=True)),
        (by_weights + by_tensors, measured(bits)),
    ):
        assert 0.5 < predicted / found < 2


def test_prediction_orders_the_bits(profiled, measured):
    found = [measured(int(bits)) for bits in profiled.bits]
    assert found == sorted(found, reverse=True)


# ---- Fisher


def two_layers(seed=0, scale=1.0):
    """Returns ``tanh(x A) B`` for two rows, its parameters and input, all in NumPy."""
    rng = np.random.default_rng(seed)
    x, a, b = (rng.normal(size=s) for s in ((2, 4), (4, 3), (3, 5)))
    return lambda p, x: jnp.tanh(x @ p[0]) @ p[1], (a, b * scale), x


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def exact_fisher_gains(params, x):
    """Computes tr(J^T F J) / 2 a row, by the Jacobians of each weight and tensor in NumPy."""
    a, b = params
    h = np.tanh(x @ a)
    found = {"A": 0.0, "product": 0.0, "B": 0.0, "logits": 0.0}
    for row in range(len(x)):
        p = softmax(h[row] @ b)
        fisher = np.diag(p) - np.outer(p, p)
        by_logits = np.eye(len(p))
        by_product = (1 - h[row] ** 2)[:, None] * b  # [hidden, classes]
        by_a = np.einsum("i,jc->ijc", x[row], by_product).reshape(-1, len(p))
        by_b = np.einsum("i,jc->ijc", h[row], by_logits).reshape(-1, len(p))
        for name, jacobian in (
            ("A", by_a), ("product", by_product), ("B", by_b), ("logits", by_logits)
        ):  # fmt: skip
            found[name] += np.einsum("nc,cd,nd->", jacobian, fisher, jacobian) / 2 / len(x)
    return found


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_fisher_gains_are_those_of_the_exact_matrices(scale):
    fn, params, x = two_layers(scale=scale)
    exact = exact_fisher_gains(params, x)
    as_jax = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), (params, x))
    graph, by_layer, by_tensor = gains(fn, *as_jax, calls=600, metric="fisher")
    first, second = (i for i, layer in enumerate(graph.layers) if layer.weight is not None)
    np.testing.assert_allclose(by_layer[[first, second]], [exact["A"], exact["B"]], rtol=0.1)
    (output,) = graph.outputs
    assert by_tensor[output] == pytest.approx(exact["logits"], rel=0.1)
    product = graph.layers[first].outputs[0]
    if not any(e.primitive == "tanh" for e in graph.layers[first].equations):
        assert by_tensor[product] == pytest.approx(exact["product"], rel=0.1)


def test_fisher_gains_predict_the_divergence_of_small_noise():
    fn, params, x = two_layers(seed=3)
    exact = exact_fisher_gains(params, x)
    rng = np.random.default_rng(0)
    p = softmax(np.asarray(fn(params, x), np.float64))
    variance, measured = 1e-4, []
    for _ in range(400):
        moved = params[0] + rng.normal(size=params[0].shape) * variance**0.5
        q = softmax(np.tanh(x @ moved) @ params[1])
        measured.append((p * np.log(p / q)).sum(-1).mean())
    assert np.mean(measured) == pytest.approx(variance * exact["A"], rel=0.15)


def test_a_sure_network_has_small_fisher_gains():
    fn, (a, b), x = two_layers()
    found = [
        gains(fn, (jnp.asarray(a), jnp.asarray(b * s)), jnp.asarray(x), 20, metric="fisher")[1]
        for s in (1.0, 1000.0)
    ]
    # Its own class is certain: noise behind it changes no prediction.
    assert found[1][-1] < 1e-3 * found[0][-1]


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (lambda p, x: (x @ p, x), "one of logits"),
        (lambda p, x: (x @ p).sum(), "one of logits"),
        (lambda p, x: jax.lax.while_loop(lambda c: c.max() > 1, lambda c: c / 2, x @ p),
         "no backward pass"),
    ],
)  # fmt: skip
def test_fisher_gains_need_one_output_of_classes(fn, said):
    with pytest.raises(InputError, match=said):
        gains(fn, jnp.eye(3), jnp.ones((2, 3)), 1, metric="fisher")


def test_a_metric_that_nobody_knows():
    with pytest.raises(InputError, match="output, fisher"):
        gains(lambda p, x: x @ p, jnp.eye(3), jnp.ones((2, 3)), 1, metric="hessian")
