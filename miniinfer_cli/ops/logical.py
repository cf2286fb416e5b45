"""Truth values and what makes and uses them: And, Or, Xor, comparisons, Where."""

from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, DType, TensorType
from miniinfer_cli.ops import symbolic
from miniinfer_cli.ops.element_types import ANY, BOOL, NUMBERS, expect_dtype, same_dtype
from miniinfer_cli.ops.elementwise import binary_rule
from miniinfer_cli.ops.registry import OpDef, define
from miniinfer_cli.ops.shapes import broadcast

Function = Callable[..., Any]


def infer_where(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    """The broadcast of all three, of the element type that ``x`` and ``y`` share."""
    expect_dtype("Where", condition, BOOL)
    return TensorType(same_dtype("Where", x, y), broadcast("Where", condition, x, y))


def where(condition: Array, x: Array, y: Array) -> Array:
    """``x`` where the condition holds, else ``y``. Source: ONNX Where-16."""
    return np.asarray(np.where(condition.astype(np.bool_, copy=False), x, y))


def _define_logical(op: str, function: Function) -> OpDef:
    def reference(a: Array, b: Array) -> Array:
        return np.asarray(function(a.astype(np.bool_, copy=False), b.astype(np.bool_, copy=False)))

    reference.__doc__ = f"{op} of truth values, elementwise."
    return define(op, infer=binary_rule(op, BOOL), reference=reference, pointwise=True, symbolic=True)


def _define_comparison(op: str, function: Function, on_dims: Function, allowed: frozenset[DType] = NUMBERS) -> OpDef:
    """Defines ``op`` by a numpy comparison; ``on_dims`` compares ints, symbolic dimensions, and strings."""

    def reference(a: Array, b: Array) -> Array:
        compare = on_dims if a.dtype == object else function
        with np.errstate(invalid="ignore"):  # bf16 warns of NaN
            return np.asarray(compare(a, b)).astype(np.bool_, copy=False)

    reference.__doc__ = f"{op}, elementwise; false where an operand is not a number."
    return define(op, infer=binary_rule(op, allowed, DType.BOOL), reference=reference, pointwise=True, symbolic=True)


def _greater(a: Array, b: Array) -> Array:
    return symbolic.less(b, a)


def _greater_or_equal(a: Array, b: Array) -> Array:
    return symbolic.less_or_equal(b, a)


AND = _define_logical("And", np.logical_and)
OR = _define_logical("Or", np.logical_or)
XOR = _define_logical("Xor", np.logical_xor)
EQUAL = _define_comparison("Equal", np.equal, symbolic.equal, ANY)
GREATER = _define_comparison("Greater", np.greater, _greater)
GREATER_OR_EQUAL = _define_comparison("GreaterOrEqual", np.greater_equal, _greater_or_equal)
LESS = _define_comparison("Less", np.less, symbolic.less)
LESS_OR_EQUAL = _define_comparison("LessOrEqual", np.less_equal, symbolic.less_or_equal)
WHERE = define("Where", infer=infer_where, reference=where, pointwise=True, symbolic=True)
