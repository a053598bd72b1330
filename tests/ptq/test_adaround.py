"""AdaRound against exhaustive search over all roundings, and on small networks."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autosplit.errors import InputError
from autosplit.graph import trace
from autosplit.graph.running import prepare
from autosplit.profiling.assignment import (
    Assignment,
    assignment_outputs,
    float_outputs,
    quantized_weights,
    relative_error,
    weight_clips,
)
from autosplit.ptq.adaround import adaround
from autosplit.ptq.weight_grid import hard_levels, soft_levels, start_of, weight_grid
from autosplit.quant.affine import weight_scale
from autosplit.workload import FLOAT_BITS

from .conftest import quantized_tensor, quantized_weight


def assignment_of(graph, weights, w_bits, a_bits=FLOAT_BITS, ratio=0.9, **changes):
    """Returns bits for everything, with clips at a part of the weights' range and [-3, 3]."""
    layers, tensors = len(graph.layers), len(graph.tensors)
    found = Assignment(
        on_edge=jnp.ones(layers, bool), w_bits=jnp.full(layers, w_bits, jnp.int32),
        w_high=weight_clips(graph, weights, np.full(layers, ratio)),
        a_bits=jnp.full(tensors, a_bits, jnp.int32), a_low=jnp.full(tensors, -3.0),
        a_high=jnp.full(tensors, 3.0),
    )  # fmt: skip
    return dataclasses.replace(found, **changes)


def dense(p, x):
    return jax.nn.relu(x @ p["w"] + p["b"])


def case_of(fn, params, x, **options):
    """Traces a function with calls ``x[m, ...]``; returns graph, weights, calls, assignment."""
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    graph = trace(fn, params, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    weights = prepare(graph, params)
    return graph, weights, [jnp.asarray(x)], assignment_of(graph, weights, **options)


def output_error(graph, weights, assignment, calls, of=None):
    reference = float_outputs(graph, weights, calls)
    outputs = assignment_outputs(graph, of or weights, assignment, calls)
    return relative_error(outputs, reference)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_near_the_best_of_all_roundings_and_never_worse_than_nearest(seed):
    random = np.random.default_rng(seed)
    inputs, outputs, bits = 9, 16, 3
    w, b = random.laplace(size=(inputs, outputs)), random.normal(1, 1, outputs)
    x = np.abs(random.normal(size=(40, 4, inputs)) + random.normal(size=(40, 4, 1)))
    x = x.astype(np.float32)
    graph, weights, calls, assignment = case_of(dense, {"w": w, "b": b}, x, w_bits=bits)
    # The input arrives quantized, so that input and target are of two networks.
    assignment = dataclasses.replace(
        assignment, on_edge=jnp.zeros(1, bool), a_bits=jnp.array([3, FLOAT_BITS]),
        a_low=jnp.zeros(2), a_high=jnp.array([4.0, 0.0]),
    )  # fmt: skip
    found = adaround(graph, weights, assignment, calls, batch=40, seed=seed).weights.layers[0]

    flat = x.reshape(-1, inputs).astype(np.float64)
    arrived, target = quantized_tensor(flat, 0.0, 4.0, 3), np.maximum(flat @ w + b, 0)
    clip = np.abs(w).max(0) * 0.9
    step = clip / 3

    def errors(candidates, o):
        """Squared errors of weights ``[inputs, ...]`` of one output."""
        outputs = np.maximum(np.tensordot(arrived, candidates, 1) + b[o], 0)
        return np.sum((outputs.T - target[:, o]).T ** 2, axis=0)

    ups = np.array(list(itertools.product([0, 1], repeat=inputs))).T
    nearest = quantized_weight(w, clip, bits)
    rows = []
    for o in range(outputs):
        every = np.clip(np.floor(w[:, [o]] / step[o]) + ups, -3, 3) * step[o]
        learned = np.asarray(found.weight, np.float64)[:, o]
        rows.append([errors(every, o).min(), errors(learned, o), errors(nearest[:, o], o)])
    best, learned, plain = np.array(rows).T
    assert (learned >= best * (1 - 1e-4)).all()
    assert (learned <= plain * (1 + 1e-4)).all()
    # Of what better rounding can gain, nearly all is gained.
    assert (learned - best).sum() <= 0.1 * (plain - best).sum()


def small_net(p, x):
    """A strided, a depthwise and a grouped convolution, a residual sum, and a product."""
    def conv(x, w, **options):
        options = {"window_strides": (1, 1), "padding": "SAME", **options}
        return lax.conv_general_dilated(
            x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    h = jax.nn.relu(conv(x, p["first"], window_strides=(2, 2)) + p["bias"])
    d = jax.nn.relu6(conv(h, p["depthwise"], feature_group_count=8))
    h = h + conv(d, p["grouped"], feature_group_count=2)
    return jax.nn.relu(h).mean((1, 2)) @ p["last"]


@pytest.fixture(scope="module")
def small():
    random = np.random.default_rng(3)
    shapes = {"first": (3, 3, 3, 8), "depthwise": (3, 3, 1, 8), "grouped": (1, 1, 4, 8),
              "last": (8, 6)}  # fmt: skip
    params = {
        n: random.laplace(0, (1.5 / np.prod(s[:-1])) ** 0.5, s) for n, s in shapes.items()
    }
    x = random.normal(size=(24, 1, 8, 8, 3)).astype(np.float32)
    return small_net, {**params, "bias": random.normal(0, 0.3, 8)}, x


CASES = [
    (3, FLOAT_BITS),
    pytest.param((4, FLOAT_BITS), marks=pytest.mark.heavy),
    pytest.param((4, 4), marks=pytest.mark.heavy),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def learned(request, small):
    w_bits, a_bits = request.param
    case = case_of(*small, w_bits=w_bits, a_bits=a_bits)
    return (*case, adaround(*case[:2], case[3], case[2], steps=300, batch=8))


def test_the_output_error_is_below_that_of_nearest_rounding(learned):
    graph, weights, calls, assignment, found = learned
    nearest = output_error(graph, weights, assignment, calls)
    assert output_error(graph, weights, found.assignment, calls, found.weights) < 0.8 * nearest


def test_weights_lie_on_the_grid_within_one_level(learned):
    _, weights, _, assignment, found = learned
    again = quantized_weights(found.weights, assignment)
    for i, (old, new, same) in enumerate(
        zip(weights.layers, found.weights.layers, again.layers, strict=True)
    ):
        if old.weight is None:
            continue
        np.testing.assert_array_equal(new.weight, same.weight)
        step = weight_scale(assignment.w_high[i], assignment.w_bits[i])
        inside = np.abs(old.weight) <= np.broadcast_to(assignment.w_high[i], old.weight.shape)
        moved = np.abs(np.asarray((new.weight - old.weight) / step))
        assert moved[inside].max() < 1 + 1e-5
        assert moved.max() > 0.5  # not all are nearest


def test_all_else_stays(learned):
    _, weights, _, assignment, found = learned
    jax.tree.map(np.testing.assert_array_equal, found.assignment, assignment)
    for old, new in zip(weights.layers, found.weights.layers, strict=True):
        jax.tree.map(np.testing.assert_array_equal, (old.bias, old.constants),
                     (new.bias, new.constants))  # fmt: skip


def test_the_seed_decides(small):
    graph, weights, calls, assignment = case_of(*small, w_bits=3)
    runs = [adaround(graph, weights, assignment, calls, steps=20, seed=s) for s in (0, 0)]
    jax.tree.map(np.testing.assert_array_equal, *runs)


@pytest.mark.parametrize("bits", [1, FLOAT_BITS])
def test_signs_and_floats_are_left(small, bits):
    graph, weights, calls, assignment = case_of(*small, w_bits=bits)
    found = adaround(graph, weights, assignment, calls, steps=5)
    jax.tree.map(np.testing.assert_array_equal, found.weights, weights)


@pytest.mark.heavy
def test_bits_by_channel_and_asymmetric_clips(small):
    graph, weights, calls, assignment = case_of(*small, w_bits=4)
    bits = tuple(
        None if high is None else jnp.resize(jnp.array([1, 3, 4, FLOAT_BITS]), high.shape)
        for high in assignment.w_high
    )
    mixed = dataclasses.replace(assignment, w_bits=bits)
    low = tuple(None if high is None else -0.5 * high for high in assignment.w_high)
    for chosen in (mixed, dataclasses.replace(assignment, w_low=low)):
        found = adaround(graph, weights, chosen, calls, steps=200)
        same = quantized_weights(found.weights, chosen)
        for new, again in zip(found.weights.layers, same.layers, strict=True):
            if new.weight is not None:
                np.testing.assert_allclose(new.weight, again.weight, atol=1e-6)
        before = output_error(graph, weights, chosen, calls)
        assert output_error(graph, weights, chosen, calls, found.weights) < before


def test_channels_of_zeros_and_inputs_that_say_nothing():
    random = np.random.default_rng(0)
    w = random.laplace(size=(6, 4))
    w[:, 1] = 0
    for x in (np.zeros((5, 2, 6)), np.ones((5, 2, 6)), random.normal(size=(5, 2, 6))):
        graph, weights, calls, assignment = case_of(
            dense, {"w": w, "b": np.zeros(4)}, x.astype(np.float32), w_bits=3
        )
        found = adaround(graph, weights, assignment, calls, steps=20)
        new = np.asarray(found.weights.layers[0].weight)
        assert np.isfinite(new).all()
        assert not new[:, 1].any()


def test_no_calls_and_empty_tensors_leave_the_weights():
    for shape in ((0, 2, 6), (3, 0, 6)):
        case = case_of(
            dense, {"w": np.ones((6, 4)), "b": np.zeros(4)}, np.zeros(shape, np.float32), w_bits=3
        )
        found = adaround(*case[:2], case[3], case[2], steps=5)
        jax.tree.map(np.testing.assert_array_equal, found.weights, case[1])


@pytest.mark.heavy
def test_products_of_other_forms_are_learned_and_tables_are_not():
    def fn(p, ids):
        h = jax.nn.relu(p["table"][ids])
        twice = jnp.concatenate([h[None], h[None]])
        h = jnp.einsum("htc,hcd->htd", twice, p["heads"]).sum(0)[None, None]
        return lax.conv_general_dilated(
            h, p["up"], (1, 1), ((1, 1), (1, 1)), lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    random = np.random.default_rng(0)
    params = {n: random.laplace(size=s) for n, s in
              {"table": (9, 5), "heads": (2, 5, 4), "up": (2, 2, 4, 3)}.items()}  # fmt: skip
    ids = random.integers(0, 9, (16, 6))
    graph, weights, calls, assignment = case_of(fn, params, ids.astype(np.int32), w_bits=3)
    lines = []
    found = adaround(graph, weights, assignment, calls, steps=150, on_progress=lines.append)
    assert len(lines) == 2
    kinds = {layer.kind: (old.weight, new.weight) for layer, old, new in zip(
        graph.layers, weights.layers, found.weights.layers, strict=True)}  # fmt: skip
    np.testing.assert_array_equal(*kinds["gather"])
    before = output_error(graph, weights, assignment, calls)
    assert output_error(graph, weights, assignment, calls, found.weights) < before


def test_soft_weights_start_at_the_weight_and_end_on_levels():
    random = np.random.default_rng(0)
    _, weights, _, assignment = case_of(
        dense, {"w": random.normal(size=(7, 5)), "b": np.zeros(5)},
        np.zeros((1, 1, 7), np.float32), w_bits=4, ratio=1.0,
    )  # fmt: skip
    weight = weights.layers[0].weight
    grid = weight_grid(weight, assignment, 0)
    start = start_of(weight, grid)
    np.testing.assert_allclose(soft_levels(start, grid), weight, atol=1e-5)
    undecided = np.abs(np.asarray(start)) < 1e-3
    nearest = np.asarray(grid.nearest)
    np.testing.assert_allclose(
        np.where(undecided, nearest, hard_levels(start, grid)), nearest, atol=1e-6
    )


@pytest.mark.parametrize("options", [{"steps": 0}, {"batch": 0}, {"steps": 2.5}])
def test_counts_below_one_are_refused(small, options):
    graph, weights, calls, assignment = case_of(*small, w_bits=4)
    with pytest.raises(InputError, match="expected a whole number of 1 or more"):
        adaround(graph, weights, assignment, calls, **options)
