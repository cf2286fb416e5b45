"""MatMulInteger, QLinearMatMul, ConvInteger, QLinearConv: exact integer sums, rounding and saturation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops.exact_product import exact_float
from tests.ops import naive_windows
from tests.ops.checked import array, infer, run

RNG = np.random.default_rng(0)
BYTES = ["int8", "uint8"]


def random_bytes(shape, dtype):
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def scalar(value, dtype="float32"):
    return np.array(value, dtype)


@pytest.mark.parametrize("a_dtype", BYTES)
@pytest.mark.parametrize("b_dtype", BYTES)
@pytest.mark.parametrize("depth", [1, 300])
def test_matmul_integer_is_exact(a_dtype, b_dtype, depth):
    a, b = random_bytes((2, 3, depth), a_dtype), random_bytes((depth, 4), b_dtype)
    wide_a, wide_b = a.astype(np.int64), b.astype(np.int64)
    np.testing.assert_array_equal(run("MatMulInteger", a, b), wide_a @ wide_b)
    y = run("MatMulInteger", a, b, scalar(7, a_dtype), scalar(9, b_dtype))
    np.testing.assert_array_equal(y, (wide_a - 7) @ (wide_b - 9))


def test_zero_points_by_row_and_by_column():
    a, b = random_bytes((3, 5), "uint8"), random_bytes((5, 4), "int8")
    rows, columns = np.array([1, 2, 3], np.uint8), np.array([-1, 0, 1, 2], np.int8)
    expected = (a.astype(int) - rows[:, None]) @ (b.astype(int) - columns)
    np.testing.assert_array_equal(run("MatMulInteger", a, b, rows, columns), expected)
    stacked = run("MatMulInteger", a[None], b[None], rows.reshape(1, 3, 1), columns.reshape(1, 1, 4))
    np.testing.assert_array_equal(stacked[0], expected)
    np.testing.assert_array_equal(run("MatMulInteger", a[0], b[:, 0]), a[0].astype(int) @ b[:, 0].astype(int))


def test_sums_beyond_32_bits_wrap_around():
    depth = 40_000
    a, b = np.full((1, depth), 255, np.uint8), np.full((depth, 1), 255, np.uint8)
    total = 255 * 255 * depth
    assert run("MatMulInteger", a, b).item() == total - 2**32


def test_the_narrow_float_is_used_only_while_it_is_exact():
    near = np.array([255])
    assert exact_float(257, near, -near) is np.float32
    assert exact_float(259, near, -near) is np.float64
    assert exact_float(10, np.zeros((0,), int), near) is np.float32


# Products 0.5, 1.5, 2.5 and -0.5 in units of y: ties go to the even neighbour before the zero point is added.
@pytest.mark.parametrize(
    ("dtype", "zero_point", "expected"),
    [("uint8", 0, [0, 2, 2, 0, 255]), ("uint8", 3, [3, 5, 5, 3, 255]), ("int8", -3, [-3, -1, -1, -3, 127])],
)
def test_rounding_and_saturation(dtype, zero_point, expected):
    a, b = np.array([[1], [3], [5], [-1], [127]], np.int8), np.array([[1]], np.int8)
    big = np.array([[1]], np.int8), scalar(8.0)
    operands = (a, scalar(1.0), scalar(0, "int8"), b, scalar(1.0), scalar(0, "int8"))
    y = run("QLinearMatMul", *operands, scalar(2.0), scalar(zero_point, dtype))
    assert y[:4, 0].tolist() == expected[:4]
    y = run("QLinearMatMul", *operands[:3], big[0], big[1], scalar(0, "int8"), scalar(2.0), scalar(zero_point, dtype))
    assert y[4, 0] == expected[4]


def test_scales_by_row_and_by_column():
    a, b = random_bytes((3, 5), "uint8"), random_bytes((5, 4), "uint8")
    a_scale, b_scale = np.array([0.5, 1, 2], np.float32), np.array([1, 0.25, 0.5, 2], np.float32)
    a_zero, b_zero = np.array([100, 110, 120], np.uint8), np.array([120, 128, 130, 140], np.uint8)
    real = ((a.astype(int) - a_zero[:, None]) * a_scale[:, None]) @ ((b.astype(int) - b_zero) * b_scale)
    y = run("QLinearMatMul", a, a_scale, a_zero, b, b_scale, b_zero, scalar(256.0), scalar(128, "uint8"))
    np.testing.assert_array_equal(y, np.clip(np.rint(real / 256) + 128, 0, 255))


@pytest.mark.parametrize(("dtype", "largest"), [("float8_e4m3fn", 448), ("float8_e5m2", 57344), ("float8_e4m3fnuz", 240)])
def test_qlinear_matmul_of_fp8_saturates(dtype, largest):
    a, b = array([[2, 4]], dtype), array([[3], [0.5]], dtype)
    zero = array(0, dtype)
    y = run("QLinearMatMul", a, scalar(1.0), zero, b, scalar(0.5), zero, scalar(0.25), zero)
    assert y.astype(np.float32).tolist() == [[16.0]]
    y = run("QLinearMatMul", a, scalar(1.0), zero, b, scalar(0.5), zero, scalar(1e-6), zero)
    assert y.astype(np.float32).tolist() == [[largest]]


@given(st.integers(0, 2**32), st.sampled_from(BYTES), st.sampled_from(BYTES), st.integers(1, 2), st.booleans())
@settings(max_examples=30, deadline=None)
def test_conv_integer_and_qlinear_conv(seed, x_dtype, w_dtype, group, per_channel):
    rng = np.random.default_rng(seed)
    x, w = random_bytes((2, 2 * group, 5, 4), x_dtype), random_bytes((2 * group, 2, 2, 3), w_dtype)
    x_zero = scalar(5, x_dtype)
    w_zero = np.arange(1, 2 * group + 1).astype(w_dtype) if per_channel else scalar(3, w_dtype)
    attrs = {"pads": [1, 0, 1, 2], "strides": [2, 1], "group": group}
    shift = w_zero.astype(int).reshape(-1, 1, 1, 1)
    options = {"strides": (2, 1), "begin": (1, 0), "end": (1, 2), "dilations": (1, 1), "group": group}
    total = naive_windows.conv(x.astype(int) - 5, w.astype(int) - shift, None, **options)
    np.testing.assert_array_equal(run("ConvInteger", x, w, x_zero, w_zero, **attrs), total)

    scales = rng.uniform(0.5, 2, 2 * group).astype(np.float32) if per_channel else scalar(0.5)
    bias = rng.integers(-1000, 1000, 2 * group).astype(np.int32)
    y = run("QLinearConv", x, scalar(0.5), x_zero, w, scales, w_zero, scalar(300.0), scalar(9, x_dtype), bias, **attrs)
    factor = (np.float32(0.5) * scales / np.float32(300)).reshape(-1, 1, 1)
    exact = np.rint((total + bias.reshape(-1, 1, 1)).astype(np.float32) * factor) + 9
    limits = np.iinfo(x_dtype)
    np.testing.assert_array_equal(y, np.clip(exact, limits.min, limits.max))


def u8(*shape):
    return TensorType(DType.U8, shape)


F32 = TensorType(DType.F32, ())
N = symbol("n")


def test_shape_rules():
    assert str(infer("MatMulInteger", u8(N, 3), u8(3, 4))) == "i32[n,4]"
    zero = TensorType(DType.I8, ())
    assert str(infer("QLinearMatMul", u8(N, 3), F32, u8(), u8(3, 4), F32, u8(), F32, zero)) == "i8[n,4]"
    assert str(infer("ConvInteger", u8(N, 3, 8), u8(5, 3, 3), pads=[1, 1])) == "i32[n,5,8]"
    assert str(infer("QLinearConv", u8(N, 3, 8), F32, u8(), u8(5, 3, 3), F32, u8(), F32, zero)) == "i8[n,5,6]"


@pytest.mark.parametrize(
    ("op", "operands", "message"),
    [
        ("MatMulInteger", (u8(2, 3), TensorType(DType.I32, (3, 4))), "does not take an input i32"),
        ("MatMulInteger", (u8(2, 3), u8(3, 4), TensorType(DType.I8, ())), "zero point is i8.., expected the element type"),
        ("MatMulInteger", (u8(2, 3), u8(4, 4)), "3 is not 4"),
        ("ConvInteger", (u8(1, 3, 8), u8(5, 3, 3), u8(), u8(5, 1)), "expected a scalar or a vector"),
        ("QLinearConv", (u8(1, 3, 8), F32, u8(), u8(5, 2, 3), F32, u8(), F32, u8()), "has 3 channels"),
        ("QLinearConv", (u8(1, 3, 8), F32, u8(), u8(5, 3, 3), u8(), u8(), F32, u8()), "does not take an input u8"),
        ("QLinearConv", (u8(1, 3, 8), F32, u8(), u8(5, 3, 3), F32, u8(), F32, u8(), TensorType(DType.F32, (5,))), "an input f32"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op, operands, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *operands)
