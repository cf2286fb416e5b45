"""Softmax, LogSoftmax and Hardmax."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops.registry import lookup
from tests.ops.checked import FLOATS, array, infer, run

X = np.random.default_rng(3).normal(0, 3, (2, 3, 5))


def by_definition(x, axis):
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_and_its_logarithm(dtype, axis):
    x = array(X, dtype)
    expected = by_definition(x.astype(np.float64), axis)
    tolerance = 4 * FLOATS[dtype]
    np.testing.assert_allclose(run("Softmax", x, axis=axis).astype(np.float64), expected, rtol=tolerance, atol=1e-7)
    np.testing.assert_allclose(run("LogSoftmax", x, axis=axis).astype(np.float64), np.log(expected), rtol=tolerance, atol=1e-6)


def test_large_numbers_do_not_overflow():
    x = np.array([[0, 1], [10000, 10001]], np.float32)
    np.testing.assert_allclose(run("Softmax", x), by_definition(np.array([[0.0, 1]] * 2), -1), rtol=1e-6)
    np.testing.assert_allclose(run("LogSoftmax", x)[0], run("LogSoftmax", x)[1], rtol=1e-4)


def test_inputs_stay_as_they_are():
    x = X.copy()
    run("Softmax", x)
    run("LogSoftmax", x)
    np.testing.assert_array_equal(x, X)


def test_empty_and_scalar_inputs():
    assert run("Softmax", np.zeros((2, 0), np.float32)).shape == (2, 0)
    assert run("Softmax", np.array(7.0)) == 1
    assert run("LogSoftmax", np.array(7.0)) == 0
    assert run("Hardmax", np.array(7.0)) == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_hardmax_marks_the_first_maximum(dtype):
    x = array([[1, 3, 3], [2, 0, 1]], dtype)
    np.testing.assert_array_equal(run("Hardmax", x).astype(np.float32), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(run("Hardmax", x, axis=0).astype(np.float32), [[0, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_shapes_and_a_bad_axis(op):
    x = TensorType(DType.F32, (symbol("n"), 10))
    assert infer(op, x) == x
    assert infer(op, TensorType(DType.F32)) == TensorType(DType.F32)
    with pytest.raises(ModelError, match=rf"{op} axis 2 is outside \[-2, 1\] for input f32\[n,10\]"):
        infer(op, x, axis=2)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_integers_are_refused_where_types_are_known_and_where_it_runs(op):
    with pytest.raises(ModelError, match=rf"{op} does not take an input i64\[2\], its element type must be one of"):
        infer(op, TensorType(DType.I64, (2,)))
    with pytest.raises(ModelError, match=rf"^{op} does not take an input i64\[2\], its element type must be one of"):
        lookup("", op).evaluate([np.array([1, 2])], {}, n_outputs=1)
