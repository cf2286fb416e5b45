"""Operations of one operand: arithmetic, roundings, trigonometry, exponentials, tests for NaN and infinity, Not, Identity."""

from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, DType, Type
from miniinfer_cli.ops import symbolic
from miniinfer_cli.ops.element_types import BOOL, FLOATS, FP8, INTEGERS, NUMBERS
from miniinfer_cli.ops.elementwise import unary_rule
from miniinfer_cli.ops.erf import erf
from miniinfer_cli.ops.numerics import elementwise, is_half
from miniinfer_cli.ops.registry import OpDef, define

Function = Callable[[Array], Any]


def is_inf(x: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """True where ``x`` is an infinity of a sign that is asked for. Source: ONNX IsInf-20."""
    wide = x.astype(np.float32) if is_half(x) else x
    found = np.isinf(wide)
    if not detect_negative:
        found = found & (wide > 0)
    if not detect_positive:
        found = found & (wide < 0)
    return np.asarray(found, np.bool_)


def is_nan(x: Array) -> Array:
    """True where ``x`` is not a number. Source: ONNX IsNaN-20."""
    return np.asarray(np.isnan(x), np.bool_)


def logical_not(x: Array) -> Array:
    """The other truth value. Source: ONNX Not-1."""
    return np.asarray(np.logical_not(x.astype(np.bool_, copy=False)))


def bitwise_not(x: Array) -> Array:
    """Every bit inverted. Source: ONNX BitwiseNot-18."""
    return np.asarray(np.invert(x))


def infer_identity(x: Type) -> Type:
    """The type of ``x``, whatever it is; what is known of the contents stays known."""
    return x


def identity(x: Any) -> Any:
    """``x`` itself: a tensor, a sequence or an optional value. Source: ONNX Identity-25."""
    return x


def _reciprocal(x: Array) -> Array:
    result: Array = np.divide(x.dtype.type(1), x)
    return result


def _define(op: str, function: Function, allowed: frozenset[DType] = FLOATS, on_dims: Function | None = None) -> OpDef:
    """Defines ``op`` as a numpy function of f32 or wider; ``on_dims`` does the same to ints and symbolic dimensions."""

    @elementwise
    def reference(x: Array) -> Array:
        result: Array = on_dims(x) if on_dims is not None and x.dtype == object else function(x)
        return result

    reference.__doc__ = f"{op}, elementwise."
    return define(op, infer=unary_rule(op, allowed), reference=reference, pointwise=True, symbolic=on_dims is not None)


ABS = _define("Abs", np.abs, NUMBERS, symbolic.absolute)
ACOS = _define("Acos", np.arccos)
ACOSH = _define("Acosh", np.arccosh)
ASIN = _define("Asin", np.arcsin)
ASINH = _define("Asinh", np.arcsinh)
ATAN = _define("Atan", np.arctan)
ATANH = _define("Atanh", np.arctanh)
CEIL = _define("Ceil", np.ceil)
COS = _define("Cos", np.cos)
COSH = _define("Cosh", np.cosh)
ERF = _define("Erf", erf)
EXP = _define("Exp", np.exp)
FLOOR = _define("Floor", np.floor)
LOG = _define("Log", np.log)
NEG = _define("Neg", np.negative, NUMBERS, symbolic.negative)
RECIPROCAL = _define("Reciprocal", _reciprocal)
ROUND = _define("Round", np.rint)
SIGN = _define("Sign", np.sign, NUMBERS, symbolic.sign)
SIN = _define("Sin", np.sin)
SINH = _define("Sinh", np.sinh)
SQRT = _define("Sqrt", np.sqrt)
TAN = _define("Tan", np.tan)
TANH = _define("Tanh", np.tanh)
IS_INF = define("IsInf", infer=unary_rule("IsInf", FLOATS | FP8, DType.BOOL), reference=is_inf, pointwise=True)
IS_NAN = define("IsNaN", infer=unary_rule("IsNaN", FLOATS | FP8, DType.BOOL), reference=is_nan, pointwise=True)
NOT = define("Not", infer=unary_rule("Not", BOOL), reference=logical_not, pointwise=True, symbolic=True)
BITWISE_NOT = define("BitwiseNot", infer=unary_rule("BitwiseNot", INTEGERS), reference=bitwise_not, pointwise=True)
IDENTITY = define("Identity", infer=infer_identity, reference=identity, pointwise=True, symbolic=True, view=True)
