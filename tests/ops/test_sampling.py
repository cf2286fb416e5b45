"""GridSample against its formula place by place; AffineGrid's identity and its corners."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import infer, run, told

B, H, W = symbol("batch"), symbol("height"), symbol("width")


def kernel(mode, distance):
    d, a = abs(distance), -0.75
    if mode == "linear":
        return max(1 - d, 0)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0


def source(i, size, padding, align):
    """The element that stands at place ``i`` of the padded axis, None for zero."""
    if padding == "border":
        return min(max(i, 0), size - 1)
    if padding == "reflection":
        low, high = (0, 2 * (size - 1)) if align else (-1, 2 * size - 1)
        while not 0 <= i < size:
            i = low - i if i < 0 else high - i
    return i if 0 <= i < size else None


def sample(image, place, mode, padding, align):
    """One value; ``place`` is normalised, innermost axis first."""
    taps = []
    for size, p in zip(image.shape, place[::-1], strict=True):
        x = (p + 1) / 2 * (size - 1) if align else ((p + 1) * size - 1) / 2
        around = [round(x)] if mode == "nearest" else range(math.floor(x) - 1, math.floor(x) + 3)
        taps.append([(source(i, size, padding, align), 1 if mode == "nearest" else kernel(mode, x - i)) for i in around])
    total = 0.0
    for corner in itertools.product(*taps):
        if all(i is not None for i, _ in corner):
            total += image[tuple(i for i, _ in corner)] * math.prod(w for _, w in corner)
    return total


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_values_are_the_weighted_neighbours(mode, padding, align):
    rng = np.random.default_rng(4)
    for sizes in ((5,), (4, 3), (3, 2, 3)):
        x = rng.normal(size=(2, 2, *sizes))
        grid = rng.uniform(-1.9, 1.9, (2, *[2] * len(sizes), len(sizes)))
        got = run("GridSample", x, grid, mode=mode, padding_mode=padding, align_corners=align)
        for n, c, *at in np.ndindex(got.shape):
            expected = sample(x[n, c], grid[(n, *at)].tolist(), mode, padding, align)
            assert got[(n, c, *at)] == pytest.approx(expected, abs=1e-9)


def test_halfway_places_round_to_even_and_nan_reads_zero():
    x = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4)
    halfway = np.array([-2 / 3, 0.0, 2 / 3, np.nan]).reshape(1, 4, 1)  # 0.5, 1.5, 2.5
    got = run("GridSample", x, halfway, mode="nearest", align_corners=1)
    np.testing.assert_array_equal(got, np.array([[[1, 3, 3, 0]]], np.float32), strict=True)


def test_element_types_of_the_input_are_kept():
    places = np.array([0.0, 0.5], np.float32).reshape(1, 2, 1)
    for dtype, expected in ((np.int32, [1, 2]), (np.float16, [1.5, 2.5]), (ml_dtypes.bfloat16, [1.5, 2.5])):
        x = np.arange(4).reshape(1, 1, 4).astype(dtype)
        got = run("GridSample", x, places.astype(ml_dtypes.bfloat16), align_corners=0)
        np.testing.assert_array_equal(got, np.array([[expected]]).astype(dtype), strict=True)
    assert run("GridSample", np.zeros((1, 2, 0), np.float32), places).tolist() == [[[0, 0], [0, 0]]]


def test_grid_sample_shapes():
    x, grid = TensorType(DType.F32, (B, 3, H, W)), TensorType(DType.F32, (B, 7, W, 2))
    assert infer("GridSample", x, grid) == TensorType(DType.F32, (B, 3, 7, W))
    assert [str(d) for d in infer("GridSample", TensorType(DType.F32), grid).shape] == ["batch", "?y0.1", "7", "width"]
    for bad, message in (
        ((B, 7, W, 3), "2"),
        ((B, 7, 2), "same rank"),
    ):
        with pytest.raises(ModelError, match=message):
            infer("GridSample", x, TensorType(DType.F32, bad))
    with pytest.raises(ModelError, match="mode 'bilinear'"):
        infer("GridSample", x, grid, mode="bilinear")
    with pytest.raises(ModelError, match="padding_mode 'wrap'"):
        infer("GridSample", x, grid, padding_mode="wrap")


@pytest.mark.parametrize("align", [0, 1])
def test_the_grid_of_the_identity_reproduces_the_input(align):
    for sizes in ((4, 3), (2, 3, 5)):
        x = np.random.default_rng(5).normal(size=(2, 1, *sizes)).astype(np.float32)
        theta = np.stack([np.eye(len(sizes), len(sizes) + 1, dtype=np.float32)] * 2)
        grid = run("AffineGrid", theta, told(*x.shape), align_corners=align)
        np.testing.assert_allclose(run("GridSample", x, grid, align_corners=align), x, atol=1e-5)


def test_affine_grid_maps_x_y_one():
    theta = np.array([[[2, 0, 10], [0, 3, 20]]], np.float32)
    grid = run("AffineGrid", theta, told(1, 1, 2, 3), align_corners=1)
    np.testing.assert_array_equal(grid[0, :, :, 0], [[8, 10, 12]] * 2)
    np.testing.assert_array_equal(grid[0, :, :, 1], [[17] * 3, [23] * 3])
    edges = run("AffineGrid", theta, told(1, 1, 2, 1))
    np.testing.assert_array_equal(edges[0, :, 0], [[10, 18.5], [10, 21.5]])
    one = run("AffineGrid", theta.astype(ml_dtypes.bfloat16), told(1, 1, 1, 1), align_corners=1)
    np.testing.assert_array_equal(one, np.array([[[[10, 20]]]]).astype(ml_dtypes.bfloat16), strict=True)


def test_affine_grid_shapes():
    theta = TensorType(DType.F32, (B, 2, 3))
    size = TensorType(DType.I64, (4,), np.array([B, 1, H, W], object))
    assert infer("AffineGrid", theta, size) == TensorType(DType.F32, (B, H, W, 2))
    assert [str(d) for d in infer("AffineGrid", theta, TensorType(DType.I64, (4,))).shape] == ["batch", "?y0.1", "?y0.2", "2"]
    with pytest.raises(ModelError, match="size of 5 elements"):
        infer("AffineGrid", theta, told(1, 1, 2, 2, 2))
    with pytest.raises(ModelError, match="size has 2 elements: a batch"):
        infer("AffineGrid", TensorType(DType.F32), told(1, 1))
    with pytest.raises(ModelError, match="columns of theta"):
        infer("AffineGrid", TensorType(DType.F32, (B, 2, 4)), size)
