"""Chunks hold every call once, in order, and fit in the memory that they are given."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import CalibrationError, InputError
from autosplit.graph.running import prepare
from autosplit.profiling.call_chunks import call_bytes, calls_that_fit, chunk_size, chunks
from autosplit.profiling.error import all_tensors, squared_errors
from autosplit.profiling.statistics import _count_tensor


def stream(*sizes):
    """Batches of two inputs whose numbers tell the call."""
    ends = np.cumsum([0, *sizes])
    return [
        [np.arange(a, b), np.arange(a, b)[:, None] * np.ones(3)]
        for a, b in itertools.pairwise(ends)
    ]


class Endless:
    def __iter__(self):
        while True:
            yield [np.zeros((2, 1))]


@pytest.mark.parametrize("sizes", [(1,), (6,), (7,), (1,) * 7, (2, 9, 1), (3, 3), (13, 1)])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_every_call_once_and_in_order(sizes, size):
    found = list(chunks(stream(*sizes), size))
    for chunk in found:
        assert [len(c) for c in chunk.calls] == [size, size]
        assert chunk.mask.sum() == chunk.valid
        # Copies are of the last call.
        assert (chunk.calls[0][chunk.valid :] == chunk.calls[0][chunk.valid - 1]).all()
    calls = np.concatenate([c.calls[0][: c.valid] for c in found])
    np.testing.assert_array_equal(calls, np.arange(sum(sizes)))
    rows = np.concatenate([c.calls[1][: c.valid] for c in found])
    np.testing.assert_array_equal(rows[:, 2], calls)


@pytest.mark.parametrize(
    ("sizes", "most", "devices", "expected"),
    [
        ((10,), 100, 1, 10),
        ((10,), 9, 1, 5),  # halves, not 9 and 1
        ((4, 3), 5, 1, 4),
        ((7,), 100, 2, 8),
        ((7,), 4, 4, 4),
        ((1,), 100, 4, 4),
    ],
)
def test_sizes(sizes, most, devices, expected):
    assert chunk_size(stream(*sizes), most, devices) == expected


def test_a_stream_of_unknown_length_is_not_read_to_its_end():
    assert chunk_size(Endless(), 5) == 5
    assert chunk_size(iter(stream(2, 1)), 5) == 3


@pytest.mark.parametrize("batches", [[], iter([])])
def test_no_calls(batches):
    with pytest.raises(CalibrationError, match="no batch"):
        chunk_size(batches, 5)


def test_calls_that_fit(net):
    each = call_bytes(net.graph)
    assert calls_that_fit(net.graph, 10 * each) == 10
    assert calls_that_fit(net.graph, 10 * each, devices=3) == 9
    assert calls_that_fit(net.graph, 1) == 1
    assert calls_that_fit(net.graph, 1, devices=2) == 2
    with pytest.raises(InputError, match="positive"):
        calls_that_fit(net.graph, 0)


@pytest.mark.parametrize("calls", [4, 16])
def test_programs_stay_within_what_is_counted(net, calls):
    weights = prepare(net.graph, net.params)
    batch = [jnp.zeros((calls, *net.graph.tensors[t].shape)) for t in net.graph.inputs]
    run = all_tensors.lower(net.graph, weights, batch).compile().memory_analysis()
    counted = calls * call_bytes(net.graph) + 1024  # what no call takes
    # Bound from both sides: too much would make chunks needlessly small.
    needed = run.output_size_in_bytes + run.temp_size_in_bytes
    assert 0.5 * counted <= needed <= counted
    tensors = [
        jax.ShapeDtypeStruct((calls, *t.shape), t.dtype) for t in net.graph.tensors if t.is_float
    ]
    held = sum(np.prod(t.shape) * t.dtype.itemsize for t in tensors)
    mask = jax.ShapeDtypeStruct((calls,), jnp.int32)
    largest = max(tensors, key=lambda t: np.prod(t.shape))
    count = _count_tensor.lower(largest, mask, None).compile().memory_analysis()
    assert held + count.temp_size_in_bytes <= counted
    clips = jax.ShapeDtypeStruct((len(tensors), 3), jnp.float32)
    bits = jax.ShapeDtypeStruct((3,), jnp.int32)
    errors = squared_errors.lower(tensors, (clips, clips, bits)).compile().memory_analysis()
    assert held + errors.temp_size_in_bytes <= counted
