"""Shape rules of elementwise operations: one operand, operands that broadcast, any number of operands."""

from collections.abc import Callable

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.ops.element_types import expect_dtype, same_dtype
from miniinfer_cli.ops.shapes import broadcast

Rule = Callable[..., TensorType]


def unary_rule(op: str, allowed: frozenset[DType], result: DType | None = None) -> Rule:
    """One operand of an element type in ``allowed``; the result has its shape, and its type unless ``result`` is given."""

    def infer(x: TensorType) -> TensorType:
        expect_dtype(op, x, allowed)
        return TensorType(result or x.dtype, x.shape)

    return infer


def binary_rule(op: str, allowed: frozenset[DType], result: DType | None = None) -> Rule:
    """Two operands of one element type in ``allowed`` that broadcast; the result has it too unless ``result`` is given."""

    def infer(a: TensorType, b: TensorType) -> TensorType:
        expect_dtype(op, a, allowed)
        shared = same_dtype(op, a, b)
        return TensorType(result or shared, broadcast(op, a, b))

    return infer


def variadic_rule(op: str, allowed: frozenset[DType]) -> Rule:
    """One or more operands of one element type in ``allowed`` that broadcast."""

    def infer(*operands: TensorType) -> TensorType:
        if not operands:
            raise ModelError(f"{op} needs at least one operand")
        expect_dtype(op, operands[0], allowed)
        return TensorType(same_dtype(op, *operands), broadcast(op, *operands))

    return infer
