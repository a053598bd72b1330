"""Calibration batches are cut into calls, or refused with the reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import CalibrationError
from autosplit.graph import trace
from autosplit.profiling.calibration import calibration_batches, calibration_calls, first_calls


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.fixture(scope="module")
def single():
    return trace(lambda w, x: x @ w, shaped(3, 4), shaped(2, 3))


@pytest.fixture(scope="module")
def several():
    def fn(w, batch, ids):
        return (batch["a"] @ w + batch["b"])[ids]

    inputs = {"a": shaped(2, 3), "b": shaped()}, shaped(5, dtype=jnp.int32)
    return trace(fn, shaped(3, 4), *inputs)


@pytest.mark.parametrize("shape", [(6, 3), (3, 2, 3)])
def test_one_input(single, shape):
    batch = np.arange(18, dtype=np.float32).reshape(shape)
    (calls,) = calibration_calls(single, batch)
    np.testing.assert_array_equal(calls, batch.reshape(3, 2, 3))


def test_one_input_as_a_tuple(single):
    (calls,) = calibration_calls(single, (np.ones((4, 3), np.float32),))
    assert calls.shape == (2, 2, 3)


def test_several_inputs(several):
    batch = (
        {"a": np.ones((8, 3)), "b": np.arange(4.0)},
        np.tile(np.array([0, 1, 0, 1, 1]), 4),
    )
    a, b, ids = calibration_calls(several, batch)
    assert (a.shape, b.shape, ids.shape) == ((4, 2, 3), (4,), (4, 5))
    # As the function was traced: float32 and int32.
    assert (a.dtype, b.dtype, ids.dtype) == (np.float32, np.float32, np.int32)


def test_bfloat16_takes_float32():
    graph = trace(lambda w, x: x @ w, *[shaped(2, 2, dtype=jnp.bfloat16)] * 2)
    (calls,) = calibration_calls(graph, np.ones((4, 2), np.float32))
    assert calls.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.ones((0, 3)), "empty"),
        (np.ones((3, 3)), r"\(3, 3\).*\(2, 3\)"),
        (np.ones((4, 4)), r"\(4, 4\).*\(2, 3\)"),
        (np.ones((2, 2, 2, 3)), "first axis"),
        (np.ones(3), r"\(3,\)"),
        (np.array(1.0), "shape"),
        (np.array([[1, 2, np.nan], [1, 2, 3]]), "1 values that are NaN"),
        (np.full((2, 3), -np.inf), "6 values"),
        (np.ones((2, 3), np.uint8), "dtype uint8"),
        (np.ones((2, 3), bool), "dtype bool"),
        ([np.ones((2, 3)), np.ones((2, 3))], "structure"),
        ({"x": np.ones((2, 3))}, "structure"),
        ((np.ones((2, 3)), np.ones((2, 3))), "structure"),
    ],
)
def test_refused(single, batch, message):
    with pytest.raises(CalibrationError, match=message):
        calibration_calls(single, batch)


def test_not_finite_in_bfloat16():
    graph = trace(lambda w, x: x @ w, *[shaped(2, 2, dtype=jnp.bfloat16)] * 2)
    with pytest.raises(CalibrationError, match="NaN"):
        calibration_calls(graph, np.full((2, 2), np.nan))


@pytest.mark.parametrize("count", [1, 3])
def test_unequal_numbers_of_calls(several, count):
    batch = ({"a": np.ones((4, 3)), "b": np.ones(count)}, np.zeros(10, int))
    with pytest.raises(CalibrationError, match="equal numbers"):
        calibration_calls(several, batch)


def test_a_scalar_input_needs_an_axis_of_calls(several):
    batch = ({"a": np.ones((2, 3)), "b": np.float32(1)}, np.zeros(5, int))
    with pytest.raises(CalibrationError, match=r"input.1 has the shape \(\)"):
        calibration_calls(several, batch)


class Fresh:
    """Begins anew each time; has no length."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


BATCHES = [np.full((2 * n, 3), n, np.float32) for n in (1, 3, 2)]


@pytest.mark.parametrize("kind", [list, Fresh])
def test_streams_are_read_batch_by_batch_each_time(single, kind):
    stream = calibration_batches(single, kind(BATCHES))
    for _ in range(2):
        assert [calls.shape for (calls,) in stream] == [(1, 2, 3), (3, 2, 3), (2, 2, 3)]


def test_batches_of_a_stream_may_hold_several_inputs(several):
    batch = ({"a": np.ones((4, 3)), "b": np.arange(2.0)}, np.zeros(10, int))
    a, b, ids = next(iter(calibration_batches(several, [batch, batch])))
    assert (a.shape, b.shape, ids.shape) == ((2, 2, 3), (2,), (2, 5))


def test_one_batch_is_no_stream(single, several):
    assert len(calibration_batches(single, BATCHES[1])) == 1
    assert len(calibration_batches(single, (BATCHES[1],))) == 1
    batch = ({"a": np.ones((4, 3)), "b": np.arange(2.0)}, np.zeros(10, int))
    assert len(calibration_batches(several, batch)) == 1


def test_a_list_that_the_function_takes_is_one_batch():
    graph = trace(lambda w, xs: xs[0] @ w + xs[1], shaped(3, 4), [shaped(2, 3), shaped(2, 4)])
    batch = [np.ones((4, 3)), np.ones((4, 4))]
    assert len(calibration_batches(graph, batch)) == 1
    assert len(list(calibration_batches(graph, [batch, batch, batch]))) == 3


@pytest.mark.parametrize("once", [iter(BATCHES), (b for b in BATCHES), map(np.abs, BATCHES)])
def test_what_can_be_read_once_is_refused(single, once):
    with pytest.raises(CalibrationError, match="can be read once; expected a list"):
        calibration_batches(single, once)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.full((2, 3), np.nan), "Batch 1 of the stream.*NaN"),
        (np.ones((0, 3)), "Batch 1 of the stream.*empty"),
        (np.ones((2, 4)), r"Batch 1 of the stream.*\(2, 4\)"),
        ({"x": np.ones((2, 3))}, "Batch 1 of the stream.*structure"),
    ],
)
def test_a_bad_batch_is_named_by_its_number(single, batch, message):
    stream = iter(calibration_batches(single, [BATCHES[0], batch]))
    next(stream)
    with pytest.raises(CalibrationError, match=message):
        next(stream)


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_first_calls(single, count):
    (calls,) = first_calls(calibration_batches(single, BATCHES), count)
    expected = np.concatenate(BATCHES).reshape(-1, 2, 3)[:count]
    np.testing.assert_array_equal(calls, expected)


def test_first_calls_read_no_further(single):
    stream = calibration_batches(single, [BATCHES[0], np.full((2, 3), np.nan)])
    assert len(first_calls(stream, 1)[0]) == 1


def test_first_calls_of_nothing(single):
    with pytest.raises(CalibrationError, match="empty"):
        first_calls(calibration_batches(single, []), 1)
