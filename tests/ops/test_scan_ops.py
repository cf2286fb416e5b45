"""CumSum and CumProd."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import array, contents, infer, run

TABLE = np.array([[1, 2, 3], [4, 5, 6]])


def at(axis):
    return np.array(axis, np.int64)


@pytest.mark.parametrize(
    ("op", "axis", "attrs", "expected"),
    [
        ("CumSum", 1, {}, [[1, 3, 6], [4, 9, 15]]),
        ("CumSum", 0, {}, [[1, 2, 3], [5, 7, 9]]),
        ("CumSum", -1, {"exclusive": 1}, [[0, 1, 3], [0, 4, 9]]),
        ("CumSum", 1, {"reverse": 1}, [[6, 5, 3], [15, 11, 6]]),
        ("CumSum", 1, {"reverse": 1, "exclusive": 1}, [[5, 3, 0], [11, 6, 0]]),
        ("CumProd", 1, {}, [[1, 2, 6], [4, 20, 120]]),
        ("CumProd", 0, {"exclusive": 1}, [[1, 1, 1], [1, 2, 3]]),
        ("CumProd", 1, {"reverse": 1, "exclusive": 1}, [[6, 3, 1], [30, 6, 1]]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
def test_running_results(op, axis, attrs, expected, dtype):
    np.testing.assert_array_equal(run(op, array(TABLE, dtype), at(axis), **attrs), array(expected, dtype))


def test_an_axis_of_shape_one_and_an_empty_tensor():
    np.testing.assert_array_equal(run("CumSum", TABLE, np.array([1], np.int32)), [[1, 3, 6], [4, 9, 15]])
    assert run("CumSum", np.zeros((2, 0), np.float32), at(1), exclusive=1).shape == (2, 0)


def test_half_width_sums_do_not_stall():
    assert run("CumSum", np.ones(4096, np.float16), at(0))[-1] == 4096


def test_dimensions_are_followed():
    n = symbol("n")
    assert contents("CumSum", [n, 2, n], 0) == [n, n + 2, 2 * n + 2]
    assert contents("CumProd", [n, 2], 0, exclusive=1) == [1, n]


def test_a_bad_axis_is_refused():
    with pytest.raises(ModelError, match=r"CumSum axis 2 is outside"):
        infer("CumSum", TABLE, TensorType(DType.I64, (), at(2)))
    with pytest.raises(ModelError, match=r"CumSum runs along an axis, and f32\[\] has none"):
        infer("CumSum", TensorType(DType.F32, ()), TensorType(DType.I64, ()))
    with pytest.raises(ModelError, match="CumProd expects one axis"):
        infer("CumProd", TABLE, np.array([0, 1]))
    with pytest.raises(ModelError, match=r"CumSum does not take an input c64\[\], its element type must be one of i64"):
        infer("CumSum", TABLE, TensorType(DType.C64, (), np.array(1j)))
