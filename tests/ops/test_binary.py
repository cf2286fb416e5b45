"""Arithmetic of operands that broadcast: element types, roundings of integers, special cases, refusals."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.everywhere import outputs_everywhere, parsed
from tests.ops.checked import FLOATS, array, infer, run

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
A = np.array([[1.5, -2.0, 3.0], [0.5, 4.0, -1.0]])
B = np.array([2.0, 0.5, -4.0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("Add", np.add),
        ("Sub", np.subtract),
        ("Mul", np.multiply),
        ("Div", np.divide),
        ("Min", np.minimum),
        ("Max", np.maximum),
        ("Sum", np.add),
        ("Mod", np.mod),
        ("Mean", lambda a, b: (a + b) / 2),
    ],
)
def test_float_arithmetic_broadcasts(op, function, dtype):
    a, b = array(A, dtype), array(B, dtype)
    for x, y in ((a, b), (b, a), (a[:, None], b), (a, a[0, 0])):
        result = run(op, np.asarray(x), np.asarray(y))
        assert result.dtype == a.dtype
        np.testing.assert_allclose(
            result.astype(np.float64), function(x.astype(np.float64), y.astype(np.float64)), rtol=FLOATS[dtype]
        )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_arithmetic(dtype):
    a, b = array([9, 4, 100], dtype), array([4, 2, 7], dtype)
    assert run("Add", a, b).tolist() == [13, 6, 107]
    assert run("Sub", a, b).tolist() == [5, 2, 93]
    assert run("Div", a, b).tolist() == [2, 2, 14]
    assert run("Mod", a, b).tolist() == [1, 0, 2]
    assert run("Min", a, b, array([3], dtype)).tolist() == [3, 2, 3]
    assert run("Max", a, b, array([5], dtype)).tolist() == [9, 5, 100]


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_integer_division_rounds_toward_zero_and_fmod_goes_with_it(dtype):
    a, b = array([7, -7, 7, -7, 6, -6, 5, -5], dtype), array([2, 2, -2, -2, -3, 3, 0, 0], dtype)
    assert run("Div", a, b).tolist() == [3, -3, -3, 3, -2, -2, 0, 0]
    assert run("Mod", a[:6], b[:6]).tolist() == [1, 1, -1, -1, 0, 0]
    assert run("Mod", a[:6], b[:6], fmod=1).tolist() == [1, -1, 1, -1, 0, 0]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_divided_by_zero_are_zero(dtype):
    a, zero = array([7, 0, 100], dtype), array([0], dtype)
    for op, attrs in (("Div", {}), ("Mod", {}), ("Mod", {"fmod": 1})):
        assert run(op, a, zero, **attrs).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("dtype", "name"), [(np.int8, "int8"), (np.uint64, "uint64")])
def test_division_by_zero_is_the_same_everywhere(dtype, name):
    a, b = np.array([7, 5, 128, 9], np.uint8).astype(dtype), np.array([0, 2, 255, 0], np.uint8).astype(dtype)
    text = f"""g ({name}[n] x, {name}[n] z) => (q, r, f, c, k) <{name}[1] zero = {{0}}, {name}[1] one = {{1}}> {{
        q = Div(x, z)
        r = Mod(x, z)
        f = Mod<fmod = 1>(x, z)
        c = Div(x, zero)
        known = Div(one, zero)
        k = Add(x, known)
    }}"""
    (found,) = outputs_everywhere(parsed(text), {"x": a, "z": b})
    rest = 0 if dtype is np.int8 else 128
    assert found["q"].tolist() == [0, 2, -128 if dtype is np.int8 else 0, 0]  # the least integer over -1 is itself
    assert (found["r"].tolist(), found["f"].tolist()) == ([0, 1, rest, 0], [0, 1, rest, 0])
    assert (found["c"].tolist(), found["k"].tolist()) == ([0] * 4, a.tolist())


def test_integers_wrap_as_machine_integers_do():
    a, b = np.array([250, 3], np.uint8), np.array([10, 5], np.uint8)
    assert run("Add", a, b).tolist() == [4, 8]
    assert run("Sub", a, b).tolist() == [240, 254]
    assert run("Mul", a, b).tolist() == [196, 15]


def test_float_division_by_zero_and_mod_by_infinity():
    x = np.array([1.0, -1.0, 0.0], np.float32)
    np.testing.assert_array_equal(run("Div", x, np.zeros(3, np.float32)), [np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(run("Mod", x, np.full(3, np.inf, np.float32)), [1, np.inf, 0])
    np.testing.assert_array_equal(run("Mod", x, np.full(3, np.inf, np.float32), fmod=1), [1, -1, 0])


def test_nan_wins_in_min_and_max():
    x, y = np.array([np.nan, 1.0], np.float32), np.array([0.0, np.nan], np.float32)
    assert np.isnan(run("Min", x, y)).all()
    assert np.isnan(run("Max", x, y)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("exponent", [2, 3, 0.5, -1, 0])
def test_powers_of_floats(dtype, exponent):
    x = array([0.5, 1.0, 2.25, 3.0], dtype)
    expected = x.astype(np.float64) ** exponent
    for y in (array(exponent, dtype), array([exponent] * 4, dtype), array(exponent, "float32")):
        np.testing.assert_allclose(run("Pow", x, y).astype(np.float64), expected, rtol=2 * FLOATS[dtype])


def test_powers_of_integers_and_mixed_types():
    x = np.array([1, 2, -3], np.int32)
    assert run("Pow", x, np.array([3, 5, 3], np.int64)).tolist() == [1, 32, -27]
    assert run("Pow", x, np.array([-1, -1, -1], np.int32)).tolist() == [1, 0, 0]
    assert run("Pow", x, np.array([2.0, 0.5, 2.0], np.float32)).tolist() == [1, 1, 9]
    assert run("Pow", np.array([2.0, 3.0], np.float32), np.array([10, 2], np.int64)).tolist() == [1024, 9]
    assert run("Pow", np.array([3], np.int64), np.array([39], np.uint8)).tolist() == [3**39]
    assert run("Pow", np.array(2.0, np.float32), np.array([[2.0, 3.0]], np.float32)).tolist() == [[4, 8]]
    assert run("Pow", np.array([3.0], np.float32), np.array([[2.0]], np.float32)).tolist() == [[9]]


def test_variadic_operations_take_one_operand_and_many():
    xs = [np.array([[1.0], [2.0]], np.float32), np.array([10.0, 20.0, 30.0], np.float32), np.array(100.0, np.float32)]
    np.testing.assert_array_equal(run("Sum", *xs), [[111, 121, 131], [112, 122, 132]])
    np.testing.assert_allclose(run("Mean", *xs), np.array([[111, 121, 131], [112, 122, 132]]) / 3, rtol=1e-6)
    for op in ("Sum", "Mean", "Min", "Max"):
        np.testing.assert_array_equal(run(op, xs[0]), xs[0])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bit_operations(dtype):
    a, b = array([12, 5, 127], dtype), array([10, 5, 1], dtype)
    assert run("BitwiseAnd", a, b).tolist() == [8, 5, 1]
    assert run("BitwiseOr", a, b).tolist() == [14, 5, 127]
    assert run("BitwiseXor", a, b).tolist() == [6, 0, 126]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts_by_the_width_or_more_leave_only_the_fill(dtype):
    bits = np.dtype(dtype).itemsize * 8
    x, y = array([1, 3, 64, 64], dtype), array([0, 2, bits, bits - 1], dtype)
    assert run("BitShift", x, y, direction="LEFT").tolist()[:3] == [1, 12, 0]
    assert run("BitShift", x, y, direction="RIGHT").tolist() == [1, 0, 0, 64 >> (bits - 1)]


def test_signed_right_shifts_extend_the_sign():
    x, y = np.array([-8, -8, -8, 8], np.int16), np.array([1, 40, -1, -1], np.int16)
    assert run("BitShift", x, y, direction="RIGHT").tolist() == [-4, -1, -1, 0]
    assert run("BitShift", x, y, direction="LEFT").tolist() == [-16, 0, 0, 0]


def test_shapes_broadcast_with_symbols():
    n, m = symbol("n"), symbol("m")
    a, b = TensorType(DType.F32, (n, 1, 4)), TensorType(DType.F32, (m, 1))
    assert infer("Add", a, b) == TensorType(DType.F32, (n, m, 4))
    assert infer("Add", a, TensorType(DType.F32)) == TensorType(DType.F32)
    assert infer("Sum", a, b, TensorType(DType.F32, (3, 4))) == TensorType(DType.F32, (n, 3, 4))


F = TensorType(DType.F32, (2, 3))


@pytest.mark.parametrize(
    ("op", "types", "attrs", "message"),
    [
        ("Add", (F, TensorType(DType.F32, (2,))), {}, r"Add: shapes \[2,3\] and \[2\] do not broadcast"),
        ("Mul", (F, TensorType(DType.F64, (3,))), {}, r"Mul needs operands of one element type, got f32\[2,3\] and f64\[3\]"),
        ("Sub", (TensorType(DType.BOOL, (1,)),) * 2, {}, r"Sub does not take an input bool\[1\]"),
        ("BitwiseAnd", (F, F), {}, "BitwiseAnd does not take"),
        ("Pow", (F, TensorType(DType.STR, ())), {}, "Pow does not take an input str"),
        ("Mean", (TensorType(DType.I32, (1,)),), {}, "Mean does not take an input i32"),
        ("Sum", (), {}, "Sum needs at least one operand"),
        ("Add", (F,), {}, "Add with 1 inputs"),
        ("BitShift", (TensorType(DType.U8, ()),) * 2, {"direction": "UP"}, "direction is 'UP', expected LEFT or RIGHT"),
    ],
)
def test_wrong_operands_are_refused(op, types, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *types, **attrs)
