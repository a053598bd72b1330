"""Many assignments are scored in one program, whatever their bits and however they are cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.errors import InputError, PlanMismatchError
from autosplit.graph.running import prepare
from autosplit.profiling import assignment as module
from autosplit.profiling.assignment import (
    assignment_outputs,
    float_outputs,
    profile_assignment,
    relative_error,
)
from autosplit.profiling.many_assignments import (
    AssignmentChunk,
    assignment_chunk,
    evaluate_assignments,
    live_bytes,
)
from autosplit.workload import FLOAT_BITS

CHUNKS = [(1, 8), (1, 3), (1, 1), (5, 3), (64, 8)]


@pytest.fixture(scope="module")
def classifier(net, make_profile):
    """The network without its second output, its profile and calls."""

    def fn(p, x):
        return net.fn(p, x)["logits"]

    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    graph = autosplit.trace(fn, net.params, shape)
    return dataclasses.make_dataclass("Case", ["graph", "weights", "calls", "profile"])(
        graph,
        prepare(graph, net.params),
        [net.calibration[:, None]],
        make_profile(graph, net.params, net.calibration),
    )


def drawn(case, count, seed=0):
    """Draws assignments with the whole network, or a part of it, on the edge."""
    rng = np.random.default_rng(seed)
    profile = case.profile
    return [
        profile_assignment(
            case.graph,
            case.weights,
            profile,
            rng.choice([*profile.bits, FLOAT_BITS], len(profile.macs)),
            rng.choice([*profile.bits, FLOAT_BITS], len(profile.producer)),
            profile.on_edge[rng.integers(len(profile.on_edge))],
        )
        for _ in range(count)
    ]


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


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected_scores(case, assignments, labels):
    """Scores the outputs one by one, in NumPy."""
    calls = [jnp.asarray(c) for c in case.calls]
    reference = float_outputs(case.graph, case.weights, calls)
    f = np.asarray(reference[0], np.float64)[:, 0]
    rows = []
    for one in assignments:
        outputs = assignment_outputs(case.graph, case.weights, one, calls)
        y = np.asarray(outputs[0], np.float64)[:, 0]
        p, q = softmax(f), softmax(y)
        rows.append((
            relative_error(outputs, reference),
            (p * np.log(p / q)).sum(1).mean(),
            (y.argmax(1) == f.argmax(1)).mean(),
            (y.argmax(1) == labels).mean(),
        ))
    return np.array(rows)


@pytest.mark.parametrize(("assignments", "calls"), CHUNKS)
def test_scores_are_those_of_the_outputs_in_any_chunk(classifier, assignments, calls):
    case = classifier
    some = drawn(case, 7)
    labels = np.arange(8) % 10
    found = evaluate_assignments(
        case.graph, case.weights, some, case.calls, labels=labels,
        chunk=AssignmentChunk(assignments=assignments, calls=calls),
    )  # fmt: skip
    assert len(found) == 7
    error, divergence, agreement, accuracy = expected_scores(case, some, labels).T
    np.testing.assert_allclose(found.output_error, error, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(found.divergence, divergence, rtol=2e-3, atol=1e-6)
    np.testing.assert_array_equal(found.agreement, agreement)
    np.testing.assert_array_equal(found.accuracy, accuracy)


@pytest.mark.parametrize(("assignments", "calls"), [(1, 3), (16, 5)])
def test_more_than_a_hundred_assignments_trace_once(classifier, layer_runs, assignments, calls):
    case = classifier
    # Its own graph: programs of other tests do not count.
    graph = dataclasses.replace(case.graph)
    chunk = AssignmentChunk(assignments=assignments, calls=calls)
    done = []
    for count in (103, 5):
        some = (one for one in drawn(case, count, seed=count))
        scores = evaluate_assignments(
            graph, case.weights, some, case.calls, chunk=chunk, progress=done.append
        )
        assert len(scores) == done[-1] == count
    assert len(layer_runs) == len(graph.layers)
    assert done == sorted(done[: -(-103 // assignments)]) + done[-(-103 // assignments) :]
    assert len(np.unique(scores.output_error)) == 5


def test_stacked_assignments_are_the_single_ones(classifier):
    case = classifier
    some = drawn(case, 5, seed=3)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *some)
    one, two = (
        evaluate_assignments(case.graph, case.weights, many, case.calls)
        for many in (some, stacked)
    )
    np.testing.assert_array_equal(one.output_error, two.output_error)
    assert one.accuracy is None


def test_float_bits_make_no_error(classifier):
    case = classifier
    plain = profile_assignment(case.graph, case.weights, case.profile, FLOAT_BITS, FLOAT_BITS)
    scores = evaluate_assignments(case.graph, case.weights, [plain], case.calls)
    assert scores.output_error[0] < 1e-10
    assert scores.agreement[0] == 1


def test_bits_by_channel_are_evaluated(classifier):
    case = classifier
    plain = profile_assignment(case.graph, case.weights, case.profile, 4, FLOAT_BITS)
    by_channel = tuple(
        None if high is None else jnp.full(high.shape, 4, jnp.int32) for high in plain.w_high
    )
    scores = [
        evaluate_assignments(case.graph, case.weights, [one], case.calls).output_error[0]
        for one in (plain, dataclasses.replace(plain, w_bits=by_channel))
    ]
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)
    assert scores[0] > 0


def test_without_classes_there_is_an_error_alone(make_profile):
    graph = autosplit.trace(lambda p, x: (x @ p).sum(), jnp.eye(3), jnp.ones((2, 3)))
    batch = np.ones((4, 3), np.float32)
    profile, weights = make_profile(graph, jnp.eye(3), batch), prepare(graph, jnp.eye(3))
    calls = [batch.reshape(2, 2, 3)]
    some = [profile_assignment(graph, weights, profile, b, b) for b in (2, 8)]
    scores = evaluate_assignments(graph, weights, some, calls)
    assert np.isfinite(scores.output_error).all()
    assert np.isnan(scores.agreement).all()
    assert np.isnan(scores.divergence).all()
    with pytest.raises(InputError, match="returns logits"):
        evaluate_assignments(graph, weights, some, calls, labels=[0, 0])


# ---- Chunks


def test_on_a_cpu_one_assignment_runs_at_a_time(net):
    for calls in (1, 10, 1000):
        chunk = assignment_chunk(net.graph, calls, backend="cpu", budget_bytes=1 << 40)
        assert chunk.assignments == 1
        assert 1 <= chunk.calls <= calls


def test_a_chunk_stays_within_its_budget_and_uses_it(net):
    own = sum(4 * layer.weight_elements for layer in net.graph.layers)
    each = live_bytes(net.graph)
    before = (0, 0)
    for budget in (1e5, 1e6, 1e7):
        chunk = assignment_chunk(net.graph, 16, backend="gpu", budget_bytes=budget)
        assert chunk.assignments * (own + chunk.calls * each) <= budget or chunk.calls == 1
        assert (chunk.calls, chunk.assignments) >= before
        before = (chunk.calls, chunk.assignments)
    assert chunk.calls == 16
    assert chunk.assignments > 1
    smallest = assignment_chunk(net.graph, 16, backend="gpu", budget_bytes=1)
    assert smallest == AssignmentChunk(assignments=1, calls=1)


def test_calls_are_cut_into_equal_parts(net):
    each = live_bytes(net.graph)
    own = sum(4 * layer.weight_elements for layer in net.graph.layers)
    chunk = assignment_chunk(net.graph, 10, backend="gpu", budget_bytes=own + 8.5 * each)
    assert chunk.calls == 5


def test_live_tensors_of_a_chain_with_a_shortcut():
    def fn(p, x):
        h = x @ p  # 12 floats, read by the next two
        return (h @ p).sum(0) + jnp.sort(h, 0)[0]

    graph = autosplit.trace(fn, jnp.eye(4), jnp.ones((3, 4)))
    tensor = 3 * 4 * 4
    # The input and the product before and after quantization; then two products, one of them
    # twice; never all of them.
    assert 3 * tensor <= live_bytes(graph) <= 4 * tensor


def test_what_the_compiler_takes_is_near_the_estimate(net):
    calls = jax.ShapeDtypeStruct((8, 1, 8, 8, 3), jnp.float32)
    weights = prepare(net.graph, net.params)
    program = float_outputs.lower(net.graph, weights, [calls]).compile()
    taken = program.memory_analysis().temp_size_in_bytes
    assert taken / 3 < 8 * live_bytes(net.graph) < 3 * taken


# ---- Wrong inputs


def test_labels_that_do_not_fit(classifier):
    case = classifier
    some = drawn(case, 1)
    for labels, said in ((np.zeros(7, int), "8 whole"), (np.full(8, 10), "0 to 9")):
        with pytest.raises(InputError, match=said):
            evaluate_assignments(case.graph, case.weights, some, case.calls, labels=labels)


def test_no_calls_and_empty_chunks(classifier):
    case = classifier
    with pytest.raises(InputError, match="no calls"):
        evaluate_assignments(case.graph, case.weights, drawn(case, 1), [])
    with pytest.raises(InputError, match="at least 1"):
        AssignmentChunk(assignments=0, calls=1)


def test_no_assignments_have_no_scores(classifier):
    case = classifier
    assert len(evaluate_assignments(case.graph, case.weights, [], case.calls)) == 0


def test_bits_and_profiles_that_do_not_fit(classifier, net):
    case = classifier
    with pytest.raises(InputError, match="3 bits are none"):
        profile_assignment(case.graph, case.weights, case.profile, 3, 8)
    with pytest.raises(PlanMismatchError, match="Profile this graph"):
        profile_assignment(net.graph, prepare(net.graph, net.params), case.profile, 8, 8)
