"""Calibration batches are cut into calls, or refused with the reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import CalibrationError
from autosplit.graph import trace
from autosplit.profiling.calibration import calibration_calls


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
