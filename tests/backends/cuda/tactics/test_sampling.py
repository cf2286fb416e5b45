"""GridSample, AffineGrid."""

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op

MODES = ["nearest", "linear", "cubic"]
PADDINGS = ["zeros", "border", "reflection"]


def random(shape, dtype=np.float32, scale=1.0):
    return (np.random.default_rng(0).standard_normal(shape) * scale).astype(dtype)


def places(shape, reach=1.5):
    return ((np.random.default_rng(1).random(shape) * 2 - 1) * reach).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", PADDINGS)
def test_modes(mode, padding):
    grid = places((2, 5, 6, 2))
    grid[0, 0, 0], grid[0, 0, 1], grid[0, 0, 2] = np.nan, np.inf, -1e30
    for align in (0, 1):
        options = {"mode": mode, "padding_mode": padding, "align_corners": align}
        check_op("GridSample", random((2, 3, 4, 7)), grid, tolerance=1e-5, **options)


@pytest.mark.parametrize("mode", MODES)
def test_three_axes_and_one(mode):
    check_op("GridSample", random((1, 2, 3, 4, 5)), places((1, 2, 3, 2, 3)), mode=mode, tolerance=1e-5)
    check_op("GridSample", random((2, 2, 5)), places((2, 9, 1)), mode=mode, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16, np.uint8, np.int32, np.bool_, ml_dtypes.int4])
def test_every_type(dtype):
    for mode in ("nearest", "cubic"):
        check_op("GridSample", random((1, 2, 3, 4), dtype, 50), places((1, 2, 3, 2), 1.0), mode=mode)


def test_half_places():
    check_op("GridSample", random((1, 2, 3, 4), np.float16), places((1, 2, 3, 2)).astype(np.float16))


def test_one_element_and_none():
    for align in (0, 1):
        for padding in PADDINGS:
            check_op("GridSample", random((1, 1, 1, 1)), places((1, 2, 2, 2)), padding_mode=padding, align_corners=align)
    check_op("GridSample", random((1, 2, 0)), places((1, 9, 1)))
    check_op("GridSample", random((0, 2, 3)), places((0, 9, 1)))


def test_wide_indices(wide_indices):
    check_op("GridSample", random((1, 2, 3, 4)), places((1, 2, 3, 2)))
    check_op("AffineGrid", random((2, 2, 3)), np.array([2, 3, 5, 6]))


def test_complex_numbers_are_not_ours():
    assert lower_op("GridSample", np.zeros((1, 1, 2, 2), np.complex64), places((1, 2, 2, 2))) is None


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_affine_grid(align, dtype):
    check_op("AffineGrid", random((2, 2, 3), dtype), np.array([2, 3, 5, 6]), align_corners=align)
    check_op("AffineGrid", random((2, 3, 4), dtype), np.array([2, 3, 1, 5, 6]), align_corners=align)
    check_op("AffineGrid", random((2, 2, 3), dtype), np.array([2, 3, 0, 6]), align_corners=align)
