"""RoiAlign and MaxRoiPool: exact on ramps, by hand at borders, shapes and refusals."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import infer, run

N, R, C, H, W = (symbol(n) for n in ("batch", "regions", "channels", "height", "width"))
# Interpolation reproduces a ramp, so a mean over a bin inside the image is the ramp's value at the bin's center.
RAMP = np.stack([np.add.outer(2.0 * np.arange(16), 3.0 * np.arange(20)), np.add.outer(np.arange(16), -np.arange(20))])
IMAGES = np.stack([RAMP, 100 + RAMP]).astype(np.float32)
REGIONS = np.array([[2, 3, 11, 9], [1.5, 2.25, 14.5, 12.75], [4, 4, 7, 13]], np.float32)
OWNERS = np.array([0, 1, 0])


@pytest.mark.parametrize("ratio", [0, 1, 3])
@pytest.mark.parametrize(("mode", "shift"), [("half_pixel", 0.5), ("output_half_pixel", 0.0)])
def test_means_of_a_ramp_are_its_values_at_the_bin_centers(mode, shift, ratio):
    attrs = {"output_height": 3, "output_width": 2, "sampling_ratio": ratio, "coordinate_transformation_mode": mode}
    got = run("RoiAlign", IMAGES, REGIONS * 2, OWNERS, spatial_scale=0.5, **attrs)
    for i, (x1, y1, x2, y2) in enumerate(REGIONS.tolist()):
        y = y1 + (np.arange(3) + 0.5) * (y2 - y1) / 3 - shift
        x = x1 + (np.arange(2) + 0.5) * (x2 - x1) / 2 - shift
        expected = np.stack([np.add.outer(2 * y, 3 * x), np.add.outer(y, -x)]) + 100 * OWNERS[i]
        np.testing.assert_allclose(got[i], expected, rtol=1e-5, atol=1e-4)


def test_samples_outside_the_image_count_as_zero():
    ones = np.ones((1, 1, 4, 4), np.float32)
    region = np.array([[-5, 0, 4, 4]], np.float32)  # samples of the middle bin: -1.25 and 0.25
    got = run(
        "RoiAlign",
        ones,
        region,
        np.array([0]),
        output_width=3,
        sampling_ratio=2,
        coordinate_transformation_mode="output_half_pixel",
    )
    np.testing.assert_array_equal(got, np.array([[[[0, 0.5, 1]]]], np.float32), strict=True)
    edge = run("RoiAlign", ones, np.array([[-0.75, 0, 0.25, 1]], np.float32), np.array([0]), sampling_ratio=1)
    np.testing.assert_array_equal(edge, np.ones((1, 1, 1, 1), np.float32), strict=True)


def test_small_regions():
    region = np.array([[3, 3, 3, 3]], np.float32)
    one = run("RoiAlign", IMAGES[:1], region, np.array([0]), coordinate_transformation_mode="output_half_pixel")
    np.testing.assert_allclose(one[0, :, 0, 0], [2 * 3.5 + 3 * 3.5, 0], atol=1e-6)  # taken to be 1 by 1
    for no_height in (region, region + np.array([0, 0, 2, 0], np.float32)):  # no sample
        for mode in ("avg", "max"):
            none = run("RoiAlign", IMAGES[:1], no_height, np.array([0]), mode=mode)
            np.testing.assert_array_equal(none, np.zeros((1, 2, 1, 1), np.float32), strict=True)


def test_maximum_is_over_weighted_neighbours():
    x = np.array([[[[0, 4], [8, 2]]]], np.float32)
    got = run("RoiAlign", x, np.array([[0, 0, 1, 1]], np.float32), np.array([0]), mode="max", sampling_ratio=1,
              coordinate_transformation_mode="output_half_pixel")  # fmt: skip
    np.testing.assert_array_equal(got, np.array([[[[2]]]], np.float32), strict=True)  # 8 at weight 1/4
    attrs = {"mode": "max", "output_height": 2, "output_width": 1, "sampling_ratio": 2}
    samples = run("RoiAlign", x, np.array([[0.5, 0.5, 2.5, 2.5]], np.float32), np.array([0]), **attrs)
    np.testing.assert_array_equal(samples, np.array([[[[3], [4]]]], np.float32), strict=True)
    narrow = run("RoiAlign", x.astype(ml_dtypes.bfloat16), np.ones((1, 4), ml_dtypes.bfloat16), np.array([0]))
    assert narrow.dtype == ml_dtypes.bfloat16


def test_max_roi_pool_takes_maxima_of_whole_elements():
    x = np.random.default_rng(6).normal(size=(2, 3, 8, 9)).astype(np.float32)
    rois = np.array([[1, 2, 1, 8, 6], [0, 0.5, 1.4, 4.5, 4.6], [0, 7, 6, 20, 20], [1, -9, -9, -5, -5]], np.float32)
    got = run("MaxRoiPool", x, rois, pooled_shape=[2, 3])
    corners = [(2, 1, 8, 6), (1, 1, 5, 5), (7, 6, 20, 20), (-9, -9, -5, -5)]  # halves go away from zero
    for i, (x1, y1, x2, y2) in enumerate(corners):
        height, width = (y2 - y1 + 1) / 2, (x2 - x1 + 1) / 3
        for r, c in np.ndindex(2, 3):
            rows = slice(max(y1 + int(np.floor(r * height)), 0), max(y1 + int(np.ceil((r + 1) * height)), 0))
            columns = slice(max(x1 + int(np.floor(c * width)), 0), max(x1 + int(np.ceil((c + 1) * width)), 0))
            inside = x[int(rois[i, 0]), :, rows, columns]
            expected = inside.max(axis=(1, 2)) if inside.size else np.zeros(3, np.float32)
            np.testing.assert_array_equal(got[i, :, r, c], expected)


def test_shapes_and_refusals():
    image = TensorType(DType.F32, (N, C, H, W))
    rois, owners = TensorType(DType.F32, (R, 4)), TensorType(DType.I64, (R,))
    assert infer("RoiAlign", image, rois, owners, output_height=7) == TensorType(DType.F32, (R, C, 7, 1))
    pooled = infer("MaxRoiPool", image, TensorType(DType.F32, (R, 5)), pooled_shape=[2, 3])
    assert pooled == TensorType(DType.F32, (R, C, 2, 3))
    for attrs, message in (({"mode": "sum"}, "'sum'"), ({"coordinate_transformation_mode": "full"}, "'full'")):
        with pytest.raises(ModelError, match=message):
            infer("RoiAlign", image, rois, owners, **attrs)
    with pytest.raises(ModelError, match="4 is not 5"):
        infer("MaxRoiPool", image, rois, pooled_shape=[2, 3])
    with pytest.raises(ModelError, match="not a height and a width"):
        infer("MaxRoiPool", image, rois, pooled_shape=[2])
    with pytest.raises(ModelError, match=r"batch index 2 is outside \[-2, 1\]"):
        run("RoiAlign", IMAGES, REGIONS[:1], np.array([2]))
    with pytest.raises(ModelError, match="regions of"):
        infer("RoiAlign", image, TensorType(DType.F32, (3, 4)), TensorType(DType.I64, (2,)))
