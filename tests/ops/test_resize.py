"""Resize: against the formulas written out element by element, output sizes, policies, and what is refused."""

import itertools
import math

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import Told, infer, run, told

B, H, W = symbol("batch"), symbol("height"), symbol("width")
IMAGE = TensorType(DType.F32, (B, 3, H, W))
ROWS = np.random.default_rng(1).normal(size=(3, 7)).astype(np.float32)


def floats(*items):
    return Told(np.array(items, np.float32))


def coordinate(mode, i, size, out):
    scale = out / size
    return {
        "half_pixel": (i + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (i + 0.5) / scale - 0.5 if out > 1 else 0,
        "half_pixel_symmetric": (i + 0.5) / scale - 0.5,  # differs only where scale * size is no whole number
        "asymmetric": i / scale,
        "align_corners": i * (size - 1) / (out - 1) if out > 1 else 0,
    }[mode]


def cubic(x, a):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0


def resample(row, out, place, kernel, reach, exclude_outside=False, normalize=False):
    """One row, by summing kernel(distance) over every source within reach."""
    result = []
    for i in range(out):
        x = place(i)
        taps = [k for k in range(math.floor(x) - 40, math.floor(x) + 41) if abs(x - k) < reach]
        weights = [0 if exclude_outside and not 0 <= k < len(row) else kernel(x - k) for k in taps]
        total = sum(weights) if exclude_outside or normalize else 1
        result.append(sum(w * row[min(max(k, 0), len(row) - 1)] for w, k in zip(weights, taps, strict=True)) / total)
    return result


MODES = ["half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"]


@pytest.mark.parametrize("out", [1, 3, 7, 10, 14])
@pytest.mark.parametrize("mode", MODES)
def test_linear_and_cubic_weigh_the_neighbours(mode, out):
    for kind, kernel, reach in (("linear", lambda d: 1 - abs(d), 1), ("cubic", lambda d: cubic(d, -0.5), 2)):
        for exclude in (0, 1):
            attrs = {"cubic_coeff_a": -0.5, "exclude_outside": exclude}
            got = run("Resize", ROWS, None, None, told(3, out), mode=kind, coordinate_transformation_mode=mode, **attrs)
            expected = [resample(r, out, lambda i: coordinate(mode, i, 7, out), kernel, reach, exclude) for r in ROWS]
            np.testing.assert_allclose(got, np.array(expected, np.float32), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("out", [2, 3, 5, 9])
@pytest.mark.parametrize("exclude", [0, 1])
def test_antialias_widens_the_kernel_when_shrinking(out, exclude):
    scale = min(out / 7, 1)
    kernels = (
        ("linear", lambda d: 1 - abs(d * scale), 1 / scale),
        ("cubic", lambda d: cubic(d * scale, -0.75), 2 / scale),
    )
    for kind, kernel, reach in kernels:
        got = run("Resize", ROWS, None, None, told(3, out), mode=kind, antialias=1, exclude_outside=exclude)
        expected = [resample(r, out, lambda i: coordinate("half_pixel", i, 7, out), kernel, reach, exclude, True) for r in ROWS]
        np.testing.assert_allclose(got, np.array(expected, np.float32), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("out", [1, 3, 7, 11, 14])
def test_nearest_rounds_as_asked(out):
    rounding = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda x: math.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: math.floor(x + 0.5),
    }
    words = np.array([[f"{i}{j}" for j in range(7)] for i in range(3)], object)
    for mode, name in itertools.product(MODES, rounding):
        # Exact ratios: 11/7 as a float is not, and a coordinate that is a whole number must come out as one.
        places = [round(coordinate(mode, i, 7, out), 9) for i in range(out)]
        columns = [min(max(rounding[name](x), 0), 6) for x in places]
        attrs = {"coordinate_transformation_mode": mode, "nearest_mode": name}
        for x in (ROWS, words):
            np.testing.assert_array_equal(run("Resize", x, None, None, told(3, out), **attrs), x[:, columns], strict=True)


def test_axes_are_independent_of_their_order():
    x = np.random.default_rng(2).normal(size=(2, 5, 6, 4))
    got = run("Resize", x, None, None, told(3, 9), mode="linear", axes=[-1, 1])
    middle = run("Resize", x, None, None, told(9), mode="linear", axes=[1])
    np.testing.assert_allclose(got, run("Resize", middle, None, None, told(3), mode="linear", axes=[3]), rtol=1e-12)


def test_crop_and_resize_reads_a_part_and_fills_beyond():
    row = np.arange(5, dtype=np.float32)
    attrs = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0}
    np.testing.assert_allclose(run("Resize", row, floats(0.25, 0.75), None, told(5), **attrs), [1, 1.5, 2, 2.5, 3])
    np.testing.assert_allclose(run("Resize", row, floats(0.5, 1.5), None, told(3), **attrs), [2, 4, 9])
    np.testing.assert_allclose(run("Resize", row, floats(0.0, 1.0), None, told(1), **attrs), [2])
    assert infer("Resize", IMAGE, floats(0, 0, 1, 0.5), floats(2, 2), axes=[2, 3], **attrs).shape[:2] == (B, 3)
    assert run("Resize", np.zeros(8, np.float32), floats(0.0, 0.5), floats(2), **attrs).shape == (8,)
    moved = run("Resize", np.arange(9, dtype=np.float32), floats(0.25, 0.75), floats(2), **attrs)
    np.testing.assert_allclose(moved, 2 + np.arange(9) / 2)
    square = run("Resize", np.add.outer(row, row), floats(0, 0.5, 0.5, 1.5), None, told(2, 2), **attrs)
    np.testing.assert_allclose(square, [[2, 9], [4, 9]])
    far = run("Resize", row, floats(3.0, 4.0), None, told(2), exclude_outside=1, **attrs)
    np.testing.assert_array_equal(far, [9, 9])
    with pytest.raises(ModelError, match="roi of 2 numbers"):
        run("Resize", row, None, None, told(3), **attrs)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("uint8", [0, 64, 191, 255]), ("int8", [0, 32, 95, 127]), ("int64", [0, 2, 6, 8])]
)
def test_integers_are_rounded_and_saturated(dtype, expected):
    ends = np.array([0, expected[-1]], dtype)
    np.testing.assert_array_equal(run("Resize", ends, None, floats(2), mode="linear"), np.array(expected, dtype), strict=True)
    limits = np.iinfo(dtype)
    over = np.array([expected[-1], 0, expected[-1], 0], dtype)
    exact = run("Resize", over.astype(np.float64), None, floats(3), mode="cubic")
    assert exact.min() < 0
    np.testing.assert_array_equal(
        run("Resize", over, None, floats(3), mode="cubic"), np.clip(np.rint(exact), limits.min, limits.max).astype(dtype)
    )


def test_half_floats_are_interpolated_in_f32():
    row = np.array([1, 1.001], np.float16)
    got = run("Resize", row, None, floats(4), mode="linear")
    exact = run("Resize", row.astype(np.float32), None, floats(4), mode="linear")
    np.testing.assert_array_equal(got, exact.astype(np.float16), strict=True)


@pytest.mark.parametrize(
    ("size", "scale", "out"), [(5, 0.6, 3), (3, 1 / 3, 1), (10, 0.7, 7), (1000, 0.7, 700), (7, 1.5, 10), (4, 2.25, 9)]
)
def test_scales_rounded_to_f32_mean_what_was_written(size, scale, out):
    row = np.arange(size, dtype=np.float32)
    assert infer("Resize", row, None, floats(scale)).shape == (out,)
    got = run("Resize", row, None, floats(scale), coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    np.testing.assert_array_equal(got, [min(math.floor(round(i / scale, 6)), size - 1) for i in range(out)])
    ramp = run("Resize", row, None, floats(scale), coordinate_transformation_mode="asymmetric", mode="linear")
    np.testing.assert_allclose(ramp, [min(i / scale, size - 1) for i in range(out)], rtol=1e-6)


def test_symbolic_sizes():
    assert infer("Resize", IMAGE, None, floats(1, 1, 2, 0.5)).shape == (B, 3, 2 * H, W // 2)
    assert infer("Resize", IMAGE, None, floats(1.5, 1 / 3), axes=[2, 3]).shape == (B, 3, 3 * H // 2, W // 3)
    sizes = TensorType(DType.I64, (2,), np.array([W, 7], object))
    assert infer("Resize", IMAGE, None, None, sizes, axes=[-2, -1]).shape == (B, 3, W, 7)
    unknown = infer("Resize", IMAGE, None, TensorType(DType.F32, (4,))).shape
    assert [str(d) for d in unknown] == ["?y0.0", "?y0.1", "?y0.2", "?y0.3"]
    assert str(infer("Resize", IMAGE, None, floats(math.pi), axes=[2]).shape[2]) == "?y0.2"


@pytest.mark.parametrize(("policy", "expected"), [("stretch", (10, 9)), ("not_larger", (4, 9)), ("not_smaller", (10, 23))])
def test_aspect_ratio_policies(policy, expected):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)[:, [0, 1, 2, 3, 3, 3, 3]]  # 3 by 7
    got = run("Resize", x, None, None, told(10, 9), mode="linear", keep_aspect_ratio_policy=policy)
    assert got.shape == expected
    unknown = infer("Resize", IMAGE, None, None, told(5, 5), axes=[2, 3], keep_aspect_ratio_policy=policy).shape
    assert [str(d) for d in unknown[2:]] == (["5", "5"] if policy == "stretch" else ["?y0.2", "?y0.3"])


@pytest.mark.parametrize(
    ("operands", "attrs", "message"),
    [
        ((None, None, told(2, 2)), {"mode": "area"}, "mode 'area' is not one of nearest, linear, cubic"),
        ((None, None, told(2, 2)), {"nearest_mode": "up"}, "nearest_mode 'up'"),
        ((None, None, told(2, 2)), {"coordinate_transformation_mode": "tf"}, "'tf' is not one of"),
        ((None, None, told(2, 2)), {"keep_aspect_ratio_policy": "fit"}, "'fit' is not known"),
        ((None, None, told(2)), {}, "1 sizes for 2 axes"),
        ((None, floats(1, -1)), {}, "scale -1.0 of axis 1 is not positive"),
        ((None, floats(0, 1)), {}, "scale 0.0 of axis 0 is not positive"),
        ((None, floats(1, 1), told(2, 2)), {}, "either scales or sizes"),
        ((), {}, "either scales or sizes"),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("Resize", ROWS, *operands, **attrs)


def test_large_tensors_are_worked_on_in_blocks():
    images = np.random.default_rng(3).normal(size=(5, 100, 150)).astype(np.float32)
    together = run("Resize", images, None, floats(2, 2), mode="linear", axes=[1, 2])
    for image, got in zip(images, together, strict=True):
        np.testing.assert_array_equal(got, run("Resize", image, None, floats(2, 2), mode="linear"), strict=True)


def test_a_region_counts_for_crop_and_resize_alone():
    region = floats(0.25, 0.25, 0.5, 0.5)
    got = run("Resize", ROWS, region, None, told(3, 14), mode="linear")
    np.testing.assert_array_equal(got, run("Resize", ROWS, None, None, told(3, 14), mode="linear"), strict=True)


def test_empty_tensors():
    for mode in ("nearest", "linear"):
        assert run("Resize", ROWS, None, None, told(3, 0), mode=mode).shape == (3, 0)
        assert run("Resize", ROWS[:0], None, floats(2, 2), mode=mode).shape == (0, 14)
        with pytest.raises(ModelError, match="2 elements of axis 0 of f32\\[0,7\\] from none"):
            run("Resize", ROWS[:0], None, None, told(2, 7), mode=mode)


def test_strings_cannot_be_interpolated():
    with pytest.raises(ModelError, match="nearest can"):
        infer("Resize", np.array(["a"], object), None, floats(2), mode="linear")
