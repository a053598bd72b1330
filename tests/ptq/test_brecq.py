"""BRECQ: blocks on small networks, learned activation steps, and the importance of outputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autosplit.errors import InputError
from autosplit.graph import trace
from autosplit.graph.running import prepare
from autosplit.profiling.assignment import (
    assignment_outputs,
    float_outputs,
    quantized_weights,
    relative_error,
)
from autosplit.ptq import Recipe, quantize
from autosplit.ptq.block_loss import stepped
from autosplit.ptq.brecq import brecq
from autosplit.ptq.importance import importance_of
from autosplit.workload import FLOAT_BITS


def output_error(net, quantized):
    reference = float_outputs(net.graph, net.weights, net.calls)
    outputs = assignment_outputs(net.graph, quantized.weights, quantized.assignment, net.calls)
    return relative_error(outputs, reference)


CASES = [
    (3, FLOAT_BITS),
    pytest.param((4, FLOAT_BITS), marks=pytest.mark.heavy),
    pytest.param((4, 4), marks=pytest.mark.heavy),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def learned(request, net):
    w_bits, a_bits = request.param
    recipe = Recipe(w_bits=w_bits, a_bits=a_bits, first_last_bits=None)
    nearest = quantize(net.graph, net.params, net.images, recipe)
    lines = []
    found = brecq(
        net.graph, net.weights, nearest.assignment, net.calls, steps=300, on_progress=lines.append
    )
    return nearest, found, lines


def test_the_output_error_is_below_that_of_nearest_rounding(net, learned):
    nearest, found, lines = learned
    assert output_error(net, found) < 0.9 * output_error(net, nearest)
    assert len(lines) == 3  # blocks


def test_weights_lie_on_the_grid_within_one_level(net, learned):
    nearest, found, _ = learned
    same = quantized_weights(found.weights, found.assignment)
    plain = quantized_weights(net.weights, nearest.assignment)
    for old, new, again, high in zip(
        plain.layers, found.weights.layers, same.layers, nearest.assignment.w_high, strict=True
    ):
        if new.weight is not None:
            np.testing.assert_array_equal(new.weight, again.weight)
            bits = int(nearest.assignment.w_bits[0])
            step = high / (2 ** (bits - 1) - 1)
            assert np.abs((new.weight - old.weight) / step).max() < 1 + 1e-4


def test_only_clips_of_quantized_tensors_inside_are_learned(net, learned):
    nearest, found, _ = learned
    before, after = nearest.assignment, found.assignment
    for name in ("on_edge", "w_bits", "a_bits"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    moved = np.asarray(before.a_high != after.a_high)
    quantized = np.asarray(before.a_bits) < FLOAT_BITS
    assert not moved[~quantized].any()
    assert not moved[list(net.graph.inputs)].any()
    assert moved.any() == quantized.any()
    # One factor for both ends: zero stays a level.
    factor = np.asarray(after.a_high / before.a_high)
    both = moved & (np.asarray(before.a_low) != 0)
    np.testing.assert_allclose((after.a_low / before.a_low)[both], factor[both], rtol=1e-4)


def test_the_gradient_by_the_step_is_that_of_lsq():
    random = np.random.default_rng(0)
    x = random.normal(0, 1.5, 200).astype(np.float32)
    low, high, bits = -1.0, 2.0, 3
    scale = (high - low) / 7
    zero = np.round(-low / scale)

    def total(growth, x):
        return stepped(x, (jnp.float32(low), jnp.float32(high), jnp.int32(bits)), growth).sum()

    by_growth, by_x = jax.grad(total, (0, 1))(jnp.float32(0), jnp.asarray(x))
    level = np.round(x / scale) + zero
    inside = (level >= 0) & (level <= 7)
    # Esser et al., equation 3; the growth is the logarithm of the step.
    by_step = np.where(inside, np.round(x / scale) - x / scale, np.clip(level, 0, 7) - zero)
    assert float(by_growth) == pytest.approx(scale * by_step.sum(), rel=1e-3)
    np.testing.assert_array_equal(by_x, inside.astype(np.float32))


def test_importance_is_the_diagonal_of_the_fisher_matrix():
    random = np.random.default_rng(0)
    v, w = (random.normal(size=s).astype(np.float32) for s in ((5, 4), (4, 3)))
    params = {"v": jnp.asarray(v), "w": jnp.asarray(w)}
    graph = trace(
        lambda p, x: jnp.tanh(x @ p["v"]) @ p["w"], params,
        jax.ShapeDtypeStruct((1, 5), jnp.float32),
    )  # fmt: skip
    weights = prepare(graph, params)
    (hidden,) = graph.layers[0].outputs
    two = random.normal(size=(2, 1, 5)).astype(np.float32)
    logits = (np.tanh(two @ v) @ w)[:, 0]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    fisher = np.array([np.diag(w @ (np.diag(q) - np.outer(q, q)) @ w.T) for q in p])
    many = [jnp.asarray(np.tile(two, (2000, 1, 1)))]
    found = importance_of(graph, weights, many, [hidden])[hidden].astype(jnp.float32)
    np.testing.assert_allclose(
        found[:, 0].reshape(2000, 2, 4).mean(0), fisher / fisher.mean(), rtol=0.1
    )

    labels = np.array([2, 0])
    exact = importance_of(graph, weights, [jnp.asarray(two)], [hidden], labels=labels)[hidden]
    gradient = (p - np.eye(3)[labels]) @ w.T
    expected = gradient**2 / np.mean(gradient**2)
    np.testing.assert_allclose(exact[:, 0].astype(jnp.float32), expected, rtol=0.03)


@pytest.mark.heavy
def test_outputs_that_are_no_classes_and_loops_that_no_gradient_passes():
    def plain(p, x):
        h = jax.nn.relu(x @ p)
        return {"a": h @ p, "b": h.sum(), "order": jnp.argsort(h, -1)}

    def looping(p, x):
        h = jax.nn.relu(x @ p)
        h = lax.while_loop(lambda s: s.sum() > 1, lambda s: s * 0.5, h)
        return h @ p

    random = np.random.default_rng(0)
    p = jnp.asarray(random.laplace(size=(6, 6)), jnp.float32)
    x = random.normal(size=(20, 3, 6)).astype(np.float32)
    for fn, some in ((plain, True), (looping, False)):
        graph = trace(fn, p, jax.ShapeDtypeStruct((3, 6), jnp.float32))
        weights, calls = prepare(graph, p), [jnp.asarray(x)]
        tensors = range(len(graph.tensors))
        assert bool(importance_of(graph, weights, calls, list(tensors))) == some
        recipe = Recipe(w_bits=3, a_bits=FLOAT_BITS, first_last_bits=None)
        nearest = quantize(graph, p, x, recipe)
        found = brecq(graph, weights, nearest.assignment, calls, steps=150)
        reference = float_outputs(graph, weights, calls)
        before, after = (
            relative_error(assignment_outputs(graph, q.weights, q.assignment, calls), reference)
            for q in (nearest, found)
        )
        assert after <= before


def test_float_bits_leave_everything(net):
    recipe = Recipe(w_bits=FLOAT_BITS, a_bits=FLOAT_BITS, first_last_bits=None)
    plain = quantize(net.graph, net.params, net.images, recipe)
    found = brecq(net.graph, net.weights, plain.assignment, net.calls, steps=3)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_the_cloud_half_stays_and_reads_what_arrives(net):
    """Layers in the cloud keep their weights; those before them are learned all the same."""
    recipe = Recipe(w_bits=3, a_bits=FLOAT_BITS, first_last_bits=None)
    plain = quantize(net.graph, net.params, net.images, recipe)
    count = len(net.graph.layers)
    on_edge = np.arange(count) < count // 2
    assignment = dataclasses.replace(
        plain.assignment, on_edge=jnp.asarray(on_edge),
        w_bits=jnp.where(on_edge, plain.assignment.w_bits, FLOAT_BITS),
    )  # fmt: skip
    found = brecq(net.graph, net.weights, assignment, net.calls, steps=20, labels=net.labels)
    for index in np.flatnonzero(~on_edge):
        jax.tree.map(np.testing.assert_array_equal, found.weights.layers[index],
                     net.weights.layers[index])  # fmt: skip


def test_labels_need_classes():
    graph = trace(lambda p, x: x @ p, jnp.eye(3), jax.ShapeDtypeStruct((3,), jnp.float32))
    weights = prepare(graph, jnp.eye(3))
    x = np.ones((2, 3), np.float32)
    recipe = Recipe(w_bits=4, a_bits=8, first_last_bits=None)
    assignment = quantize(graph, jnp.eye(3), x, recipe).assignment
    with pytest.raises(InputError, match="labels are given"):
        brecq(graph, weights, assignment, [jnp.asarray(x)], labels=np.array([0, 1]))
