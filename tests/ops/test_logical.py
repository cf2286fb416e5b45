"""Truth values: connectives, comparisons of every element type, Where."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run

TYPES = [*FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize(
    ("op", "expected"),
    [("And", [[True, False], [False, False]]), ("Or", [[True, True], [True, False]]), ("Xor", [[False, True], [True, False]])],
)
def test_connectives(op, expected):
    truths = np.array([True, False])
    np.testing.assert_array_equal(run(op, truths[:, None], truths), expected)


@pytest.mark.parametrize("dtype", TYPES)
def test_comparisons(dtype):
    a, b = array([1, 2, 3], dtype), array([[2], [3]], dtype)
    np.testing.assert_array_equal(run("Equal", a, b), [[False, True, False], [False, False, True]])
    np.testing.assert_array_equal(run("Less", a, b), [[True, False, False], [True, True, False]])
    np.testing.assert_array_equal(run("LessOrEqual", a, b), [[True, True, False], [True, True, True]])
    np.testing.assert_array_equal(run("Greater", a, b), [[False, False, True], [False, False, False]])
    np.testing.assert_array_equal(run("GreaterOrEqual", a, b), [[False, True, True], [False, False, True]])


@pytest.mark.parametrize("op", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_compares_with_nan(op, dtype):
    x = array([np.nan, 1.0, np.nan], dtype)
    assert not run(op, x, array([1.0, np.nan, np.nan], dtype)).any()


def test_strings_and_truth_values_compare_for_equality():
    words = np.array(["a", "b", ""], object)
    np.testing.assert_array_equal(run("Equal", words, np.array(["a"], object)), [True, False, False])
    np.testing.assert_array_equal(run("Equal", np.array([True, False]), np.array([False, False])), [False, True])


@pytest.mark.parametrize("dtype", [*TYPES, "bool", "complex64", "float8_e4m3fn"])
def test_where_takes_any_type_and_broadcasts_all_three(dtype):
    condition = np.array([[True], [False]])
    result = run("Where", condition, array([1, 0, 1], dtype), array(0, dtype))
    np.testing.assert_array_equal(result, array([[1, 0, 1], [0, 0, 0]], dtype))


def test_where_of_strings():
    result = run("Where", np.array([True, False]), np.array(["a", "b"], object), np.array("z", object))
    np.testing.assert_array_equal(result, np.array(["a", "z"], object))


def test_where_with_symbols():
    n = symbol("n")
    condition, x, y = TensorType(DType.BOOL, (n, 1)), TensorType(DType.F32, (4,)), TensorType(DType.F32, ())
    assert infer("Where", condition, x, y) == TensorType(DType.F32, (n, 4))


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        ("And", (DType.I32, DType.I32), "And does not take an input i32"),
        ("Less", (DType.STR, DType.STR), "Less does not take an input str"),
        ("Greater", (DType.I32, DType.I64), "Greater needs operands of one element type"),
        ("Where", (DType.I32, DType.F32, DType.F32), "Where does not take an input i32"),
        ("Where", (DType.BOOL, DType.F32, DType.F16), "Where needs operands of one element type"),
    ],
)
def test_wrong_operands_are_refused(op, types, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *(TensorType(t, (2,)) for t in types))
