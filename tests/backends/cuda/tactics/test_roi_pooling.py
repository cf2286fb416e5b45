"""RoiAlign, MaxRoiPool."""

import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op


def regions(n, dtype, size=20, seed=0):
    r = np.random.default_rng(seed)
    low = r.random((n, 2)) * size
    return np.concatenate([low, low + r.random((n, 2)) * size], 1).astype(dtype)


def image(dtype=np.float32, shape=(2, 3, 14, 17)):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


IMAGES = np.array([0, 1, 1, 0, -1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("place", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 2, 3])
def test_align(dtype, mode, place, ratio):
    rois = regions(6, dtype)
    rois[0], rois[1] = [-5, -5, 40, 60], [5, 5, 4, 3]  # beyond the image, and turned round
    if ratio:
        rois[2] = [-1e4, -1e4, 1e4, 1e4]
    options = {"mode": mode, "coordinate_transformation_mode": place, "sampling_ratio": ratio, "spatial_scale": 0.7}
    tolerance = None if dtype is np.float16 else 1e-5
    check_op("RoiAlign", image(dtype), rois, IMAGES, output_height=3, output_width=2, tolerance=tolerance, **options)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_align_of_a_region_far_larger_than_the_image(mode):
    rois = np.array([[-300, -300, 400, 400]], np.float32)
    x = image(shape=(1, 1, 10, 10)) - 5
    check_op("RoiAlign", x, rois, np.array([0]), output_height=2, output_width=2, mode=mode, tolerance=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_max_pool(dtype):
    rois = np.concatenate([np.arange(7)[:, None] % 2, regions(7, np.float64)], 1).astype(dtype)
    rois[0, 1:], rois[1, 1:] = [-50, -50, -40, -40], [9, 9, 3, 3]
    x = image(dtype)
    x[0, 0, 3] = np.nan
    check_op("MaxRoiPool", x, rois, pooled_shape=[3, 4], spatial_scale=0.5)


def test_no_regions():
    check_op("RoiAlign", image(), regions(0, np.float32), np.zeros(0, np.int64))
    check_op("MaxRoiPool", image(), np.zeros((0, 5), np.float32), pooled_shape=[2, 2])


def test_wide_indices(wide_indices):
    check_op("RoiAlign", image(), regions(6, np.float32), IMAGES, output_height=3, output_width=2, tolerance=1e-5)


def test_regions_of_another_type_are_not_ours():
    assert lower_op("RoiAlign", image(np.float16), regions(6, np.float32), IMAGES) is None
