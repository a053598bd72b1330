"""Every assignment of bits runs in one compiled program, and errs as the split does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.errors import PlanMismatchError
from autosplit.graph.running import prepare
from autosplit.profiling import assignment as module
from autosplit.profiling.assignment import (
    Assignment,
    assignment_of,
    assignment_outputs,
    float_outputs,
    input_error,
    output_errors,
    relative_error,
    weight_clips,
)
from autosplit.profiling.calibration import calibration_calls
from autosplit.solvers.charging import price
from autosplit.workload import FLOAT_BITS


def split_error(case, plan):
    """Measures a plan through its two halves, call by call."""
    split = autosplit.split(case.graph, case.params, plan)
    calls = calibration_calls(case.graph, case.calibration)
    found, expected = [], []
    for inputs in zip(*calls, strict=True):
        inputs = jax.tree.unflatten(case.graph.in_tree, inputs)
        found.append(jax.tree.leaves(split.cloud(split.edge(*inputs))))
        expected.append(jax.tree.leaves(case.fn(case.params, *inputs)))
    return relative_error(
        [np.stack(y) for y in zip(*found, strict=True)],
        [np.stack(y) for y in zip(*expected, strict=True)],
    )


def stacked_clips(case, ratios):
    """Returns the clips of many assignments, the number of the assignment first."""
    weights = prepare(case.graph, case.params)
    return jax.vmap(lambda ratio: weight_clips(case.graph, weights, ratio))(
        jnp.asarray(ratios, jnp.float32)
    )


def random_assignments(case, count, seed=0):
    """Draws bits and edge sets; all arrays have ``count`` as the first axis."""
    rng = np.random.default_rng(seed)
    profile = case.profile
    k_w = rng.integers(0, len(profile.bits), (count, len(profile.macs)))
    k_a = rng.integers(0, len(profile.bits), (count, len(profile.producer)))
    rows, columns = np.arange(len(profile.macs)), np.arange(len(profile.producer))
    cuts = rng.integers(0, len(profile.on_edge), count)
    on_edge = profile.on_edge[cuts]
    return Assignment(
        on_edge=jnp.asarray(on_edge),
        w_bits=jnp.asarray(np.where(on_edge, profile.bits[k_w], FLOAT_BITS), jnp.int32),
        w_high=stacked_clips(case, profile.weight_ratio[rows, k_w]),
        a_bits=jnp.asarray(profile.bits[k_a], jnp.int32),
        a_low=jnp.asarray(profile.activation_low[columns, k_a], jnp.float32),
        a_high=jnp.asarray(profile.activation_high[columns, k_a], jnp.float32),
    )


@pytest.fixture
def layer_runs(monkeypatch):
    """Counts how often a layer is traced."""
    runs = []
    run_layer = module.run_layer

    def counting(layer, *arguments):
        runs.append(layer.name)
        return run_layer(layer, *arguments)

    monkeypatch.setattr(module, "run_layer", counting)
    return runs


@pytest.fixture(scope="module")
def prepared(dense):
    calls = [jnp.asarray(c) for c in calibration_calls(dense.graph, dense.calibration)]
    return prepare(dense.graph, dense.params), calls


def test_errors_equal_those_of_the_halves(dense):
    plans = autosplit.solve(dense.profile).plans
    errors = output_errors(dense.graph, dense.params, dense.calibration, plans)
    assert len({plan.on_edge for plan in plans}) > 2
    # The split that is proposed, and every other plan of the list.
    chosen = [i for i, plan in enumerate(plans) if i % 4 == 0 or plan.label == "auto-split"]
    for plan, error in ((plans[i], errors[i]) for i in chosen):
        assert error == pytest.approx(split_error(dense, plan), rel=1e-5, abs=1e-7)


def test_an_input_that_is_an_output_arrives_quantized(profile_of):
    def fn(p, a, b):
        h = jnp.tanh(a @ p)
        return a, h + b, (h * b).sum()

    rng = np.random.default_rng(0)
    batch = tuple(rng.normal(size=(6, 4)).astype(np.float32) for _ in range(2))
    case = profile_of(fn, jnp.eye(4) + 0.1, batch, (2, 4))
    profile = case.profile
    for cut in range(1, len(profile.cut_names)):
        plan = price(
            profile, cut=cut, w_bits=np.full(len(profile.macs), 4),
            a_bits=np.full(len(profile.producer), 4), label="test",
        )  # fmt: skip
        (error,) = output_errors(case.graph, case.params, case.calibration, [plan])
        assert error == pytest.approx(split_error(case, plan), rel=1e-5, abs=1e-7)


def test_embeddings_and_integers_equal_those_of_the_halves(profile_of):
    def fn(p, ids):
        h = jax.nn.relu(p["table"][ids] @ p["w"])
        return h @ p["w"], jnp.argmax(h, -1), ids * 2

    rng = np.random.default_rng(0)
    params = {"table": jnp.asarray(rng.normal(size=(9, 5)), jnp.float32), "w": jnp.eye(5) * 0.7}
    case = profile_of(fn, params, rng.integers(0, 9, (4, 3)), (1, 3))
    plans = autosplit.solve(case.profile).plans
    errors = output_errors(case.graph, case.params, case.calibration, plans)
    for plan, error in zip(plans[::3], errors[::3], strict=True):
        assert error == pytest.approx(split_error(case, plan), rel=1e-5, abs=1e-7)


@pytest.fixture(scope="module")
def profile_of():
    """Returns a function that traces and profiles."""
    import types

    from autosplit.hardware import EYERISS, TPU, Network

    def make(fn, params, batch, shape):
        leaves = batch if isinstance(batch, tuple) else (batch,)
        inputs = [
            jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(b.dtype)) for b in leaves
        ]
        graph = autosplit.trace(fn, params, *inputs)
        profile = autosplit.profile(
            graph, params, batch, edge=EYERISS, cloud=TPU,
            network=Network(uplink_bits_per_s=1e6), bits=(4, 8),
        )  # fmt: skip
        return types.SimpleNamespace(
            fn=fn, params=params, graph=graph, profile=profile, calibration=batch
        )

    return make


def test_a_thousand_assignments_compile_once(dense, prepared, layer_runs):
    weights, calls = prepared
    few = [call[:1] for call in calls]
    many = random_assignments(dense, 1000)
    seen = set()
    for index in range(1000):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], many)
        outputs = assignment_outputs(dense.graph, weights, one, few)
        seen.add(np.concatenate([np.ravel(y) for y in outputs]).tobytes())
    assert len(layer_runs) == len(dense.graph.layers)
    # They are different programs' results all the same.
    assert len(seen) > 300


def test_vmapped_assignments_equal_a_loop(dense, prepared, layer_runs):
    weights, calls = prepared
    many = random_assignments(dense, 64, seed=1)
    run = functools.partial(assignment_outputs, dense.graph, weights, calls=calls)
    together = jax.vmap(lambda one: run(assignment=one))(many)
    assert len(layer_runs) == len(dense.graph.layers)
    for index in range(0, 64, 7):
        alone = run(assignment=jax.tree.map(lambda leaf, index=index: leaf[index], many))
        for stacked, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(stacked[index], single, rtol=1e-5, atol=1e-5)


def test_chunks_of_assignments_equal_all_at_once(dense, prepared):
    weights, calls = prepared
    many = random_assignments(dense, 20, seed=2)

    def one(assignment):
        return assignment_outputs(dense.graph, weights, assignment, calls)[0]

    chunks = jax.jit(lambda many: jax.lax.map(one, many, batch_size=8))(many)
    np.testing.assert_allclose(chunks, jax.vmap(one)(many), rtol=1e-5, atol=1e-5)


def test_float_bits_are_the_function(dense, prepared, split_plan):
    weights, calls = prepared
    plain = assignment_of(dense.graph, weights, split_plan)
    plain = dataclasses.replace(
        plain,
        w_bits=jnp.full_like(plain.w_bits, FLOAT_BITS),
        a_bits=jnp.full_like(plain.a_bits, FLOAT_BITS),
    )
    found = assignment_outputs(dense.graph, weights, plain, calls)
    expected = float_outputs(dense.graph, weights, calls)
    direct = jax.vmap(lambda x: dense.fn(dense.params, x))(calls[0])
    for one, two, three in zip(found, expected, jax.tree.leaves(direct), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
        np.testing.assert_allclose(two, three, rtol=1e-5, atol=1e-6)


def test_relative_error_is_over_all_float_outputs():
    ones = np.ones((2, 2), np.float32)
    assert relative_error([ones * 1.1, ones], [ones, ones]) == pytest.approx(0.01 / 2, rel=1e-5)
    # Integers do not count; zeros that stay zeros are no error.
    assert relative_error([np.array([1])], [np.array([5])]) == 0
    assert relative_error([ones * 0], [ones * 0]) == 0
    assert relative_error([ones], [ones * 0]) == 1


def test_error_of_changed_inputs(dense):
    same = input_error(dense.graph, dense.params, dense.calibration, dense.calibration)
    near = input_error(dense.graph, dense.params, dense.calibration, dense.calibration * 1.01)
    far = input_error(dense.graph, dense.params, dense.calibration, dense.calibration * 1.2)
    assert same == 0 < near < far


def test_a_plan_for_another_graph_is_refused(dense, split_plan):
    other = autosplit.trace(lambda w, x: x @ w, jnp.eye(3), jnp.ones((1, 3)))
    with pytest.raises(PlanMismatchError):
        output_errors(other, jnp.eye(3), np.ones((2, 3)), [split_plan])
