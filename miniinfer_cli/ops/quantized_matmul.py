"""MatMulInteger and QLinearMatMul."""

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.element_types import FP8, expect_dtype
from miniinfer_cli.ops.exact_product import exact_float, requantize, without_zero_point, wrap_to_int32
from miniinfer_cli.ops.flops import product_flops
from miniinfer_cli.ops.matmul import matmul_shape, matrix_product
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.work import product_work

BYTES = frozenset({DType.I8, DType.U8})
SCALES = frozenset({DType.F32, DType.F16, DType.BF16})


def infer_matmul_integer(
    a: TensorType, b: TensorType, a_zero_point: TensorType | None = None, b_zero_point: TensorType | None = None
) -> TensorType:
    """``a`` [...,M,K] and ``b`` [...,K,N] of 8 bits give i32. Source: ONNX MatMulInteger-10."""
    for x, zero_point in ((a, a_zero_point), (b, b_zero_point)):
        expect_dtype("MatMulInteger", x, BYTES)
        expect_zero_point("MatMulInteger", x, zero_point)
    return TensorType(DType.I32, matmul_shape("MatMulInteger", a, b))


def infer_qlinear_matmul(
    a: TensorType,
    a_scale: TensorType,
    a_zero_point: TensorType,
    b: TensorType,
    b_scale: TensorType,
    b_zero_point: TensorType,
    y_scale: TensorType,
    y_zero_point: TensorType,
) -> TensorType:
    """``a`` [...,M,K] and ``b`` [...,K,N] give the type of ``y_zero_point``. Source: ONNX QLinearMatMul-21."""
    for x, zero_point in ((a, a_zero_point), (b, b_zero_point)):
        expect_dtype("QLinearMatMul", x, BYTES | FP8)
        expect_zero_point("QLinearMatMul", x, zero_point)
    for scale in (a_scale, b_scale, y_scale):
        expect_dtype("QLinearMatMul", scale, SCALES)
    expect_dtype("QLinearMatMul", y_zero_point, BYTES | FP8)
    return TensorType(y_zero_point.dtype, matmul_shape("QLinearMatMul", a, b))


def matmul_integer(
    a: Array,
    b: Array,
    a_zero_point: Array | None = None,
    b_zero_point: Array | None = None,
    *,
    for_each: ForEach | None = None,
) -> Array:
    """The product of the operands less their zero points; a vector of zero points is one for each row of ``a``."""
    wide_a = without_zero_point(a, None if a_zero_point is None else per_row(a_zero_point))
    wide_b = without_zero_point(b, b_zero_point)
    exact = exact_float(a.shape[-1], wide_a, wide_b)
    return np.asarray(wrap_to_int32(matrix_product(wide_a.astype(exact), wide_b.astype(exact), for_each=for_each)))


def qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    *,
    for_each: ForEach | None = None,
) -> Array:
    """The product of the dequantized operands, quantized. Vectors are per row of ``a`` and per column of ``b``."""
    scale = per_row(a_scale).astype(np.float32) * b_scale.astype(np.float32) / per_row(y_scale).astype(np.float32)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        total = matmul_integer(a, b, a_zero_point, b_zero_point, for_each=for_each)
    else:
        wide_a = a.astype(np.float32) - per_row(a_zero_point).astype(np.float32)
        total = matrix_product(wide_a, b.astype(np.float32) - b_zero_point.astype(np.float32), for_each=for_each)
    return np.asarray(requantize(total, scale, per_row(y_zero_point)))


def expect_zero_point(op: str, x: TensorType, zero_point: TensorType | None) -> None:
    """Raises ModelError unless the zero point is absent or of the operand's type."""
    if zero_point is not None and zero_point.dtype != x.dtype:
        raise ModelError(f"{op} zero point is {zero_point}, expected the element type of its operand {x}")


def per_row(values: Array) -> Array:
    """A vector of values, one for each row of a matrix, as a column; anything else as it is."""
    return values[:, None] if values.ndim == 1 and values.size > 1 else values


MATMUL_INTEGER = define(
    "MatMulInteger", infer=infer_matmul_integer, reference=matmul_integer, work=product_work, heavy=True, flops=product_flops
)
QLINEAR_MATMUL = define(
    "QLinearMatMul", infer=infer_qlinear_matmul, reference=qlinear_matmul, work=product_work, heavy=True, flops=product_flops
)
