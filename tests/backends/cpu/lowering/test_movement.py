"""Concat on the CPU beside its reference."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cpu.lowering.one_node import check_op


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, ml_dtypes.bfloat16, np.complex64])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(dtype: Any, axis: int) -> None:
    shapes = [[2, 3, 4], [2, 3, 4], [2, 3, 4]]
    for number, shape in enumerate(shapes):
        shape[axis] = (5, 0, 2)[number]
    arrays = [np.arange(np.prod(s)).reshape(s).astype(dtype) for s in shapes]
    check_op("Concat", *arrays, axis=axis, tactic="copy")
    check_op("Concat", arrays[0], axis=axis, tactic="copy")
