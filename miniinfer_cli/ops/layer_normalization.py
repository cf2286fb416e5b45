"""LayerNormalization and RMSNormalization: each row, the axes from ``axis`` on, brought to one scale."""

import math
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Graph, Node, TensorType, Value, numpy_dtype
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import broadcast, normal_axis
from miniinfer_cli.ops.type_codes import dtype_of_code, float_of_code


def infer_layer_normalization(
    x: TensorType,
    scale: TensorType,
    b: TensorType | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    n_outputs: int = 1,
) -> tuple[TensorType, ...]:
    """Y like ``x``; Mean and InvStdDev of ``stash_type`` with the normalized axes of size 1."""
    stash = float_of_code("LayerNormalization", "stash_type", stash_type)
    y = TensorType(x.dtype, x.shape)
    if x.shape is None:
        return (y, TensorType(stash), TensorType(stash))[:n_outputs]
    first = normal_axis("LayerNormalization", axis, x)
    _expect_broadcast_to("LayerNormalization", x, scale, b)
    statistic = TensorType(stash, (*x.shape[:first], *(1,) * (len(x.shape) - first)))
    return (y, statistic, statistic)[:n_outputs]


def layer_normalization(
    x: Array,
    scale: Array,
    b: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """(x - mean) / sqrt(variance + epsilon) * scale + b over the axes from ``axis`` on. Source: ONNX LayerNormalization-17.

    The statistics are computed in the wider of f32 and ``stash_type``, whatever the type of ``x``.
    """
    stash = numpy_dtype(dtype_of_code(stash_type))
    shape = x.shape
    first = axis % x.ndim
    rows = _stage_one(x, stash).reshape(_rows(shape, first))
    mean = np.add.reduce(rows, axis=1, keepdims=True)
    mean /= max(rows.shape[1], 1)
    y = rows - mean
    inverse = inverse_root_mean_square(y, epsilon)
    y *= inverse
    y = _stage_two(y.reshape(shape), x.dtype, scale, b)
    if n_outputs == 1:
        return (y,)
    kept = (*shape[:first], *(1,) * (x.ndim - first))
    return (y, mean.reshape(kept).astype(stash), inverse.reshape(kept).astype(stash))[:n_outputs]


def infer_rms_normalization(
    x: TensorType, scale: TensorType, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> TensorType:
    """The shape of ``x`` in the element type of ``scale``."""
    float_of_code("RMSNormalization", "stash_type", stash_type)
    if x.shape is not None:
        normal_axis("RMSNormalization", axis, x)
        _expect_broadcast_to("RMSNormalization", x, scale)
    return TensorType(scale.dtype, x.shape)


def rms_normalization(x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Array:
    """x / sqrt(mean of squares + epsilon) * scale over the axes from ``axis`` on. Source: ONNX RMSNormalization-23."""
    rows = _stage_one(x, numpy_dtype(dtype_of_code(stash_type))).reshape(_rows(x.shape, axis % x.ndim))
    y = rows * inverse_root_mean_square(rows, epsilon)
    return _stage_two(y.reshape(x.shape), scale.dtype, scale, None)


def expand_layer_normalization(graph: Graph, node: Node) -> tuple[Value, ...]:
    """ReduceMean, Sub, Mul, ReduceMean, Add, Sqrt, Reciprocal, Mul, then the scale and the bias."""
    at = Expansion(graph, node)
    x, scale, bias = at.required(0), at.required(1), at.input(2)
    stash = dtype_of_code(node.attrs.get("stash_type", 1))
    axes = _normalized_axes(at, x)
    wide = at.widen(at.cast(x, stash))
    mean = at.op("ReduceMean", wide, axes, keepdims=1)
    centred = at.op("Sub", wide, mean)
    variance = at.op("ReduceMean", at.op("Mul", centred, centred), axes, keepdims=1)
    inverse = at.inverse_root(variance, node.attrs.get("epsilon", 1e-5))
    # The scale and the bias are applied before rounding, as by the reference.
    kind = DType.F32 if x.tensor.dtype.is_half else x.tensor.dtype
    y = at.op("Mul", at.cast(at.op("Mul", centred, inverse), kind), at.cast(scale, kind))
    if bias is not None:
        y = at.op("Add", y, at.cast(bias, kind))
    y = at.cast(y, x.tensor.dtype)
    return (y, *(at.cast(v, stash) for v in (mean, inverse)[: len(node.outputs) - 1]))


def expand_rms_normalization(graph: Graph, node: Node) -> tuple[Value]:
    """Mul, ReduceMean, Add, Sqrt, Reciprocal, Mul, then the scale."""
    at = Expansion(graph, node)
    x, scale = at.required(0), at.required(1)
    wide = at.widen(at.cast(x, dtype_of_code(node.attrs.get("stash_type", 1))))
    square = at.op("ReduceMean", at.op("Mul", wide, wide), _normalized_axes(at, x), keepdims=1)
    normal = at.op("Mul", wide, at.inverse_root(square, node.attrs.get("epsilon", 1e-5)))
    kind = DType.F32 if scale.tensor.dtype.is_half else scale.tensor.dtype
    return (at.cast(at.op("Mul", at.cast(normal, kind), at.cast(scale, kind)), scale.tensor.dtype),)


def _expect_broadcast_to(op: str, x: TensorType, *operands: TensorType | None) -> None:
    """Raises ModelError unless each operand broadcasts to the shape of ``x`` as it is."""
    for operand in operands:
        shape = broadcast(op, x, operand)
        if shape is None or x.shape is None:
            continue
        if len(shape) != len(x.shape) or any(a == 1 and b not in (1, UNKNOWN) for a, b in zip(x.shape, shape, strict=True)):
            raise ModelError(f"{op}: {operand} does not broadcast to the input {x}")


def _normalized_axes(at: Expansion, x: Value) -> Value:
    """The axes from the node's ``axis`` on, counted from the end when the rank of ``x`` is not known."""
    axis, rank = at.node.attrs.get("axis", -1), x.tensor.rank
    if rank is None and axis >= 0:
        raise ModelError(f"{at.node.op} axis {axis} cannot be expanded for an input of unknown rank")
    start = axis if rank is None or axis < 0 else axis - rank
    return at.integers(range(start, 0))


def _rows(shape: tuple[int, ...], first: int) -> tuple[int, int]:
    return math.prod(shape[:first]), math.prod(shape[first:])


def _stage_one(x: Array, stash: np.dtype[Any]) -> Array:
    """``x`` in the type that the first stage computes in: ``stash``, or f32 where that is narrower."""
    return x.astype(np.float32 if stash.itemsize < 4 else stash, copy=False)


def inverse_root_mean_square(rows: Array, epsilon: float) -> Array:
    """1 / sqrt(mean of squares + epsilon) of each row, as a column."""
    result: Array = np.matmul(rows[:, None, :], rows[:, :, None])[:, 0]  # a dot product per row: no temporary of squares
    result /= max(rows.shape[1], 1)
    result += epsilon
    np.sqrt(result, out=result)
    np.divide(1, result, out=result)
    return result


def _stage_two(y: Array, dtype: np.dtype[Any], scale: Array, b: Array | None) -> Array:
    """y * scale + b in ``dtype`` (in f32, rounded once, when that is narrower). Overwrites ``y`` where it can."""
    wide = np.dtype(np.float32) if dtype.itemsize < 4 else dtype
    y = y.astype(wide, copy=False)
    y *= scale.astype(wide, copy=False)
    if b is not None:
        y += b.astype(wide, copy=False)
    return y.astype(dtype, copy=False)


LAYER_NORMALIZATION = define(
    "LayerNormalization",
    infer=infer_layer_normalization,
    reference=layer_normalization,
    takes=(REAL, REAL, REAL),
    expand=expand_layer_normalization,
)
RMS_NORMALIZATION = define(
    "RMSNormalization",
    infer=infer_rms_normalization,
    reference=rms_normalization,
    takes=(REAL, REAL),
    expand=expand_rms_normalization,
)
