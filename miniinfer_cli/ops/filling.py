"""Tensors made from next to nothing: ConstantOfShape, Range, EyeLike, OneHot."""

import math
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, Sym, TensorType, dtype_of, numpy_dtype
from miniinfer_cli.ir.dims import positive_part
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.numerics import is_half
from miniinfer_cli.ops.operands import count_of, dims_of, floats_of, to_dims, to_scalar
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, normal_axis
from miniinfer_cli.ops.type_codes import dtype_of_code

# -- ConstantOfShape ---------------------------------------------------------------------------------------------------


def infer_constant_of_shape(input: TensorType, *, value: Array | None = None) -> TensorType:
    """The element type of ``value`` and the shape that the operand holds."""
    if value is not None and value.size != 1:
        raise ModelError(f"ConstantOfShape value has {value.size} elements, not one")
    dtype = DType.F32 if value is None else dtype_of(value)
    dims, count = dims_of(input), count_of("ConstantOfShape input", input)
    if dims is None:
        return TensorType(dtype, None if count is None else (UNKNOWN,) * count)
    if any(isinstance(d, int) and d < 0 for d in dims):
        raise ModelError(f"ConstantOfShape [{','.join(map(str, dims))}] has a negative dimension")
    return TensorType(dtype, dims)


def constant_of_shape(input: Array, *, value: Array | None = None) -> Array:
    """A tensor of the shape that ``input`` holds, filled with ``value`` (f32 zero when left out).

    Source: ONNX ConstantOfShape-25.
    """
    fill = np.zeros(1, np.float32) if value is None else value.reshape(1)
    return np.full(to_dims("ConstantOfShape", input), fill[0], fill.dtype)


# -- Range -------------------------------------------------------------------------------------------------------------


def infer_range(start: TensorType, limit: TensorType, delta: TensorType, *, stash_type: int = 1) -> TensorType:
    """[count] of the operands' type; the count is known where the operands are."""
    if not start.dtype == limit.dtype == delta.dtype:
        raise ModelError(f"Range from {start} to {limit} by {delta}: the element types differ")
    read: Any = dims_of if start.dtype.is_integer else floats_of
    scalars = [read(x) for x in (start, limit, delta)]
    if any(s is None or len(s) != 1 for s in scalars):
        return TensorType(start.dtype, (UNKNOWN,))
    return TensorType(start.dtype, (_count(*(s[0] for s in scalars)),))


def range_(start: Array, limit: Array, delta: Array, *, stash_type: int = 1) -> Array:
    """start, start + delta, ... short of ``limit``. Half-width floats are counted in f32. Source: ONNX Range-27."""
    first, last, step = (to_scalar(x) for x in (start, limit, delta))
    if is_half(start):
        first, last, step = (np.float32(x) for x in (first, last, step))
    count = int(_count(*((x if isinstance(x, Sym) else np.asarray(x).item()) for x in (first, last, step))))
    if start.dtype == object:
        return np.array([first + i * step for i in range(count)], object)
    steps: Array = np.arange(count, dtype=np.int64 if start.dtype.kind == "i" else np.float64)
    result: Array = (steps * np.asarray(step, steps.dtype) + np.asarray(first, steps.dtype)).astype(start.dtype)
    return result


def _count(start: Any, limit: Any, delta: Any) -> Dim:
    """How many steps of ``delta`` lead from ``start`` up to ``limit``, which is not reached."""
    if delta == 0:
        raise ModelError("Range delta is 0")
    if not all(math.isfinite(x) for x in (start, limit, delta) if isinstance(x, float)):
        raise ModelError(f"Range from {start:g} to {limit:g} by {delta:g}: expected finite numbers")
    if isinstance(start, float):
        steps = (limit - start) / delta
        if math.isinf(steps):
            raise ModelError(f"Range from {start:g} to {limit:g} by {delta:g} has more elements than can be counted")
        result: Dim = max(math.ceil(steps), 0)
        return result
    return positive_part(-((start - limit) // delta))


# -- EyeLike, OneHot ---------------------------------------------------------------------------------------------------


def infer_eye_like(input: TensorType, *, dtype: int | None = None, k: int = 0) -> TensorType:
    """The shape of ``input``, which is a matrix, with element type number ``dtype``."""
    expect_rank("EyeLike", input, 2)
    chosen = input.dtype if dtype is None else dtype_of_code(dtype)
    if chosen is DType.STR:
        raise ModelError(
            f"EyeLike dtype is {chosen}, expected a type of numbers", hint="set dtype to 1, which is f32, or leave it out"
        )
    return TensorType(chosen, input.shape or (UNKNOWN, UNKNOWN))


def eye_like(input: Array, *, dtype: int | None = None, k: int = 0) -> Array:
    """Ones on diagonal ``k``, zeros elsewhere. Source: ONNX EyeLike-22."""
    rows, columns = input.shape
    chosen = input.dtype if dtype is None else numpy_dtype(dtype_of_code(dtype))
    result: Array = (np.arange(columns) - np.arange(rows)[:, None] == k).astype(chosen)
    return result


def infer_one_hot(indices: TensorType, depth: TensorType, values: TensorType, *, axis: int = -1) -> TensorType:
    """The shape of ``indices`` with an axis of size ``depth`` inserted; the element type of ``values``."""
    expect_rank("OneHot values", values, 1)
    if count_of("OneHot values", values) not in (None, 2):
        raise ModelError(f"OneHot values {values} are not the two of off and on")
    if count_of("OneHot depth", depth) not in (None, 1):
        raise ModelError(f"OneHot depth {depth} is not one number")
    if indices.shape is None:
        return TensorType(values.dtype)
    sizes = dims_of(depth) if depth.dtype.is_integer else floats_of(depth)
    size: Dim = UNKNOWN
    if sizes is not None:
        size = sizes[0] if isinstance(sizes[0], Sym) else int(sizes[0])
    if isinstance(size, int) and size < 0:
        raise ModelError(f"OneHot depth {size} is negative")
    at = normal_axis("OneHot", axis, TensorType(values.dtype, (*indices.shape, size)))
    return TensorType(values.dtype, (*indices.shape[:at], size, *indices.shape[at:]))


def one_hot(indices: Array, depth: Array, values: Array, *, axis: int = -1) -> Array:
    """``values[1]`` where the index along the new axis is the one in ``indices``, else ``values[0]``.

    Negative indices count from the end; those outside select nothing. Source: ONNX OneHot-28.
    """
    size = int(to_scalar(depth))
    exact = indices.astype(np.int64)
    places = np.expand_dims(np.where(exact < 0, exact + size, exact), axis)
    classes = np.arange(size).reshape([-1 if i == axis % places.ndim else 1 for i in range(places.ndim)])
    return np.where(places == classes, values[1:], values[:1]).astype(values.dtype, copy=False)


CONSTANT_OF_SHAPE = define(
    "ConstantOfShape", infer=infer_constant_of_shape, reference=constant_of_shape, symbolic=True, shape_operands=(0,)
)
RANGE = define("Range", infer=infer_range, reference=range_, takes=(REAL, REAL, REAL), symbolic=True, shape_operands=(0, 1, 2))
EYE_LIKE = define("EyeLike", infer=infer_eye_like, reference=eye_like, takes=(REAL,))
ONE_HOT = define("OneHot", infer=infer_one_hot, reference=one_hot, shape_operands=(1,))
