"""NonZero, Compress."""

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op

SHAPES = [(5, 7), (3,), (), (0, 3), (3, 0), (70, 130), (2, 3, 4, 5)]


def sparse(shape, dtype, seed=0):
    r = np.random.default_rng(seed)
    return (r.integers(-1, 2, shape) * (r.random(shape) < 0.5)).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_non_zero(shape):
    for dtype in (np.float32, np.int64, np.bool_, np.float16):
        check_op("NonZero", sparse(shape, dtype))
    check_op("NonZero", -sparse(shape, np.float32))  # -0 is zero


@pytest.mark.parametrize(
    "dtype", [np.float64, np.uint8, np.int16, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]
)
def test_non_zero_of_every_type(dtype):
    check_op("NonZero", sparse((4, 9), dtype))


def test_non_zero_finds_nan():
    check_op("NonZero", np.array([0, np.nan, -0.0, 1, np.inf], np.float32))
    check_op("NonZero", np.array([0, np.nan, 1], ml_dtypes.float8_e4m3fnuz))


def test_all_and_nothing():
    check_op("NonZero", np.ones((3, 5000), np.float32))
    check_op("NonZero", np.zeros((3, 50), np.float32))
    check_op("Compress", np.ones((3, 5), np.float32), np.zeros(5, np.bool_), axis=1)


def test_non_zero_of_c128_is_not_ours():
    assert lower_op("NonZero", np.zeros(3, np.complex128)) is None


@pytest.mark.parametrize("shape", [(5, 7), (3,), (40, 200), (2, 3, 4, 8), (0, 3)])
def test_compress(shape):
    r = np.random.default_rng(0)
    x = r.integers(-9, 9, shape).astype(np.float32)
    check_op("Compress", x, r.random(x.size) < 0.4)
    check_op("Compress", x, np.concatenate([r.random(x.size) < 0.4, np.zeros(3, np.bool_)]))
    check_op("Compress", x, r.random(x.size // 2) < 0.4)
    for axis in range(x.ndim):
        condition = r.random(shape[axis]) < 0.6
        check_op("Compress", x, condition, axis=axis)
        check_op("Compress", x.astype(np.int8), condition, axis=axis - x.ndim)


@pytest.mark.parametrize("dtype", [np.complex128, np.float64, np.float16, np.bool_, ml_dtypes.float8_e5m2])
def test_compress_moves_every_type(dtype):
    x = sparse((6, 5), dtype)
    check_op("Compress", x, np.array([True, False, True, True, False, True]), axis=0)


def test_wide_indices(wide_indices):
    x = sparse((70, 130), np.float32)
    check_op("NonZero", x)
    check_op("Compress", x, x[0] > 0, axis=1)
