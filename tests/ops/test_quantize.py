"""Quantization: every low type, every granularity, roundings and refusals."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, numpy_dtype, symbol
from miniinfer_cli.ops.type_codes import code_of_dtype
from tests.ops.checked import array, infer, run, run_expanded

RANGES = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int2": (-2, 1),
    "uint2": (0, 3),
}
FLOATS = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn"]
SCALE = np.array(0.5, np.float32)


def f32(*items):
    return np.array(items, np.float32)


@pytest.mark.parametrize(("dtype", "limits"), RANGES.items())
def test_integers_round_half_to_even_and_saturate(dtype, limits):
    x = f32(0.25, 0.75, 1.25, 0.5, -1e9, 1e9)
    result = run("QuantizeLinear", x, SCALE, array(0, dtype)).astype(np.int64).tolist()
    assert result == [0, min(2, limits[1]), min(2, limits[1]), 1, *limits]
    shifted = run("QuantizeLinear", x, SCALE, array(1, dtype)).astype(np.int64).tolist()
    assert shifted == [1, min(3, limits[1]), min(3, limits[1]), min(2, limits[1]), *limits]


@pytest.mark.parametrize("dtype", [*RANGES, *FLOATS])
def test_what_is_quantized_comes_back(dtype):
    low = -1 if dtype.startswith(("int", "float")) else 0
    x = np.array([[low, 0, 1], [1, low, 0]], np.float32) * 0.5
    zero = array(0, dtype)
    quantized = run("QuantizeLinear", x, SCALE, zero)
    assert quantized.dtype == zero.dtype
    np.testing.assert_array_equal(run("DequantizeLinear", quantized, SCALE, zero), x)
    named = run("QuantizeLinear", x, SCALE, output_dtype=code_of_dtype(next(d for d in DType if numpy_dtype(d) == zero.dtype)))
    np.testing.assert_array_equal(named, quantized)


def test_without_a_type_the_result_is_u8():
    assert run("QuantizeLinear", f32(-1, 3), SCALE).tolist() == [0, 6]


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_per_axis(axis):
    x = np.random.default_rng(3).normal(0, 10, (2, 3, 4)).astype(np.float32)
    n = x.shape[axis]
    scale, zero = f32(*range(1, n + 1)), np.arange(n).astype(np.int8)
    shape = [n if a == axis % 3 else 1 for a in range(3)]
    wide_scale, wide_zero = scale.reshape(shape), zero.reshape(shape).astype(np.float32)
    expected = np.clip(np.rint(x / wide_scale) + wide_zero, -128, 127)
    result = run("QuantizeLinear", x, scale, zero, axis=axis)
    np.testing.assert_array_equal(result.astype(np.float32), expected)
    np.testing.assert_array_equal(run("DequantizeLinear", result, scale, zero, axis=axis), (expected - wide_zero) * wide_scale)


def test_per_axis_of_a_vector_needs_no_axis():
    assert run("QuantizeLinear", f32(1, 2, 3), f32(1, 2, 3), array([0, 1, 2], "uint8")).tolist() == [1, 2, 3]


@pytest.mark.parametrize("length", [4, 5, 6])
def test_blocks_may_end_short(length):
    x = np.arange(2 * length, dtype=np.float32).reshape(2, length)
    count = -(-length // 3)
    scale = np.arange(1, 2 * count + 1, dtype=np.float32).reshape(2, count)
    zero = np.ones((2, count), np.uint8)
    wide = np.repeat(scale, 3, axis=1)[:, :length]
    result = run("QuantizeLinear", x, scale, zero, axis=1, block_size=3)
    np.testing.assert_array_equal(result, np.rint(x / wide) + 1)
    np.testing.assert_array_equal(run("DequantizeLinear", result, scale, zero, axis=-1, block_size=3), np.rint(x / wide) * wide)


def test_the_quotient_is_rounded_to_the_type_of_the_scale_or_to_precision():
    x, zero = f32(2049), np.array(0, np.uint16)
    one = np.array(1, np.float16)
    assert run("QuantizeLinear", x, one, zero).tolist() == [2048]
    assert run("QuantizeLinear", x, one, zero, precision=1).tolist() == [2049]
    assert run("QuantizeLinear", x, one.astype(np.float32), zero, precision=10).tolist() == [2048]
    assert run("QuantizeLinear", x, one.astype(np.float32), zero, precision=16).tolist() == [2048]


def test_integer_input_is_quantized_too():
    assert run("QuantizeLinear", np.array([7, -9], np.int32), np.array(2, np.int32), np.array(0, np.int8)).tolist() == [4, -4]
    assert run("DequantizeLinear", np.array([7, -9], np.int32), SCALE).tolist() == [3.5, -4.5]


def test_power_of_two_scales():
    scale = array(4, "float8_e8m0fnu")
    result = run("QuantizeLinear", f32(8, -24), scale, output_dtype=code_of_dtype(DType.F4E2M1))
    assert result.astype(np.float32).tolist() == [2, -6]
    assert run("DequantizeLinear", result, scale, output_dtype=1).tolist() == [8, -24]


@pytest.mark.parametrize(("code", "dtype"), [(1, "float32"), (10, "float16"), (16, "bfloat16"), (11, "float64")])
def test_dequantized_type_is_the_scales_or_the_one_asked_for(code, dtype):
    x = np.array([3, -3], np.int8)
    np.testing.assert_array_equal(run("DequantizeLinear", x, array(0.5, dtype)), array([1.5, -1.5], dtype))
    np.testing.assert_array_equal(run("DequantizeLinear", x, SCALE, output_dtype=code), array([1.5, -1.5], dtype))


def test_eight_bit_floats_saturate_only_if_asked():
    x, zero = f32(1e4), array(0, "float8_e4m3fn")
    assert run("QuantizeLinear", x, SCALE, zero).astype(np.float32).tolist() == [448]
    assert np.isnan(run("QuantizeLinear", x, SCALE, zero, saturate=0).astype(np.float32)).all()


@pytest.mark.parametrize("x", [f32(0, 2, -3, -2.5, 1.34, 0.5), f32(-1, -2.1, -1.3, -2.5), f32(1, 2.1, 1.3, 2.5), f32(0, 0)])
def test_dynamic_quantization_covers_the_range_and_zero(x):
    quantized, scale, zero = run("DynamicQuantizeLinear", x, n_outputs=3)
    width = max(x.max(), 0) - min(x.min(), 0)
    assert scale == (np.float32(width / 255) if width else 1)
    restored = run("DequantizeLinear", quantized, scale, zero)
    np.testing.assert_allclose(restored, x, atol=width / 255)
    assert run("DequantizeLinear", zero, scale, zero) == 0
    for a, b in zip(run_expanded("DynamicQuantizeLinear", x, n_outputs=3), (quantized, scale, zero), strict=True):
        np.testing.assert_array_equal(a, b)


F = TensorType(DType.F32, (2, 6))
Q = TensorType(DType.I8, (2, 6))
S = TensorType(DType.F32, ())


def of(dtype, *shape):
    return TensorType(dtype, shape)


@pytest.mark.parametrize(
    ("op", "types", "attrs", "message"),
    [
        (
            "QuantizeLinear",
            (F, of(DType.F32, 3)),
            {},
            r"QuantizeLinear axis 1: scale f32\[3\] does not lie on f32\[2,6\], .* \[6\]\n",
        ),
        ("QuantizeLinear", (F, of(DType.F32, 6)), {"axis": 2}, r"axis 2 is outside \[-2, 1\]"),
        ("QuantizeLinear", (F, of(DType.F32, 2, 3)), {}, "rank 2, which needs a block_size above 0, got 0"),
        ("QuantizeLinear", (F, of(DType.F32, 2, 3)), {"block_size": 4}, r"expected shape \[2,2\]"),
        ("QuantizeLinear", (F, of(DType.F32, 6), of(DType.U8, 2)), {}, r"scale f32\[6\] and zero point u8\[2\] differ in shape"),
        (
            "QuantizeLinear",
            (F, S, of(DType.U8)),
            {"output_dtype": 3},
            r"output_dtype i8 is not the type of the zero point u8\[\]",
        ),
        ("QuantizeLinear", (F, S), {"output_dtype": 7}, "QuantizeLinear to i64 is not possible, only to"),
        ("QuantizeLinear", (F, S), {"precision": 7}, "precision is i64"),
        ("QuantizeLinear", (Q, S), {}, "QuantizeLinear does not take an input i8"),
        ("DequantizeLinear", (Q, S, of(DType.U8)), {}, "DequantizeLinear needs operands of one element type"),
        ("DequantizeLinear", (Q, of(DType.F8E8M0)), {}, "DequantizeLinear to f8e8m0 is not possible"),
        ("DequantizeLinear", (F, S), {}, "DequantizeLinear does not take an input f32"),
        ("DynamicQuantizeLinear", (of(DType.F16, 2),), {"n_outputs": 3}, "DynamicQuantizeLinear does not take an input f16"),
    ],
)
def test_wrong_operands_are_refused(op, types, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *types, **attrs)


def test_symbolic_shapes_pass_through():
    n = symbol("n")
    x = TensorType(DType.F32, (n, 6))
    assert infer("QuantizeLinear", x, TensorType(DType.F32, (6,)), output_dtype=3) == TensorType(DType.I8, (n, 6))
    assert infer("QuantizeLinear", x, TensorType(DType.F32, (n, 3)), block_size=2) == TensorType(DType.U8, (n, 6))
    assert infer("DequantizeLinear", TensorType(DType.I8), TensorType(DType.F16, (6,))) == TensorType(DType.F16)


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
def test_one_number_may_lie_along_an_axis_that_is_not_known_yet(op):
    named, one = TensorType(DType.U8, (symbol("z"),)), TensorType(DType.F32, ())
    x = TensorType(DType.F32 if op == "QuantizeLinear" else DType.U8, (symbol("n"), 4))
    assert infer(op, x, one, named).shape == x.shape
    assert infer(op, x, TensorType(DType.F32, (symbol("s"),)), TensorType(DType.U8, ())).shape == x.shape
    with pytest.raises(ModelError, match="differ in shape"):
        infer(op, x, one, TensorType(DType.U8, (3,)))
    with pytest.raises(ModelError, match="differ in shape"):
        infer(op, x, TensorType(DType.F32, (4,)), TensorType(DType.U8, ()))
