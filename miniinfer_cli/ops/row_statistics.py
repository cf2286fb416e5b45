"""RowStatistics and NormalizeByStatistics of ours: a normalization of rows whose statistics were made before, in pieces."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.shapes import same_dim

PIECE = 64
"""Neighbours in a row whose statistics are one pair, where nothing else is said."""


def infer_row_statistics(x: TensorType, *, piece: int = PIECE) -> TensorType:
    """``x`` [...,n] of rows of whole pieces: gives [...,n/piece,2], in f64 for that, in f32 for narrower floats."""
    dtype = _real(x.dtype)
    if piece < 1:
        raise ModelError(f"RowStatistics: a piece of {piece}")
    if x.shape is None:
        return TensorType(dtype)
    length = x.shape[-1] if x.shape else 0
    if not isinstance(length, int) or not length or length % piece:
        raise ModelError(f"RowStatistics: rows of {x} are no whole pieces of {piece}")
    return TensorType(dtype, (*x.shape[:-1], length // piece, 2))


def row_statistics(x: Array, *, piece: int = PIECE) -> Array:
    """Of each piece of the last axis the mean, and the sum of the squares of distances from it."""
    wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
    pieces = wide.reshape(*x.shape[:-1], x.shape[-1] // piece, piece)
    mean = pieces.mean(-1, keepdims=True)
    return np.stack([mean[..., 0], np.square(pieces - mean).sum(-1)], -1)


def expand_row_statistics(graph: Graph, node: Node) -> tuple[Value]:
    """Reshape, ReduceMean, Sub, Mul, ReduceSum, Concat."""
    at = Expansion(graph, node)
    x = at.widen(at.required(0))
    piece, axes = int(node.attrs.get("piece", PIECE)), at.integers([-1])
    length = (x.tensor.shape or (0,))[-1]
    if not isinstance(length, int) or not length:
        raise ModelError(f"RowStatistics cannot be expanded for {x.tensor}")
    shape = [0] * (len(x.tensor.shape or ()) - 1) + [length // piece, piece]
    pieces = at.op("Reshape", x, at.integers(shape))
    mean = at.op("ReduceMean", pieces, axes, keepdims=1)
    far = at.op("Sub", pieces, mean)
    return (at.op("Concat", mean, at.op("ReduceSum", at.op("Mul", far, far), axes, keepdims=1), axis=-1),)


def infer_normalize_by_statistics(
    x: TensorType,
    statistics: TensorType,
    scale: TensorType,
    shift: TensorType | None = None,
    *,
    epsilon: float = 1e-5,
    centred: int = 1,
) -> TensorType:
    """``x`` [...,n], ``statistics`` [...,pieces,2] of its rows, ``scale`` and ``shift`` [n]: gives ``x``'s type."""
    if x.shape is None or statistics.shape is None:
        return x
    if len(statistics.shape) != len(x.shape) + 1 or statistics.shape[-1] != 2 or statistics.dtype is not _real(x.dtype):
        raise ModelError(f"NormalizeByStatistics: {statistics} are no statistics of rows of {x}")
    for mine, other in zip(x.shape[:-1], statistics.shape, strict=False):
        same_dim("NormalizeByStatistics", f"rows of {x} and {statistics}", mine, other)
    for operand in (scale, shift):
        if operand is not None and operand.shape is not None:
            if len(operand.shape) != 1:
                raise ModelError(f"NormalizeByStatistics: {operand} is no row")
            same_dim("NormalizeByStatistics", f"elements of {operand}", operand.shape[0], x.shape[-1])
    return x


def normalize_by_statistics(
    x: Array, statistics: Array, scale: Array, shift: Array | None = None, *, epsilon: float = 1e-5, centred: int = 1
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift of each row, whose pieces are merged by Chan's formula.

    Not ``centred``: x / sqrt(mean of squares + epsilon) * scale + shift. Half-width floats are rounded once, at the end.
    """
    wide = x.astype(statistics.dtype, copy=False)
    means, squares = statistics[..., 0], statistics[..., 1]
    mean = means.mean(-1, keepdims=True)
    length = x.shape[-1]
    between = np.square(means - mean).sum(-1, keepdims=True) * (length // max(means.shape[-1], 1))
    variance = (squares.sum(-1, keepdims=True) + between) / max(length, 1)
    if not centred:
        variance, mean = variance + np.square(mean), np.zeros_like(mean)
    y = (wide - mean) * (1 / np.sqrt(variance + statistics.dtype.type(epsilon))) * scale.astype(wide.dtype)
    if shift is not None:
        y = y + shift.astype(wide.dtype)
    result: Array = y.astype(x.dtype, copy=False)
    return result


def expand_normalize_by_statistics(graph: Graph, node: Node) -> tuple[Value]:
    """Slices of the statistics, means and sums of them, then what a normalization does with its statistics."""
    at = Expansion(graph, node)
    x, statistics, scale, shift = at.required(0), at.required(1), at.required(2), at.input(3)
    kind = statistics.tensor.dtype
    length, pieces = ((t.tensor.shape or (0,) * 2)[i] for t, i in ((x, -1), (statistics, -2)))
    if not isinstance(length, int) or not isinstance(pieces, int) or not length or not pieces:
        raise ModelError(f"NormalizeByStatistics cannot be expanded for {x.tensor} and {statistics.tensor}")
    axes, last = at.integers([-2]), at.integers([-1])
    means, squares = (at.slice(statistics, i, i + 1, -1) for i in (0, 1))
    mean = at.op("ReduceMean", means, axes, keepdims=1)
    far = at.op("Sub", means, mean)
    between = at.op("Mul", at.op("Mul", far, far), at.scalar(length // pieces, kind))
    total = at.op("ReduceSum", at.op("Add", squares, between), axes, keepdims=1)
    variance = at.op("Mul", total, at.scalar(1 / length, kind))
    centred = bool(node.attrs.get("centred", 1))
    if not centred:
        variance = at.op("Add", variance, at.op("Mul", mean, mean))
    mean, variance = (at.op("Squeeze", v, last) for v in (mean, variance))
    wide = at.cast(x, kind)
    wide = at.op("Sub", wide, mean) if centred else wide
    y = at.op("Mul", at.op("Mul", wide, at.inverse_root(variance, node.attrs.get("epsilon", 1e-5))), at.cast(scale, kind))
    if shift is not None:
        y = at.op("Add", y, at.cast(shift, kind))
    return (at.cast(y, x.tensor.dtype),)


def _real(dtype: DType) -> DType:
    return DType.F64 if dtype is DType.F64 else DType.F32


ROW_STATISTICS = define(
    "RowStatistics",
    domain=OURS,
    infer=infer_row_statistics,
    reference=row_statistics,
    takes=(REAL,),
    expand=expand_row_statistics,
)
NORMALIZE_BY_STATISTICS = define(
    "NormalizeByStatistics",
    domain=OURS,
    infer=infer_normalize_by_statistics,
    reference=normalize_by_statistics,
    takes=(REAL, None, REAL, REAL),
    expand=expand_normalize_by_statistics,
)
