"""Inputs that fit come through as they are; every misfit is told with both sides."""

import numpy as np
import pytest

from engine_format import DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, SequenceType, TensorType, symbol
from miniinfer_cli.runtime.bindings import Binding, check_inputs

BATCH, SEQ = symbol("batch"), symbol("seq")
X = Binding("x", TensorType(DType.F32, (BATCH, 3)))
Y = Binding("y", TensorType(DType.I64, (BATCH, SEQ)))
RANGES = {"batch": DimensionRange("batch", 1, 2, 4)}


def test_a_binding_says_what_it_is():
    assert (X.dtype, X.shape, str(X)) == (np.dtype("float32"), ("batch", 3), "x: f32[batch,3]")
    assert (Binding("s", SequenceType(None)).dtype, Binding("u", None).shape) == (None, None)
    assert Binding("r", TensorType(DType.F32)).shape is None


def test_inputs_come_in_binding_order_untouched():
    x, y = np.zeros((2, 3), np.float32), np.zeros((2, 5), np.int64)
    got = check_inputs((X, Y), RANGES, {"y": y, "x": x})
    assert got[0] is x
    assert got[1] is y


def test_python_numbers_take_the_bindings_type():
    (got,) = check_inputs((X,), {}, {"x": [[1, 2, 3]]})
    assert got.dtype == np.float32
    assert got.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"x": np.zeros((2, 3), np.float32)},
            r"inputs: missing 'y'\n  hint: the plan's inputs are x: f32\[batch,3\], y: i64\[batch,seq\]",
        ),
        ({"x": 0, "y": 0, "z": 0}, r"inputs: unknown 'z'"),
        (
            {"x": np.zeros((2, 3), np.float64), "y": np.zeros((2, 5), np.int64)},
            r"input 'x': got f64\[2,3\], expected f32\[batch,3\]\n  hint: convert it with .astype\(float32\)",
        ),
        (
            {"x": np.zeros((2, 4), np.float32), "y": np.zeros((2, 5), np.int64)},
            r"input 'x': got f32\[2,4\], expected f32\[batch,3\] \(axis 1: 4 is not 3\)",
        ),
        (
            {"x": np.zeros(3, np.float32), "y": np.zeros((2, 5), np.int64)},
            r"input 'x': got f32\[3\] of rank 1, expected f32\[batch,3\] of rank 2",
        ),
        (
            {"x": np.zeros((2, 3), np.float32), "y": np.zeros((3, 5), np.int64)},
            r"input 'y': axis 0 \(batch\) is 3, but 2 in input 'x'",
        ),
        (
            {"x": np.zeros((5, 3), np.float32), "y": np.zeros((5, 5), np.int64)},
            r"input 'x': axis 0 \(batch\) is 5, outside \[1, 4\]\n  hint: build the plan with a wider --min-shapes/--max-shapes",
        ),
        ({"x": object(), "y": 0}, r"input 'x': expected an array f32\[batch,3\], got object"),
        (
            {"x": np.zeros(1, "datetime64[s]"), "y": 0},
            r"input 'x': element type datetime64\[s\] has no ONNX counterpart, expected f32",
        ),
    ],
)
def test_misfits_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        check_inputs((X, Y), RANGES, given)


def test_dimensions_that_are_expressions_are_checked_against_the_names():
    z = Binding("z", TensorType(DType.F32, (2 * BATCH,)))
    x = np.zeros((2, 3), np.float32)
    check_inputs((X, z), {}, {"x": x, "z": np.zeros(4, np.float32)})
    with pytest.raises(UsageError, match=r"axis 0 \(2\*batch\) is 5, but 4"):
        check_inputs((X, z), {}, {"x": x, "z": np.zeros(5, np.float32)})


def test_strings_may_come_as_numpys_own():
    (got,) = check_inputs((Binding("s", TensorType(DType.STR, (2,))),), {}, {"s": np.array(["a", "b"])})
    assert got.dtype == object
    assert got.tolist() == ["a", "b"]
