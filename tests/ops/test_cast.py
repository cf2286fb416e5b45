"""Conversions between element types: exact numbers, roundings, ranges, strings, bits."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, TensorType, numpy_dtype, symbol
from miniinfer_cli.ops.type_codes import code_of_dtype
from tests.ops.checked import array, infer, run, run_expanded

CAST_TYPES = [d for d in DType if d not in (DType.C64, DType.C128)]
SIGNED = [d for d in CAST_TYPES if (d.is_float and d is not DType.F8E8M0) or d.value.startswith("i")]


def cast(x: Array, to: DType, **attrs) -> Array:
    return run("Cast", x, to=code_of_dtype(to), **attrs)


def numbers(items, dtype: DType) -> Array:
    if dtype is DType.STR:
        return np.array([str(i) for i in items], object)
    return array(items, numpy_dtype(dtype).name)


@pytest.mark.parametrize("source", CAST_TYPES)
def test_one_is_one_in_every_type(source):
    ones = cast(np.array([["1"], ["1"]], object), source)
    for target in CAST_TYPES:
        result = cast(ones, target)
        assert result.shape == (2, 1)
        if target is DType.STR:
            assert set(result.reshape(-1).tolist()) <= {"1", "1.0", "True"}
        else:
            np.testing.assert_array_equal(result, np.ones((2, 1)).astype(numpy_dtype(target)))


@pytest.mark.parametrize("source", SIGNED)
def test_small_negative_numbers_survive(source):
    for target in SIGNED:
        np.testing.assert_array_equal(cast(numbers([-2, -1, 0, 1], source), target), numbers([-2, -1, 0, 1], target))


def test_floats_to_integers_round_toward_zero():
    x = np.array([-1.9, -0.5, 0.5, 2.9], np.float32)
    for target in (DType.I8, DType.I32, DType.I64, DType.I4):
        assert cast(x, target).astype(np.int64).tolist() == [-1, 0, 0, 2]


def test_floats_round_to_nearest_even():
    x = np.array([2049, 2051, 65520, 1e-8], np.float32)
    np.testing.assert_array_equal(cast(x, DType.F16).astype(np.float64), [2048, 2052, np.inf, 0])
    assert cast(np.array([257, 259], np.float32), DType.BF16).astype(np.float64).tolist() == [256, 260]
    assert cast(np.array([1e39], np.float64), DType.F32).tolist() == [np.inf]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (DType.I8, [-56, 44, -1]),
        (DType.U8, [200, 44, 255]),
        (DType.I4, [-8, -4, -1]),
        (DType.U4, [8, 12, 15]),
        (DType.I2, [0, 0, -1]),
        (DType.U2, [0, 0, 3]),
    ],
)
def test_integers_out_of_range_keep_their_low_bits(target, expected):
    assert cast(np.array([200, 300, -1], np.int32), target).astype(np.int64).tolist() == expected


def test_truth_values_are_what_is_not_zero():
    for source in (DType.F32, DType.BF16, DType.I4, DType.U2, DType.F8E5M2):
        assert cast(numbers([0, 1], source), DType.BOOL).tolist() == [False, True]
    assert cast(np.array([-0.0, 0.25, np.nan]), DType.BOOL).tolist() == [False, True, True]
    assert cast(np.array([True, False]), DType.F16).tolist() == [1, 0]


LARGEST = {DType.F8E4M3FN: 448, DType.F8E4M3FNUZ: 240, DType.F8E5M2: 57344, DType.F8E5M2FNUZ: 57344}


@pytest.mark.parametrize(("target", "largest"), LARGEST.items())
@pytest.mark.parametrize("source", ["float32", "float16", "bfloat16"])
def test_eight_bit_floats_saturate_or_overflow(target, largest, source):
    x = array([largest, 2 * largest if source != "float16" else np.inf, np.inf, -np.inf, np.nan, 0.3], source)
    kept = cast(x, target).astype(np.float64)
    np.testing.assert_array_equal(kept[:5], [largest, largest, largest, -largest, np.nan])
    assert kept[5] == pytest.approx(0.3, rel=0.13)
    lost = cast(x, target, saturate=0).astype(np.float64)
    infinity = np.inf if target is DType.F8E5M2 else np.nan
    np.testing.assert_array_equal(lost[:5], [largest, infinity, infinity, -infinity, np.nan])
    assert lost[5] == kept[5]


def test_four_bit_floats_always_saturate():
    x = np.array([0.2, 0.3, 5.1, 100, -np.inf], np.float32)
    assert cast(x, DType.F4E2M1).astype(np.float64).tolist() == [0, 0.5, 6, 6, -6]


@pytest.mark.parametrize(
    ("round_mode", "expected"),
    [("up", [1, 2, 2, 2, 4, 0.5]), ("down", [1, 1, 1, 1, 2, 0.25]), ("nearest", [1, 1, 2, 2, 4, 0.5])],
)
def test_powers_of_two_round_as_asked(round_mode, expected):
    x = np.array([1, 1.25, 1.5, 1.75, 3.5, 0.4], np.float32)
    assert cast(x, DType.F8E8M0, round_mode=round_mode).astype(np.float64).tolist() == expected


def test_powers_of_two_at_the_ends_of_the_range():
    x = np.array([0, 1e-40, np.nan, np.inf, 2.0**127, 3e38], np.float32)
    np.testing.assert_array_equal(
        cast(x, DType.F8E8M0).astype(np.float64), [2.0**-127, 2.0**-127, np.nan, 2.0**127, 2.0**127, 2.0**127]
    )
    lost = cast(x, DType.F8E8M0, saturate=0, round_mode="nearest").astype(np.float64)
    np.testing.assert_array_equal(lost, [np.nan, np.nan, np.nan, np.nan, 2.0**127, np.nan])


def test_strings_spell_numbers():
    texts = np.array([["3.14", "1e-5"], ["+INF", "-inf"], ["NaN", " 7 "]], object)
    expected = np.array([[3.14, 1e-5], [np.inf, -np.inf], [np.nan, 7]])
    np.testing.assert_array_equal(cast(texts, DType.F64), expected)
    np.testing.assert_array_equal(cast(texts, DType.F32), expected.astype(np.float32))
    integers = np.array(["9223372036854775807", "-1", "100.5"], object)
    assert cast(integers, DType.I64).tolist() == [2**63 - 1, -1, 100]
    assert cast(integers[:2], DType.U64).tolist() == [2**63 - 1, 2**64 - 1]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "uint8", "int4", "float8_e4m3fn"])
def test_numbers_come_back_from_their_strings(dtype):
    x = array([0, 1, 1.5, 3], dtype)
    texts = run("Cast", x, to=code_of_dtype(DType.STR))
    assert all(isinstance(s, str) for s in texts.tolist())
    np.testing.assert_array_equal(run("CastLike", texts, x), x)


def test_strings_of_f16_spell_the_number_itself():
    x = np.array([65504, 2048.0, 0.1], np.float16)
    texts = run("Cast", x, to=code_of_dtype(DType.STR))
    np.testing.assert_array_equal(cast(texts, DType.F32), x.astype(np.float32))


@pytest.mark.parametrize(
    ("text", "target"),
    [("Hello", DType.F32), ("Hello", DType.I32), ("inf", DType.I64), ("nan", DType.U8), ("1_0", DType.F32), ("1_0", DType.I8)],
)
def test_a_string_that_is_no_number_is_refused(text, target):
    x = np.array([text], object)
    with pytest.raises(ModelError, match=f"the string '{text}' is not a"):
        cast(x, target)


def test_cast_like_takes_the_type_alone_and_expands_to_cast():
    x, like = np.array([1.5, -2.0], np.float32), np.zeros((7, 3), np.int16)
    assert run("CastLike", x, like).tolist() == [1, -2]
    assert run_expanded("CastLike", x, like).tolist() == [1, -2]


@pytest.mark.parametrize(
    ("x", "to", "expected"),
    [
        (np.array([1.0, -2.0], np.float32), DType.I32, [0x3F800000, -0x40000000]),
        (np.array([0x3F80, 0x4000], np.uint16), DType.BF16, [1.0, 2.0]),
        (np.array([[1], [-1]], np.int64), DType.U64, [[1], [2**64 - 1]]),
        (array([-1, 7], "int4"), DType.U4, [15, 7]),
        (array([15, 2], "uint4"), DType.F4E2M1, [-6, 1]),
        (array([3, 1], "uint2"), DType.I2, [-1, 1]),
        (np.array([True, False]), DType.I8, [1, 0]),
        (np.array(1 + 2j, np.complex64), DType.F64, np.array(1 + 2j, np.complex64).view(np.float64).item()),
    ],
)
def test_bits_are_kept(x, to, expected):
    result = run("BitCast", x, to=code_of_dtype(to))
    assert result.astype(np.float64 if to.is_float else object).tolist() == expected
    back = run("BitCast", result, to=code_of_dtype(next(d for d in DType if d is not DType.STR and numpy_dtype(d) == x.dtype)))
    np.testing.assert_array_equal(back, x)


N = symbol("n")


@pytest.mark.parametrize(
    ("op", "type", "attrs", "message"),
    [
        ("Cast", TensorType(DType.C64, (N,)), {"to": 1}, r"Cast of c64\[n\] to f32: complex numbers are not converted"),
        ("Cast", TensorType(DType.F32, (N,)), {"to": 99}, "element type number 99 is not supported"),
        ("Cast", TensorType(DType.F32), {"to": 24, "round_mode": "even"}, "Cast round_mode is 'even', expected"),
        ("Cast", TensorType(DType.F32), {}, "Cast with 1 inputs and attributes .*: missing a required .*argument: 'to'"),
        ("BitCast", TensorType(DType.F32, (N,)), {"to": 7}, r"BitCast of f32\[n\] to i64: the element types differ in width"),
        ("BitCast", TensorType(DType.STR, (N,)), {"to": 8}, "BitCast"),
    ],
)
def test_wrong_conversions_are_refused(op, type, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, type, **attrs)


def test_shapes_pass_through():
    assert infer("Cast", TensorType(DType.F32, (N, 3)), to=10) == TensorType(DType.F16, (N, 3))
    assert infer("CastLike", TensorType(DType.F32, (N, 3)), TensorType(DType.STR)) == TensorType(DType.STR, (N, 3))
    assert infer("BitCast", TensorType(DType.F32, (N, 3)), to=6) == TensorType(DType.I32, (N, 3))


def test_truth_values_as_strings_can_be_read_again():
    words = run("Cast", np.array([True, False]), to=8)
    assert words.tolist() == ["1", "0"]
    for code, dtype in ((9, np.bool_), (3, np.int8), (1, np.float32)):
        np.testing.assert_array_equal(run("Cast", words, to=code), np.array([1, 0], dtype), strict=True)
