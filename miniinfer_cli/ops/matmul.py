"""MatMul and Gemm."""

import math

from engine_format.dtypes import DType
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, Shape, TensorType
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype, same_dtype
from miniinfer_cli.ops.flops import product_flops
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.products import ForEach, multiply
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import broadcast, expect_rank, same_dim
from miniinfer_cli.ops.work import product_work

TYPES = FLOATS | {DType.I32, DType.I64, DType.U32, DType.U64}


def infer_matmul(a: TensorType, b: TensorType) -> TensorType:
    """``a`` [...,M,K] and ``b`` [...,K,N], leading axes broadcast; a vector is a row or a column. Source: ONNX MatMul-13."""
    dtype = same_dtype("MatMul", a, b)
    expect_dtype("MatMul", a, TYPES)
    return TensorType(dtype, matmul_shape("MatMul", a, b))


def infer_gemm(
    a: TensorType,
    b: TensorType,
    c: TensorType | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> TensorType:
    """``a`` [M,K], ``b`` [K,N] (or transposed), ``c`` broadcast onto [M,N]. Source: ONNX Gemm-13."""
    expect_rank("Gemm", a, 2)
    expect_rank("Gemm", b, 2)
    same_dtype("Gemm", a, b, c)
    expect_dtype("Gemm", a, TYPES)
    rows, inner_a = _sides(a, bool(transA))
    inner_b, columns = _sides(b, bool(transB))
    same_dim("Gemm", f"inner dimensions of {a} (transA {transA}) and {b} (transB {transB})", inner_a, inner_b)
    y = TensorType(a.dtype, (rows, columns))
    if c is not None and c.shape is not None:
        shape = broadcast("Gemm", y, c) or ()
        if len(shape) != 2 or any(isinstance(d, int) and d != 1 and e == 1 for d, e in zip(shape, (rows, columns), strict=True)):
            raise ModelError(f"Gemm operand C {c} does not broadcast onto {y}")
    return y


def matmul_shape(op: str, a: TensorType, b: TensorType) -> Shape | None:
    """The shape of the product, None when one rank is unknown. Raises ModelError where the operands do not fit."""
    if a.shape is None or b.shape is None:
        return None
    if not a.shape or not b.shape:
        raise ModelError(f"{op} takes vectors and matrices, got {a} and {b}")
    left = a.shape if len(a.shape) > 1 else (1, *a.shape)
    right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    same_dim(op, f"inner dimensions of {a} and {b}", left[-1], right[-2])
    batch = broadcast(op, TensorType(a.dtype, left[:-2]), TensorType(b.dtype, right[:-2])) or ()
    return (*batch, *left[-2:-1][: len(a.shape) - 1], *right[-1:][: len(b.shape) - 1])


@widen_half
def matmul(a: Array, b: Array, *, for_each: ForEach | None = None) -> Array:
    """The matrix product, by numpy's rules."""
    return matrix_product(a, b, for_each=for_each)


@widen_half
def gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    for_each: ForEach | None = None,
) -> Array:
    """``alpha`` A B + ``beta`` C, with A and B transposed first where asked."""
    y = multiply(a.T if transA else a, b.T if transB else b, for_each=for_each)
    if alpha != 1:
        y = (y * alpha).astype(y.dtype, copy=False)
    if c is not None and beta != 0:
        y += c if beta == 1 else (c * beta).astype(y.dtype, copy=False)
    return y


def matrix_product(a: Array, b: Array, out: Array | None = None, for_each: ForEach | None = None) -> Array:
    """``np.matmul``; when all matrices of a stack meet the same ``b``, one product of all their rows."""
    if a.ndim > 2 and b.ndim == 2 and a.size:
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        shape = (*a.shape[:-1], b.shape[1])
        if out is None:
            return multiply(rows, b, for_each=for_each).reshape(shape)
        if out.flags.c_contiguous:
            multiply(rows, b, out.reshape(len(rows), b.shape[1]), for_each)
            return out
    return multiply(a, b, out, for_each)


def _sides(x: TensorType, transposed: bool) -> tuple[Dim, Dim]:
    if x.shape is None:
        return UNKNOWN, UNKNOWN
    rows, columns = x.shape
    return (columns, rows) if transposed else (rows, columns)


MATMUL = define("MatMul", infer=infer_matmul, reference=matmul, work=product_work, heavy=True, flops=product_flops)
GEMM = define("Gemm", infer=infer_gemm, reference=gemm, work=product_work, heavy=True, flops=product_flops)
