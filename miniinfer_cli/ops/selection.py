"""Choosing elements by their contents: NonZero, Compress, Unique. The sizes of the results depend on the data."""

import math

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, TensorType
from miniinfer_cli.ir.dims import product
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.gather import check_not_scalar
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.padding import zero_of
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, normal_axis


def infer_non_zero(x: TensorType) -> TensorType:
    """i64 [rank, unknown]."""
    return TensorType(DType.I64, (UNKNOWN if x.rank is None else x.rank, UNKNOWN))


def non_zero(x: Array) -> Array:
    """The coordinates of the elements that are not zero, in row-major order, one column each. Source: ONNX NonZero-13."""
    zero = np.array(zero_of(x.dtype), x.dtype)
    return np.ascontiguousarray(np.argwhere(np.not_equal(x, zero)).T.astype(np.int64, copy=False))


def infer_compress(input: TensorType, condition: TensorType, *, axis: int | None = None) -> TensorType:
    """``input`` with an unknown number of slices along ``axis``; flat when no axis is named."""
    expect_rank("Compress condition", condition, 1)
    if axis is None:
        return TensorType(input.dtype, (UNKNOWN,))
    if input.shape is None:
        return TensorType(input.dtype)
    check_not_scalar("Compress", input)
    at = normal_axis("Compress", axis, input)
    return TensorType(input.dtype, (*input.shape[:at], UNKNOWN, *input.shape[at + 1 :]))


def compress(input: Array, condition: Array, *, axis: int | None = None) -> Array:
    """The slices of ``input`` along ``axis`` whose condition holds; those past the condition's end are left out.

    Source: ONNX Compress-28.
    """
    data = input.reshape(-1) if axis is None else input
    at = 0 if axis is None else axis
    if condition[data.shape[at] :].any():
        raise ModelError(f"Compress condition of {condition.size} elements selects beyond the {data.shape[at]} of axis {at}")
    return np.take(data, np.flatnonzero(condition), axis=at)


def infer_unique(x: TensorType, *, axis: int | None = None, sorted: int = 1, n_outputs: int) -> tuple[TensorType, ...]:
    """The distinct elements, or slices along ``axis``; then i64 first places, i64 places in the result, i64 counts."""
    indices = TensorType(DType.I64, (UNKNOWN,))
    inverse = TensorType(DType.I64, (UNKNOWN if x.shape is None else product(x.shape),))
    if axis is None:
        values = TensorType(x.dtype, (UNKNOWN,))
    elif x.shape is None:
        values, inverse = TensorType(x.dtype), indices
    else:
        check_not_scalar("Unique", x)
        at = normal_axis("Unique", axis, x)
        values = TensorType(x.dtype, (*x.shape[:at], UNKNOWN, *x.shape[at + 1 :]))
        inverse = TensorType(DType.I64, (x.shape[at],))
    return (values, indices, inverse, indices)[:n_outputs]


def unique(x: Array, *, axis: int | None = None, sorted: int = 1, n_outputs: int) -> tuple[Array, ...]:
    """The distinct elements (slices along ``axis``) in ascending or first-seen order, with their first places, the place
    of each input element among them, and their counts.

    Source: ONNX Unique-28.
    """
    data = x.reshape(-1) if axis is None else x
    at = 0 if axis is None else axis % x.ndim
    # Ranks stand for the elements, so that every element type sorts by slices as integers do.
    _, ranks = np.unique(data.reshape(-1), return_inverse=True)
    lines = np.moveaxis(ranks.reshape(data.shape), at, 0)
    rows = lines.reshape(len(lines), math.prod(lines.shape[1:]))
    _, first, inverse, counts = np.unique(rows, axis=0, return_index=True, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        first, inverse, counts = first[order], place[inverse], counts[order]
    outputs = (np.take(data, first, axis=at), *(a.astype(np.int64, copy=False) for a in (first, inverse, counts)))
    return outputs[:n_outputs]


NON_ZERO = define("NonZero", infer=infer_non_zero, reference=non_zero)
COMPRESS = define("Compress", infer=infer_compress, reference=compress, takes=(None, REAL))
UNIQUE = define("Unique", infer=infer_unique, reference=unique)
