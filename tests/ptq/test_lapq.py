"""LAPQ: clips by the p-norm, the parabola, and the joint search."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.profiling.assignment import assignment_outputs, float_outputs, quantized_weights
from autosplit.ptq import Recipe
from autosplit.ptq.calibration_loss import calibration_loss
from autosplit.ptq.clips import assignment_for, collect_shapes
from autosplit.ptq.lapq import (
    BOUNDS,
    P_GRID,
    joint_search,
    lp_start,
    named_start,
    parabola_vertex,
    scale_clips,
)
from autosplit.ptq.pipeline import loss_of
from autosplit.workload import FLOAT_BITS

from .conftest import quantized_tensor

BITS = 3


@pytest.fixture(scope="module")
def start(net):
    shapes = collect_shapes(net.graph, net.weights, net.calls, "channel")
    recipe = Recipe(w_bits=BITS, a_bits=BITS, first_last_bits=None)
    return shapes, assignment_for(net.graph, recipe, shapes)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_losses_equal_numpy(net, start):
    shapes, empty = start
    assignment = named_start("l2", shapes, empty)
    found, target = (
        np.asarray(y[0], np.float64)
        for y in (
            assignment_outputs(net.graph, net.weights, assignment, net.calls),
            float_outputs(net.graph, net.weights, net.calls),
        )
    )
    p, q = softmax(target), softmax(found)
    divergence = np.mean(np.sum(p * np.log(p / q), -1))
    assert loss_of(net.graph, net.weights, net.calls)(assignment) == pytest.approx(
        divergence, rel=1e-4
    )
    labels = net.labels.reshape(12, 2)
    entropy = -np.mean(np.log(np.take_along_axis(q, labels[..., None], -1)))
    by_labels = loss_of(net.graph, net.weights, net.calls, net.labels)
    assert by_labels(assignment) == pytest.approx(entropy, rel=1e-4)


@pytest.mark.parametrize("p", [2.0, 3.0])
def test_clips_of_the_p_norm_are_nearly_the_best_of_all(net, start, p):
    """Against a fine search on the values themselves."""
    shapes, empty = start
    found = named_start(f"l{int(p)}", shapes, empty)
    x = np.asarray(net.images, np.float64)

    def error(high):
        low = high / x.max() * x.min()
        return np.mean(np.abs(x - quantized_tensor(x, low, high, BITS)) ** p)

    best = min(error(r * x.max()) for r in np.linspace(0.1, 1, 200))
    assert error(float(found.a_high[0])) < 1.03 * best


@pytest.mark.parametrize(
    ("losses", "vertex"),
    [([4, 1, 0, 1, 4], 2), ([0, 1, 0], None), ([9, 4, 1], None), ([1, np.nan, 1], None)],
)
def test_parabola(losses, vertex):
    found = parabola_vertex(range(len(losses)), losses)
    assert found == (None if vertex is None else pytest.approx(vertex))


def test_the_start_is_the_best_of_grid_and_vertex(net, start):
    shapes, empty = start
    loss = loss_of(net.graph, net.weights, net.calls)
    tried = []
    found, p = lp_start(shapes, empty, lambda a: tried.append(loss(a)) or tried[-1])
    assert len(tried) in (len(P_GRID), len(P_GRID) + 1)
    assert loss(found) == min(tried)
    assert P_GRID[0] <= p <= P_GRID[-1]


def test_scales_multiply_the_chosen_clips_alone(net, start):
    shapes, empty = start
    before = named_start("none", shapes, empty)
    after = scale_clips(before, {("weight", 1): 0.5, ("tensor", 2): 2.0})
    for i, (old, new) in enumerate(zip(before.w_high, after.w_high, strict=True)):
        if old is not None:
            np.testing.assert_allclose(new, old * (0.5 if i == 1 else 1.0))
    wanted = np.asarray(before.a_high) * np.where(np.arange(len(before.a_high)) == 2, 2.0, 1.0)
    np.testing.assert_allclose(after.a_high, wanted)


@pytest.mark.parametrize("init", ["lp", "none", "average", "laplace", "gauss", "l1", "l3"])
def test_the_search_never_ends_worse_than_it_starts(net, start, init):
    shapes, empty = start
    loss = loss_of(net.graph, net.weights, net.calls)
    first = (
        lp_start(shapes, empty, loss)[0] if init == "lp" else named_start(init, shapes, empty)
    )
    found = joint_search(net.graph, first, loss, evaluations=60, iterations=1)
    assert found.start_loss == loss(first)
    assert found.loss == loss(found.assignment) <= found.start_loss
    ratio = np.asarray(found.assignment.a_high) / np.maximum(np.asarray(first.a_high), 1e-30)
    assert ratio[1:].min() >= BOUNDS[0] - 1e-6
    assert ratio.max() <= BOUNDS[1] + 1e-6


def test_a_longer_search_finds_much_less_loss(net, start):
    shapes, empty = start
    loss = loss_of(net.graph, net.weights, net.calls)
    first = named_start("none", shapes, empty)
    found = joint_search(net.graph, first, loss, evaluations=400, iterations=2)
    assert found.loss < 0.7 * found.start_loss


def test_all_losses_are_one_compiled_program(net, start):
    shapes, empty = start
    loss = loss_of(net.graph, net.weights, net.calls, images=5)
    loss(named_start("none", shapes, empty))
    before = calibration_loss._cache_size()
    first = lp_start(shapes, empty, loss)[0]
    other_bits = dataclasses.replace(first, w_bits=first.w_bits - 1)
    joint_search(net.graph, other_bits, loss, evaluations=30, iterations=1)
    assert calibration_loss._cache_size() == before


def test_a_loss_that_is_no_number_is_never_chosen(net, start):
    shapes, empty = start
    first = named_start("none", shapes, empty)
    found = joint_search(
        net.graph,
        first,
        lambda a: 1.0 if float(a.a_high[1]) == float(first.a_high[1]) else float("nan"),
        evaluations=20,
        iterations=1,
    )
    assert found.loss == 1.0


@pytest.mark.parametrize(
    "labels", [np.zeros(3, int), np.zeros(24), np.full(24, 5), -np.ones(24, int)]
)
def test_wrong_labels_are_refused(net, labels):
    with pytest.raises(InputError, match="labels"):
        loss_of(net.graph, net.weights, net.calls, labels)


def test_labels_of_a_function_that_is_no_classifier_are_refused():
    from autosplit.graph import trace
    from autosplit.graph.running import prepare

    params = {"a": jnp.ones((3, 3))}
    graph = trace(lambda p, x: (x @ p["a"], x), params, jnp.ones((2, 3)))
    with pytest.raises(InputError, match="one output"):
        loss_of(graph, prepare(graph, params), [jnp.ones((4, 2, 3))], np.zeros(8, int))


def test_the_loss_of_corrected_weights_equals_numpy(net, start):
    shapes, empty = start
    assignment = dataclasses.replace(
        named_start("none", shapes, empty), a_bits=jnp.full(empty.a_bits.shape, FLOAT_BITS)
    )
    levels = quantized_weights(net.weights, assignment)
    layers = []
    for own, level in zip(net.weights.layers, levels.layers, strict=True):
        if own.weight is not None:
            w, q = (np.asarray(each.weight, np.float64) for each in (own, level))
            axes = tuple(range(w.ndim - 1))
            xi = w.std(axes) / q.std(axes)
            fixed = jnp.asarray(xi * q + w.mean(axes) - xi * q.mean(axes), jnp.float32)
            own = dataclasses.replace(own, weight=fixed)
        layers.append(own)
    repaired = dataclasses.replace(net.weights, layers=tuple(layers))
    target, found = (
        np.asarray(float_outputs(net.graph, each, net.calls)[0], np.float64)
        for each in (net.weights, repaired)
    )
    p, q = softmax(target), softmax(found)
    loss = loss_of(net.graph, net.weights, net.calls, corrected=True)(assignment)
    assert loss == pytest.approx(np.mean(np.sum(p * np.log(p / q), -1)), rel=1e-3)
