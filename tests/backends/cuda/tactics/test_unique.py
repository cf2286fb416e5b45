"""Unique."""

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op


def numbers(shape, dtype, limit=30, seed=0):
    return np.random.default_rng(seed).integers(0, limit, shape).astype(dtype)


@pytest.mark.parametrize("sorted", [0, 1])
@pytest.mark.parametrize("n_outputs", [1, 2, 3, 4])
def test_outputs(sorted, n_outputs):
    check_op("Unique", numbers((9, 11), np.float32), sorted=sorted, n_outputs=n_outputs)


@pytest.mark.parametrize("sorted", [0, 1])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (70, 130)])
def test_shapes(shape, sorted):
    check_op("Unique", numbers(shape, np.float32, 900), sorted=sorted, n_outputs=4)


@pytest.mark.parametrize(
    "dtype",
    [np.float64, np.int64, np.uint8, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.uint4],
)
def test_every_type(dtype):
    check_op("Unique", numbers((8, 9), dtype, 7), n_outputs=4)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float4_e2m1fn, ml_dtypes.int4])
def test_narrow_types_with_signs(dtype):
    x = np.array([1, -1, 0, 2, -2, 1, 4, -4, 0.5, 0, -2], np.float32).astype(dtype)
    check_op("Unique", x, n_outputs=4)


@pytest.mark.parametrize("sorted", [0, 1])
def test_nan_and_zeros(sorted):
    x = np.array([1, np.nan, 0, -0.0, np.inf, np.nan, -np.inf, 0, 1], np.float32)
    check_op("Unique", x, sorted=sorted, n_outputs=4)


@pytest.mark.parametrize("sorted", [0, 1])
@pytest.mark.parametrize(("shape", "axis"), [((5, 3), 0), ((5, 3), -1), ((30, 2, 2), 0), ((2, 60, 2), 1), ((2, 2300), 1)])
def test_slices(shape, axis, sorted):
    check_op("Unique", numbers(shape, np.int32, 3), axis=axis, sorted=sorted, n_outputs=4)


def test_no_slices():
    check_op("Unique", numbers((0, 3), np.int32), axis=0, n_outputs=4)


def test_slices_without_elements_are_not_ours():
    assert lower_op("Unique", np.zeros((3, 0), np.int32), axis=0, n_outputs=4) is None


def test_complex_numbers_are_not_ours():
    assert lower_op("Unique", np.zeros(3, np.complex64), n_outputs=4) is None


def test_wide_indices(wide_indices):
    check_op("Unique", numbers((70, 130), np.float32), sorted=0, n_outputs=4)
    check_op("Unique", numbers((2, 60, 2), np.int32, 3), axis=1, sorted=0, n_outputs=4)
