"""Operations of one operand against numpy in f64, for every element type, and their edge cases."""

import math

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, OptionalType, SequenceType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run

ANGLES = np.array([[-2.5, -1.25, -0.5, 0.0], [0.25, 0.75, 1.5, 3.0]])
FRACTIONS = ANGLES / 4
POSITIVE = np.abs(ANGLES) + 0.25
FUNCTIONS = {
    "Abs": (np.abs, ANGLES),
    "Acos": (np.arccos, FRACTIONS),
    "Acosh": (np.arccosh, POSITIVE + 1),
    "Asin": (np.arcsin, FRACTIONS),
    "Asinh": (np.arcsinh, ANGLES),
    "Atan": (np.arctan, ANGLES),
    "Atanh": (np.arctanh, FRACTIONS),
    "Ceil": (np.ceil, ANGLES),
    "Cos": (np.cos, ANGLES),
    "Cosh": (np.cosh, ANGLES),
    "Erf": (np.vectorize(math.erf), ANGLES),
    "Exp": (np.exp, ANGLES),
    "Floor": (np.floor, ANGLES),
    "Log": (np.log, POSITIVE),
    "Neg": (np.negative, ANGLES),
    "Reciprocal": (np.reciprocal, POSITIVE),
    "Round": (np.round, ANGLES),
    "Sign": (np.sign, ANGLES),
    "Sin": (np.sin, ANGLES),
    "Sinh": (np.sinh, ANGLES),
    "Sqrt": (np.sqrt, POSITIVE),
    "Tan": (np.tan, FRACTIONS),
    "Tanh": (np.tanh, ANGLES),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_in_every_float_type(op, dtype):
    function, points = FUNCTIONS[op]
    x = array(points, dtype)
    result = run(op, x)
    assert result.dtype == x.dtype
    np.testing.assert_allclose(result.astype(np.float64), function(x.astype(np.float64)), rtol=2 * FLOATS[dtype], atol=1e-16)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_signed_integers(dtype):
    x = array([-5, 0, 7], dtype)
    np.testing.assert_array_equal(run("Abs", x), array([5, 0, 7], dtype))
    np.testing.assert_array_equal(run("Neg", x), array([5, 0, -7], dtype))
    np.testing.assert_array_equal(run("Sign", x), array([-1, 0, 1], dtype))
    np.testing.assert_array_equal(run("BitwiseNot", x), array([4, -1, -8], dtype))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_unsigned_integers(dtype):
    x = array([0, 7], dtype)
    np.testing.assert_array_equal(run("Abs", x), x)
    np.testing.assert_array_equal(run("Sign", x), array([0, 1], dtype))
    np.testing.assert_array_equal(run("BitwiseNot", x), np.array([np.iinfo(dtype).max, np.iinfo(dtype).max - 7], dtype))


def test_halves_round_to_even():
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    np.testing.assert_array_equal(run("Round", x), np.array([-2, -2, 0, 0, 2, 2], np.float32))


def test_poles_and_domains_give_infinity_and_nan_without_a_warning():
    x = np.array([0.0, -1.0, 1000.0], np.float32)
    np.testing.assert_array_equal(run("Log", x)[:2], [-np.inf, np.nan])
    np.testing.assert_array_equal(run("Sqrt", x)[1], np.nan)
    np.testing.assert_array_equal(run("Reciprocal", x)[0], np.inf)
    np.testing.assert_array_equal(run("Exp", x)[2], np.inf)
    np.testing.assert_array_equal(run("Acosh", x)[:2], [np.nan, np.nan])


@pytest.mark.parametrize("dtype", [*FLOATS, "float8_e5m2"])
def test_infinities_are_told_by_sign(dtype):
    x = array([-np.inf, -1, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(run("IsInf", x), [True, False, True, False])
    np.testing.assert_array_equal(run("IsInf", x, detect_negative=0), [False, False, True, False])
    np.testing.assert_array_equal(run("IsInf", x, detect_positive=0), [True, False, False, False])
    np.testing.assert_array_equal(run("IsInf", x, detect_positive=0, detect_negative=0), [False] * 4)
    np.testing.assert_array_equal(run("IsNaN", x), [False, False, False, True])


def test_not_is_its_own_inverse():
    x = np.array([True, False])
    np.testing.assert_array_equal(run("Not", x), [False, True])
    np.testing.assert_array_equal(run("Not", run("Not", x)), x)


def test_rank_0_stays_an_array():
    assert run("Sqrt", np.array(4.0, np.float16)).tolist() == 2
    assert run("Not", np.array(True)).tolist() is False
    assert run("IsNaN", np.array(np.nan)).tolist() is True


def test_symbolic_and_unknown_shapes_pass_through():
    for shape in (None, (symbol("batch"), 3)):
        assert infer("Tanh", TensorType(DType.F16, shape)) == TensorType(DType.F16, shape)
        assert infer("IsNaN", TensorType(DType.F32, shape)) == TensorType(DType.BOOL, shape)


def test_identity_takes_anything():
    tensor = TensorType(DType.STR, (2,))
    for type in (tensor, SequenceType(tensor), OptionalType(SequenceType(tensor))):
        assert infer("Identity", type) == type
    np.testing.assert_array_equal(run("Identity", np.array(["a", "b"], object)), ["a", "b"])


@pytest.mark.parametrize(
    ("op", "type", "message"),
    [
        ("Sqrt", TensorType(DType.I32, (2,)), r"Sqrt does not take an input i32\[2\], .* one of f64 f32 f16 bf16\n"),
        ("Not", TensorType(DType.I8, (2,)), r"Not does not take an input i8\[2\]"),
        ("BitwiseNot", TensorType(DType.F32), "BitwiseNot does not take an input f32"),
        ("Abs", TensorType(DType.BOOL, ()), "Abs does not take an input bool"),
        ("Exp", SequenceType(TensorType(DType.F32)), r"Exp input 0 \(x\) is seq\(f32.*expected a tensor"),
    ],
)
def test_wrong_operands_are_refused(op, type, message):
    with pytest.raises(ModelError, match=message):
        infer(op, type)
