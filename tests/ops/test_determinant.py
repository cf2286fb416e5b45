"""Det: batches, half widths, what is not square."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import infer, run


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_determinants_of_a_batch(dtype):
    x = np.array([[[2, 1], [4, 5]], [[0, 1], [1, 0]], [[1, 2], [2, 4]]], dtype)
    np.testing.assert_array_equal(run("Det", x), np.array([6, -1, 0], dtype), strict=True)
    np.testing.assert_array_equal(run("Det", x[0]), np.array(6, dtype), strict=True)


def test_an_empty_matrix_has_determinant_one():
    np.testing.assert_array_equal(run("Det", np.empty((2, 0, 0), np.float32)), np.ones(2, np.float32), strict=True)


def test_shapes():
    batch = symbol("batch")
    assert infer("Det", TensorType(DType.F32, (batch, 3, 3))) == TensorType(DType.F32, (batch,))
    with pytest.raises(ModelError, match="not square: 2 is not 3"):
        infer("Det", TensorType(DType.F32, (2, 3)))
    with pytest.raises(ModelError, match="expects matrices"):
        infer("Det", TensorType(DType.F32, (3,)))
