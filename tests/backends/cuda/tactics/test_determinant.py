"""Det."""

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op

TOLERANCES = {"float32": 1e-4, "float64": 1e-10, "float16": 3e-3, "bfloat16": 1e-2}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(3, 3), (5, 2, 2), (2, 3, 4, 4), (3, 1, 1), (2, 0, 0), (0, 3, 3), (2, 20, 20)])
def test_batches(shape, dtype):
    scale = 1.6 / max(shape[-1], 1) ** 0.5
    x = (np.random.default_rng(0).standard_normal(shape) * scale).astype(dtype)
    check_op("Det", x, tolerance=TOLERANCES[np.dtype(dtype).name])


def test_a_matrix_that_does_not_fit_into_shared_memory():
    x = np.random.default_rng(0).standard_normal((2, 112, 112)).astype(np.float32) / 7
    check_op("Det", x, tolerance=1e-3)


@pytest.mark.parametrize("rows", [[[1, 2], [2, 4]], [[0, 1], [1, 0]], [[0, 0], [0, 0]], [[0, 2, 1], [0, 0, 3], [4, 1, 1]]])
def test_pivots(rows):
    check_op("Det", np.array(rows, np.float32))


def test_whole_numbers_are_not_ours():
    assert lower_op("Det", np.zeros((2, 2), np.int32)) is None
