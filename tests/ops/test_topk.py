"""TopK."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import Told, array, infer, run, told

TABLE = np.array([[3, 9, 3, 0], [2, 8, 7, 8]])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "uint8"])
@pytest.mark.parametrize(
    ("k", "attrs", "indices"),
    [
        (2, {}, [[1, 0], [1, 3]]),
        (3, {"axis": 1, "largest": 0}, [[3, 0, 2], [0, 2, 1]]),
        (4, {"axis": -1}, [[1, 0, 2, 3], [1, 3, 2, 0]]),
        (1, {"axis": 0}, [[0, 0, 1, 1]]),
        (0, {"axis": 1}, [[], []]),
    ],
)
def test_equal_elements_come_by_index(dtype, k, attrs, indices):
    x = array(TABLE, dtype)
    at = np.array(indices, np.int64)
    values, found = run("TopK", x, told(k), n_outputs=2, **attrs)
    np.testing.assert_array_equal(found, at)
    np.testing.assert_array_equal(values.astype(np.float32), np.take_along_axis(TABLE, at, attrs.get("axis", -1)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8"])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_long_rows(dtype, largest, axis):
    x = array(np.random.default_rng(0).integers(0, 100, (2, 5000)), dtype)  # many equal elements
    x = x.T.copy() if axis == 0 else x
    values, indices = run("TopK", x, told(120), n_outputs=2, axis=axis, largest=largest)
    for row, found, at in zip(*(np.moveaxis(a, axis, -1) for a in (x, values, indices)), strict=True):
        expected = sorted(range(5000), key=lambda i: (-int(row[i]) if largest else int(row[i]), i))[:120]
        assert at.tolist() == expected
        np.testing.assert_array_equal(found, row[expected])


def test_long_rows_with_nan():
    x = np.arange(5000, dtype=np.float32)
    x[[7, 4000]] = np.nan
    assert run("TopK", x, told(4), n_outputs=2)[1].tolist() == [7, 4000, 4999, 4998]
    assert run("TopK", x, told(2), n_outputs=2)[1].tolist() == [7, 4000]
    assert run("TopK", x, told(3), n_outputs=2, largest=0)[1].tolist() == [0, 1, 2]
    assert run("TopK", x, told(0), n_outputs=2)[1].tolist() == []
    x[2:] = np.nan
    assert run("TopK", x, told(4), n_outputs=2, largest=0)[1].tolist() == [0, 1, 2, 3]


def test_infinities_have_their_place():
    values, _ = run("TopK", np.array([1, -np.inf, np.inf], np.float32), told(3), n_outputs=2)
    np.testing.assert_array_equal(values, [np.inf, 1, -np.inf])


def test_shapes():
    n = symbol("n")
    x = TensorType(DType.F32, (n, 100))
    assert infer("TopK", x, told(5), n_outputs=2) == (TensorType(DType.F32, (n, 5)), TensorType(DType.I64, (n, 5)))
    assert infer("TopK", x, Told(np.array([n], object)), n_outputs=2)[0].shape == (n, n)
    assert str(infer("TopK", x, TensorType(DType.I64, (1,)), n_outputs=2)[1].shape[1]).startswith("?")


@pytest.mark.parametrize("k", [5, -1])
def test_more_than_there_are_is_refused(k):
    with pytest.raises(ModelError, match=rf"TopK k {k} is outside \[0, 4\]"):
        infer("TopK", TensorType(DType.F32, (2, 4)), told(k), n_outputs=2)
