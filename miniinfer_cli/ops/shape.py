"""Shape, Size, and the operations that keep the elements and change the shape: Reshape, Flatten, Squeeze, Unsqueeze."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, Shape, TensorType
from miniinfer_cli.ir.dims import floor_divide, is_static, product
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import contents, count_of, dims_of, ints_of, to_ints
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axes

# -- Shape, Size -------------------------------------------------------------------------------------------------------


def infer_shape(data: TensorType, *, start: int = 0, end: int | None = None) -> TensorType:
    """i64 [length], with the dimensions themselves as contents."""
    if data.shape is None:
        return TensorType(DType.I64, (UNKNOWN,))
    dims = data.shape[_part(len(data.shape), start, end)]
    return TensorType(DType.I64, (len(dims),), contents(dims))


def shape(data: Array, *, start: int = 0, end: int | None = None) -> Array:
    """The dimensions of ``data`` from axis ``start`` up to ``end``, i64. Source: ONNX Shape-25."""
    return np.array(data.shape[_part(data.ndim, start, end)], np.int64)


def infer_size(data: TensorType) -> TensorType:
    """i64 scalar, with the number of elements as contents."""
    known = None if data.shape is None else contents([product(data.shape)]).reshape(())
    return TensorType(DType.I64, (), known)


def size(data: Array) -> Array:
    """The number of elements of ``data``, an i64 scalar. Source: ONNX Size-25."""
    return np.array(data.size, np.int64)


def _part(rank: int, start: int, end: int | None) -> slice:
    stop = rank if end is None else end
    first, last = (min(max(i + rank if i < 0 else i, 0), rank) for i in (start, stop))
    return slice(first, max(first, last))


# -- Reshape, Flatten --------------------------------------------------------------------------------------------------


def infer_reshape(data: TensorType, shape: TensorType, *, allowzero: int = 0) -> TensorType:
    """``data`` under the shape that the operand holds; dimensions that cannot be told are unknown."""
    target, count = dims_of(shape), count_of("Reshape target", shape)
    if target is None:
        return TensorType(data.dtype, None if count is None else (UNKNOWN,) * count)
    return TensorType(data.dtype, _target(target, data.shape, allowzero))


def reshape(data: Array, shape: Array, *, allowzero: int = 0) -> Array:
    """``data`` under another shape: 0 copies a dimension (unless ``allowzero``), -1 takes what is left.

    May be a view. Source: ONNX Reshape-25.
    """
    return data.reshape([int(d) for d in _target(to_ints(shape), data.shape, allowzero)])


def _target(target: Sequence[Dim], source: Shape | None, allowzero: int) -> Shape:
    dims: list[Dim] = list(target)
    text = f"Reshape to [{','.join(map(str, target))}]"
    if dims.count(-1) > 1:
        raise ModelError(f"{text} leaves more than one dimension to be found (-1)")
    if any(isinstance(d, int) and d < -1 for d in dims):
        raise ModelError(f"{text} asks for a negative dimension")
    if allowzero and 0 in dims and -1 in dims:
        raise ModelError(f"{text} holds both 0 and -1, which allowzero=1 rules out")
    if not allowzero:
        for axis, d in enumerate(target):
            if d == 0:
                if source is not None and axis >= len(source):
                    raise ModelError(f"{text} copies dimension {axis}, but the input has rank {len(source)}")
                dims[axis] = UNKNOWN if source is None else source[axis]
    if source is None:
        return tuple(UNKNOWN if d == -1 else d for d in dims)
    if -1 in dims:
        dims[dims.index(-1)] = _left_over(text, source, [d for d in dims if d != -1])
    if is_static(source) and is_static(dims) and product(source) != product(dims):
        raise ModelError(
            f"{text} does not fit the input [{','.join(map(str, source))}]: {product(source)} elements, not {product(dims)}",
            hint="a batch size fixed inside the model is the usual cause; export with dynamic axes",
        )
    return tuple(dims)


def _left_over(text: str, source: Shape, others: Sequence[Dim]) -> Dim:
    """The dimension that makes ``others`` hold as many elements as ``source``; equal dimensions cancel first."""
    left, divisors = list(source), []
    for d in others:
        if d in left:
            left.remove(d)
        else:
            divisors.append(d)
    elements, divisor = product(left), product(divisors)
    if isinstance(divisor, int) and isinstance(elements, int) and (elements % divisor if divisor else elements):
        raise ModelError(f"{text} does not divide the input [{','.join(map(str, source))}]")
    return floor_divide(elements, divisor) if divisor != 0 else 0


def infer_flatten(input: TensorType, *, axis: int = 1) -> TensorType:
    """A matrix of the product of the dimensions before ``axis`` and the product of those from it on."""
    if input.shape is None:
        return TensorType(input.dtype, (UNKNOWN, UNKNOWN))
    rank = len(input.shape)
    if not -rank <= axis <= rank:
        raise ModelError(f"Flatten axis {axis} is outside [{-rank}, {rank}] for input {input}")
    split = axis + rank if axis < 0 else axis
    return TensorType(input.dtype, (product(input.shape[:split]), product(input.shape[split:])))


def flatten(input: Array, *, axis: int = 1) -> Array:
    """``input`` as a matrix, split before ``axis``; may be a view. Source: ONNX Flatten-25."""
    split = axis + input.ndim if axis < 0 else axis
    rows, columns = product(input.shape[:split]), product(input.shape[split:])
    return input.reshape(int(rows), int(columns))


# -- Squeeze, Unsqueeze ------------------------------------------------------------------------------------------------


def infer_squeeze(data: TensorType, axes: TensorType | None = None) -> TensorType:
    """``data`` without the named axes, which must be of size 1; without all such axes when none is named."""
    if data.shape is None:
        return TensorType(data.dtype)
    if axes is None:
        if not is_static(data.shape):
            return TensorType(data.dtype)  # a symbolic dimension may or may not be 1
        return TensorType(data.dtype, tuple(d for d in data.shape if d != 1))
    chosen, count = ints_of(axes), count_of("Squeeze axes", axes)
    if count is not None and count > len(data.shape):
        raise ModelError(f"Squeeze removes {count} axes of {data}")
    if count is not None and sum(not isinstance(d, int) or d == 1 for d in data.shape) < count:
        raise ModelError(f"Squeeze removes {count} axes of {data}, which has fewer of size 1")
    if chosen is None:
        return TensorType(data.dtype, None if count is None else (UNKNOWN,) * (len(data.shape) - count))
    gone = normal_axes("Squeeze", chosen, data)
    for axis in gone:
        if isinstance(data.shape[axis], int) and data.shape[axis] != 1:
            raise ModelError(f"Squeeze axis {axis} of {data} is not of size 1")
    return TensorType(data.dtype, tuple(d for axis, d in enumerate(data.shape) if axis not in gone))


def squeeze(data: Array, axes: Array | None = None) -> Array:
    """``data`` without axes of size 1; a view. Source: ONNX Squeeze-25."""
    return np.squeeze(data, None if axes is None else tuple(to_ints(axes)))


def infer_unsqueeze(data: TensorType, axes: TensorType) -> TensorType:
    """``data`` with an axis of size 1 at each place of the result that ``axes`` names."""
    if data.shape is None:
        return TensorType(data.dtype)
    chosen, count = ints_of(axes), count_of("Unsqueeze axes", axes)
    if chosen is None:
        return TensorType(data.dtype, None if count is None else (UNKNOWN,) * (len(data.shape) + count))
    rank = len(data.shape) + len(chosen)
    new = normal_axes("Unsqueeze", chosen, TensorType(data.dtype, (1,) * rank))
    old = iter(data.shape)
    return TensorType(data.dtype, tuple(1 if axis in new else next(old) for axis in range(rank)))


def unsqueeze(data: Array, axes: Array) -> Array:
    """``data`` with new axes of size 1; a view. Source: ONNX Unsqueeze-25."""
    return np.expand_dims(data, tuple(to_ints(axes)))


SHAPE = define("Shape", infer=infer_shape, reference=shape, symbolic=True, tells_shape=True)
SIZE = define("Size", infer=infer_size, reference=size, symbolic=True, tells_shape=True)
RESHAPE = define("Reshape", infer=infer_reshape, reference=reshape, symbolic=True, shape_operands=(1,), view=True)
FLATTEN = define("Flatten", infer=infer_flatten, reference=flatten, symbolic=True, view=True)
SQUEEZE = define("Squeeze", infer=infer_squeeze, reference=squeeze, symbolic=True, shape_operands=(1,), view=True)
UNSQUEEZE = define("Unsqueeze", infer=infer_unsqueeze, reference=unsqueeze, symbolic=True, shape_operands=(1,), view=True)
