"""ArgMax and ArgMin."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.everywhere import check_everywhere, fails_everywhere, parsed
from tests.ops.checked import array, infer, run

TABLE = np.array([[1, 5, 5], [7, 7, -2]], np.float32)


@pytest.mark.parametrize(
    ("op", "attrs", "expected"),
    [
        ("ArgMax", {"axis": 1}, [[1], [0]]),
        ("ArgMax", {"axis": -1, "keepdims": 0}, [1, 0]),
        ("ArgMax", {"axis": 1, "select_last_index": 1}, [[2], [1]]),
        ("ArgMax", {}, [[1, 1, 0]]),
        ("ArgMin", {"axis": 1, "keepdims": 0}, [0, 2]),
        ("ArgMin", {"axis": 0}, [[0, 0, 1]]),
        ("ArgMin", {"axis": 0, "select_last_index": 1, "keepdims": 0}, [0, 0, 1]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_index_of_the_extreme(op, attrs, expected, dtype):
    np.testing.assert_array_equal(run(op, array(TABLE, dtype), **attrs), np.array(expected, np.int64))


def test_ties_of_a_constant_row():
    same = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(run("ArgMin", same, axis=1, keepdims=0), [0, 0])
    np.testing.assert_array_equal(run("ArgMin", same, axis=1, keepdims=0, select_last_index=1), [3, 3])


def test_shapes_and_a_bad_axis():
    n = symbol("n")
    assert infer("ArgMax", TensorType(DType.F32, (n, 4)), axis=1) == TensorType(DType.I64, (n, 1))
    assert infer("ArgMax", TensorType(DType.F32, (n, 4)), axis=0, keepdims=0) == TensorType(DType.I64, (4,))
    assert infer("ArgMax", TensorType(DType.F32)) == TensorType(DType.I64)
    with pytest.raises(ModelError, match=r"ArgMin axis 2 is outside \[-2, 1\]"):
        infer("ArgMin", TensorType(DType.F32, (n, 4)), axis=2)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_an_axis_of_no_elements_has_no_extreme(op):
    model = parsed(f"g (float[N,M] x) => (int64[A,B] y) {{ y = {op} <axis=1> (x) }}")
    for shape in ((0, 0), (0, 3)):
        check_everywhere(model, ({"x": np.zeros(shape, np.float32)}, np.zeros((0, 1), np.int64)))
    fails_everywhere(model, {"x": np.zeros((2, 0), np.float32)}, rf"{op} along axis 1 of f32\[2,0\]: there is no element")
