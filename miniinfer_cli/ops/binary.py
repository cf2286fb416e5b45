"""Arithmetic of two or more operands that broadcast: Add to Mod, Min to Sum, bit operations, PRelu's and Clip's bounds aside."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, TensorType
from miniinfer_cli.ops import symbolic
from miniinfer_cli.ops.element_types import FLOATS, INTEGERS, NUMBERS, expect_dtype
from miniinfer_cli.ops.elementwise import binary_rule, variadic_rule
from miniinfer_cli.ops.numerics import elementwise
from miniinfer_cli.ops.registry import OpDef, define
from miniinfer_cli.ops.shapes import broadcast

Function = Callable[..., Any]


@elementwise
def divide(a: Array, b: Array) -> Array:
    """a / b; of integers the quotient rounded toward zero (0 for a zero divisor). Source: ONNX Div-14."""
    if a.dtype == object:
        return symbolic.truncated_divide(a, b)
    if a.dtype.kind == "f":
        return np.divide(a, b)
    quotient = np.floor_divide(a, b)
    if a.dtype.kind == "i":  # the floor is one too low where the division leaves a rest and the signs differ
        quotient = quotient + ((quotient * b != a) & ((a < 0) != (b < 0)) & (b != 0))
    return quotient


def infer_pow(x: TensorType, y: TensorType) -> TensorType:
    """The type of ``x`` over the broadcast shape; the exponent may be of another type."""
    expect_dtype("Pow", x, NUMBERS)
    expect_dtype("Pow", y, NUMBERS)
    return TensorType(x.dtype, broadcast("Pow", x, y))


@elementwise
def power(x: Array, y: Array) -> Array:
    """x ** y in the type of ``x``, rounded toward zero for integers. Source: ONNX Pow-15."""
    if y.size == 1 and y.reshape(-1)[0] in (2, 3) and y.ndim <= x.ndim:
        # Squares and cubes are by far the most frequent, and pow() costs twenty multiplications.
        return x * x if y.reshape(-1)[0] == 2 else x * x * x
    if x.dtype.kind == "f":
        return np.power(x, y if y.dtype.itemsize > x.dtype.itemsize and y.dtype.kind == "f" else y.astype(x.dtype))
    if y.dtype.kind == "f" or (y.dtype.kind == "i" and np.any(y < 0)):
        return np.trunc(np.power(x.astype(np.float64), y.astype(np.float64)))
    result: Array = np.power(x, y.astype(x.dtype))
    return result


@elementwise
def modulo(a: Array, b: Array, *, fmod: int = 0) -> Array:
    """The rest of a / b, with the sign of ``b``, or of ``a`` when ``fmod`` is 1; 0 for integers and a zero divisor.

    Source: ONNX Mod-28.
    """
    if a.dtype == object:
        return symbolic.truncated_modulo(a, b) if fmod else symbolic.modulo(a, b)
    return np.fmod(a, b) if fmod else np.mod(a, b)


@elementwise
def mean(*operands: Array) -> Array:
    """The average of the operands. Source: ONNX Mean-13."""
    result: Array = functools.reduce(np.add, operands) / operands[0].dtype.type(len(operands))
    return result


def bit_shift(x: Array, y: Array, *, direction: str) -> Array:
    """``x`` shifted by ``y`` bits; the sign fills from the left. Source: ONNX BitShift-28.

    A negative ``y``, or one of as many bits as the type has, leaves only the fill: -1 or 0.
    """
    bits = x.dtype.itemsize * 8
    inside = (y >= 0) & (y < bits)
    amount = np.where(inside, y, 0).astype(x.dtype)
    if direction == "LEFT":
        return np.asarray(np.where(inside, np.left_shift(x, amount), 0), x.dtype)
    fill = np.where(x < 0, -1, 0) if x.dtype.kind == "i" else 0
    return np.asarray(np.where(inside, np.right_shift(x, amount), fill)).astype(x.dtype)


def infer_bit_shift(x: TensorType, y: TensorType, *, direction: str) -> TensorType:
    """The broadcast of two operands of one integer type."""
    if direction not in ("LEFT", "RIGHT"):
        raise ModelError(f"BitShift direction is {direction!r}, expected LEFT or RIGHT")
    return _BIT_SHIFT_RULE(x, y)


_BIT_SHIFT_RULE = binary_rule("BitShift", INTEGERS)


def _define(op: str, function: Function, allowed: frozenset[DType], on_dims: Function | None = None) -> OpDef:
    """Defines ``op`` as a numpy function of two arrays; ``on_dims`` does the same to ints and symbolic dimensions."""

    @elementwise
    def reference(a: Array, b: Array) -> Array:
        result: Array = on_dims(a, b) if on_dims is not None and a.dtype == object else function(a, b)
        return result

    reference.__doc__ = f"{op}, elementwise."
    return define(op, infer=binary_rule(op, allowed), reference=reference, pointwise=True, symbolic=on_dims is not None)


def _define_fold(op: str, function: Function, allowed: frozenset[DType], on_dims: Function | None = None) -> OpDef:
    """Like ``_define``, for an operation of any number of operands, joined from the left."""

    @elementwise
    def reference(*operands: Array) -> Array:
        return functools.reduce(on_dims if on_dims is not None and operands[0].dtype == object else function, operands)

    reference.__doc__ = f"{op} of all operands, elementwise."
    return define(op, infer=variadic_rule(op, allowed), reference=reference, pointwise=True, symbolic=on_dims is not None)


ADD = _define("Add", np.add, NUMBERS, symbolic.add)
SUB = _define("Sub", np.subtract, NUMBERS, symbolic.subtract)
MUL = _define("Mul", np.multiply, NUMBERS, symbolic.multiply)
DIV = define("Div", infer=binary_rule("Div", NUMBERS), reference=divide, pointwise=True, symbolic=True)
POW = define("Pow", infer=infer_pow, reference=power, pointwise=True)
MOD = define("Mod", infer=binary_rule("Mod", NUMBERS), reference=modulo, pointwise=True, symbolic=True)
MIN = _define_fold("Min", np.minimum, NUMBERS, symbolic.minimum)
MAX = _define_fold("Max", np.maximum, NUMBERS, symbolic.maximum)
SUM = _define_fold("Sum", np.add, NUMBERS, symbolic.add)
MEAN = define("Mean", infer=variadic_rule("Mean", FLOATS), reference=mean, pointwise=True)
BITWISE_AND = _define("BitwiseAnd", np.bitwise_and, INTEGERS)
BITWISE_OR = _define("BitwiseOr", np.bitwise_or, INTEGERS)
BITWISE_XOR = _define("BitwiseXor", np.bitwise_xor, INTEGERS)
BIT_SHIFT = define("BitShift", infer=infer_bit_shift, reference=bit_shift, pointwise=True)
