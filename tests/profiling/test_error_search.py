"""Tables over a stream are those of all calls at once; runs go on where they were ended."""

import dataclasses
import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import ArtefactError, CalibrationError, InputError, PlanMismatchError
from autosplit.graph import trace
from autosplit.graph.running import prepare
from autosplit.profiling import streaming
from autosplit.profiling.call_chunks import call_bytes
from autosplit.profiling.error_search import clip_tables, error_tables

BITS = jnp.array([2, 4, 8])
METHODS = ("minmax", "mse", "aciq")


class Fresh:
    """Begins anew each time; counts how often."""

    def __init__(self, batches):
        self.batches, self.begun = batches, 0

    def __iter__(self):
        self.begun += 1
        return iter(self.batches)


@pytest.fixture(scope="module")
def case(net):
    calls = np.random.default_rng(1).normal(size=(11, *net.graph.tensors[0].shape))
    calls *= np.geomspace(0.1, 4, 11)[:, None, None, None, None]
    weights = prepare(net.graph, net.params)

    def tables(batches=None, chunk=None, methods=METHODS, **options):
        if chunk is not None:
            options["memory_bytes"] = chunk * call_bytes(net.graph)
        batches = [[calls.astype(np.float32)]] if batches is None else batches
        return clip_tables(net.graph, weights, batches, BITS, methods, **options)

    return dataclasses.make_dataclass("Case", ["calls", "tables", "graph", "weights"])(
        calls.astype(np.float32), tables, net.graph, weights
    )


@pytest.fixture(scope="module")
def whole(case):
    return case.tables()


def assert_same(one, other):
    assert list(one) == list(other)
    for method, table in one.items():
        for field in dataclasses.fields(table):
            found, expected = (np.asarray(getattr(t[method], field.name)) for t in (one, other))
            np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=field.name)


def cut(calls, *sizes):
    return [[c] for c in np.split(calls, np.cumsum(sizes))]


@pytest.fixture
def runs(monkeypatch):
    """Sizes of the chunks on which the network was run."""
    found = []
    run = streaming.all_tensors

    def counting(graph, weights, calls, mesh):
        found.append(len(calls[0]))
        return run(graph, weights, calls, mesh)

    monkeypatch.setattr(streaming, "all_tensors", counting)
    return found


def test_all_in_one_chunk_runs_once(case, whole, runs):
    assert_same(case.tables(), whole)
    assert runs == [11]


@pytest.mark.parametrize("chunk", [1, 4, 6])
def test_an_array_in_chunks(case, whole, runs, chunk):
    assert_same(case.tables(chunk=chunk), whole)
    # Twice, but for the last chunk, whose tensors are still there.
    count = -(-11 // chunk)
    assert runs == [-(-11 // count)] * (2 * count - 1)


@pytest.mark.parametrize("sizes", [(5,), (1, 1, 1, 4), (10,)])
def test_a_stream_in_chunks(case, whole, sizes):
    stream = Fresh(cut(case.calls, *sizes))
    assert_same(case.tables(stream, chunk=3), whole)
    assert stream.begun == 3  # for the size of chunks, and twice in full


def test_each_method_by_itself(case, whole):
    for method in METHODS:
        found = error_tables(case.graph, case.weights, [case.calls], BITS, method)
        assert_same({method: found}, {method: whole[method]})


def test_progress_is_told(case):
    told = []
    case.tables(chunk=4, on_progress=lambda *state: told.append(state))
    assert told == [(d, 22) for d in (4, 8, 11, 14, 18, 22)]
    told.clear()
    case.tables(Fresh(cut(case.calls, 4)), chunk=5, on_progress=lambda *state: told.append(state))
    assert told == [(5, None), (10, None), (11, None), (12, 22), (17, 22), (22, 22)]


def test_memory_does_not_grow_with_the_calls(case):
    def peak(repeats):
        held = []

        def look(done, total):
            held.append(sum(a.nbytes for a in jax.live_arrays()))

        before = sum(a.nbytes for a in jax.live_arrays())
        case.tables(Fresh(cut(case.calls, 5) * repeats), chunk=3, on_progress=look)
        return max(held) - before

    few, many = peak(1), peak(6)
    assert many <= few * 1.05
    # No more than the tensors of one chunk, and the statistics.
    assert many <= 3 * call_bytes(case.graph) + 2**20


class StopEarlyError(Exception):
    pass


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7])
def test_a_run_that_was_ended_goes_on(case, whole, runs, tmp_path, steps):
    file = tmp_path / "statistics"
    left = itertools.count(1)

    def stop(done, total):
        if next(left) == steps:
            raise StopEarlyError

    options = {"batches": Fresh(cut(case.calls, 5)), "chunk": 3, "statistics_file": file}
    with pytest.raises(StopEarlyError):
        case.tables(on_progress=stop, **options)
    assert file.exists()
    assert_same(case.tables(**options), whole)
    # 4 chunks, twice but for the last, whose tensors are there unless a run ended with them.
    assert len(runs) == (8 if steps == 4 else 7)
    assert not file.exists()


def interrupted(case, file, **options):
    def stop(done, total):
        raise StopEarlyError

    with pytest.raises(StopEarlyError):
        case.tables(chunk=3, statistics_file=file, on_progress=stop, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("mse",)}, "clipping was"),
        ({"chunk": 4}, "chunk_calls was 3, now 4"),
    ],
)
def test_a_file_of_other_settings_is_refused(case, tmp_path, options, message):
    file = tmp_path / "statistics"
    stream = Fresh(cut(case.calls, 5))
    interrupted(case, file, batches=stream)
    with pytest.raises(PlanMismatchError, match=message):
        case.tables(stream, statistics_file=file, **{"chunk": 3, **options})


def test_a_file_of_another_network_is_refused(case, net, tmp_path):
    file = tmp_path / "statistics"
    interrupted(case, file)
    other = prepare(net.graph, jax.tree.map(lambda w: w * 2, net.params))
    options = {"memory_bytes": 3 * call_bytes(net.graph), "statistics_file": file}
    with pytest.raises(PlanMismatchError, match="weights was"):
        clip_tables(net.graph, other, [[case.calls]], BITS, METHODS, **options)
    graph = trace(lambda w, x: x @ w, jnp.ones((3, 4)), jnp.ones((2, 3)))
    with pytest.raises(PlanMismatchError, match="fingerprint was"):
        clip_tables(
            graph, prepare(graph, jnp.ones((3, 4))), [[jnp.ones((4, 2, 3))]], BITS, METHODS,
            statistics_file=file,
        )  # fmt: skip


@pytest.mark.parametrize("change", ["other", "shorter"])
def test_a_file_of_another_stream_is_refused(case, tmp_path, change):
    file = tmp_path / "statistics"
    left = itertools.count(1)

    def stop(done, total):
        if next(left) == 3:
            raise StopEarlyError

    options = {"chunk": 3, "statistics_file": file}
    with pytest.raises(StopEarlyError):
        case.tables(Fresh(cut(case.calls, 5)), on_progress=stop, **options)
    calls = case.calls + 1 if change == "other" else case.calls[:4]
    with pytest.raises(CalibrationError, match=r"differs in its first 9|ends before the 3 chunks"):
        case.tables(Fresh(cut(calls, 2)), **options)


@pytest.mark.parametrize("content", [b"", b"PK", b"nothing"])
def test_a_broken_file_is_refused(case, tmp_path, content):
    file = tmp_path / "statistics"
    file.write_bytes(content)
    with pytest.raises(ArtefactError, match="no complete file"):
        case.tables(chunk=3, statistics_file=file)


def test_a_truncated_file_is_refused(case, tmp_path):
    file = tmp_path / "statistics"
    interrupted(case, file)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ArtefactError, match="no complete file"):
        case.tables(chunk=3, statistics_file=file)


@pytest.mark.parametrize("second", [5, 0, 6 + 11])
def test_a_stream_that_changes_its_length_is_refused(case, second):
    class Changing:
        begun = 0

        def __iter__(self):
            self.begun += 1
            calls = np.concatenate([case.calls] * 2)
            return iter(cut(calls[: 11 if self.begun < 3 else second], 2))

    with pytest.raises(CalibrationError, match="read again"):
        case.tables(Changing(), chunk=3)


def test_an_empty_stream_is_refused(case):
    with pytest.raises(CalibrationError, match="no batch"):
        case.tables(Fresh([]))


def test_an_overflow_in_a_later_chunk_is_named():
    graph = trace(lambda w, x: jnp.exp(x @ w) @ w, jnp.eye(3), jnp.ones((1, 3)))
    calls = np.ones((9, 1, 3), np.float32)
    calls[7] = 1000
    with pytest.raises(CalibrationError, match=r"calls 6 to 7 the tensor"):
        clip_tables(
            graph, prepare(graph, jnp.eye(3)), Fresh([[calls[:4]], [calls[4:8]]]), BITS, ["mse"],
            memory_bytes=3 * call_bytes(graph),
        )  # fmt: skip


def test_an_unknown_method_is_refused(case):
    with pytest.raises(InputError, match="entropy"):
        case.tables(methods=("mse", "entropy"))


def test_constant_and_empty_tensors_have_finite_tables():
    def fn(w, x):
        h = x @ w
        return h, h * 0, x[:, :0], jnp.ones_like(x)

    graph = trace(fn, jnp.eye(3), jnp.ones((2, 3)))
    calls = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    found = clip_tables(
        graph, prepare(graph, jnp.eye(3)), [[calls]], BITS, METHODS,
        memory_bytes=2 * call_bytes(graph),
    )  # fmt: skip
    for table in found.values():
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(table))


TWO_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp, numpy as np
from autosplit.graph import trace
from autosplit.graph.running import prepare
from autosplit.profiling.call_chunks import call_bytes
from autosplit.profiling.error_search import clip_tables

def fn(p, x):
    kernel = ("NHWC", "HWIO", "NHWC")
    h = jax.nn.relu(jax.lax.conv_general_dilated(x, p["a"], (1, 1), "SAME",
                                                 dimension_numbers=kernel))
    def step(c, w):
        return jnp.tanh(c @ w), None
    return jax.lax.scan(step, h, p["b"])[0], jnp.argmax(h, -1)

rng = np.random.default_rng(0)
params = {"a": rng.normal(size=(3, 3, 2, 4)), "b": rng.normal(size=(2, 4, 4))}
params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
graph = trace(fn, params, jnp.ones((1, 5, 5, 2)))
weights = prepare(graph, params)
calls = rng.normal(size=(9, 1, 5, 5, 2)).astype(np.float32)
assert len(jax.devices()) == 2
for memory in (2**20, 4 * call_bytes(graph)):
    one, two = (
        clip_tables(graph, weights, [[calls]], jnp.array([2, 8]), ["mse", "minmax"],
                    memory_bytes=memory, devices=devices)
        for devices in (jax.devices()[:1], None)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5)
print("equal")
"""


def test_two_devices_equal_one():
    run = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "equal"
