"""Moving whole tensors about: Transpose, Concat, Split, Expand, Tile."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, Shape, TensorType
from miniinfer_cli.ir.dims import product
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import count_of, dims_of, to_dims, to_ints
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import broadcast, normal_axis, same_dim

# -- Transpose ---------------------------------------------------------------------------------------------------------


def infer_transpose(data: TensorType, *, perm: Sequence[int] | None = None) -> TensorType:
    """The axes of ``data`` in the order of ``perm``; reversed when it is left out."""
    if data.shape is None:
        return TensorType(data.dtype, None if perm is None else (UNKNOWN,) * len(perm))
    order = list(range(len(data.shape)))[::-1] if perm is None else [int(p) for p in perm]
    if sorted(order) != list(range(len(data.shape))):
        raise ModelError(f"Transpose perm {order} is no permutation of the axes of {data}")
    return TensorType(data.dtype, tuple(data.shape[p] for p in order))


def transpose(data: Array, *, perm: Sequence[int] | None = None) -> Array:
    """Axis i of the result is axis ``perm[i]`` of ``data``; a view. Source: ONNX Transpose-25."""
    return data.transpose(perm)


# -- Concat, Split -----------------------------------------------------------------------------------------------------


def infer_concat(*inputs: TensorType, axis: int) -> TensorType:
    """The inputs joined along ``axis``; their other dimensions must agree."""
    if not inputs:
        raise ModelError("Concat has no inputs")
    for x in inputs[1:]:
        if x.dtype != inputs[0].dtype:
            raise ModelError(f"Concat joins {inputs[0]} and {x}: the element types differ")
    shaped = [x for x in inputs if x.shape is not None]
    if not shaped:
        return TensorType(inputs[0].dtype)
    first = shaped[0]
    at = normal_axis("Concat", axis, first)
    dims: list[Dim] = list(first.shape or ())
    if not dims:
        raise ModelError(f"Concat cannot join scalars ({first})")
    for x in shaped[1:]:
        if x.rank != len(dims):
            raise ModelError(f"Concat joins {first} and {x}: the ranks differ")
        for i, d in enumerate(x.shape or ()):
            dims[i] = dims[i] + d if i == at else same_dim("Concat", f"dimension {i} of {first} and {x}", dims[i], d)
    if len(shaped) < len(inputs):
        dims[at] = UNKNOWN
    return TensorType(inputs[0].dtype, tuple(dims))


def concat(*inputs: Array, axis: int) -> Array:
    """The inputs joined along ``axis``. Source: ONNX Concat-13."""
    return np.concatenate(inputs, axis=axis)


def infer_split(
    input: TensorType, split: TensorType | None = None, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int
) -> tuple[TensorType, ...]:
    """Pieces of ``input`` along ``axis``: of the sizes in ``split``, or of one size with a smaller last one."""
    if num_outputs not in (None, n_outputs):  # which of them is meant, no one can tell
        raise ModelError(f"Split into {num_outputs} has {n_outputs} outputs")
    if input.shape is None:
        return (TensorType(input.dtype),) * n_outputs
    if not input.shape:
        raise ModelError(f"Split cannot take a scalar ({input}) apart")
    at = normal_axis("Split", axis, input)
    sizes: Sequence[Dim] | None
    if split is None:
        sizes = _even_sizes(input.shape[at], n_outputs)
    else:
        sizes = dims_of(split)
        count_of("Split sizes", split)
        if sizes is not None:
            _check_sizes(sizes, input.shape[at], n_outputs)
    pieces = (UNKNOWN,) * n_outputs if sizes is None else sizes
    return tuple(TensorType(input.dtype, (*input.shape[:at], d, *input.shape[at + 1 :])) for d in pieces)


def split(
    input: Array, split: Array | None = None, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int
) -> tuple[Array, ...]:
    """Consecutive pieces of ``input`` along ``axis``; views. Source: ONNX Split-18."""
    sizes: Sequence[Dim]
    if split is None:
        sizes = _even_sizes(input.shape[axis], n_outputs)
    else:
        sizes = to_ints(split)
        _check_sizes(sizes, input.shape[axis], n_outputs)
    ends = np.cumsum([0, *sizes])
    lead = (slice(None),) * (axis % input.ndim)
    return tuple(input[(*lead, slice(ends[i], ends[i + 1]))] for i in range(n_outputs))


def _even_sizes(dim: Dim, count: int) -> list[Dim]:
    chunk = -(-dim // count)
    sizes: list[Dim] = [chunk] * (count - 1)
    last = dim - chunk * (count - 1)
    if isinstance(last, int) and last < 0:
        raise ModelError(f"Split cannot cut a dimension of {dim} into {count} pieces of {chunk}")
    return [*sizes, last]


def _check_sizes(sizes: Sequence[Dim], dim: Dim, n_outputs: int) -> None:
    if len(sizes) != n_outputs:
        raise ModelError(f"Split into {len(sizes)} sizes has {n_outputs} outputs")
    total: Dim = 0
    for d in sizes:
        if isinstance(d, int) and d < 0:
            raise ModelError(f"Split size {d} is negative")
        total = total + d
    same_dim("Split", f"the sizes {list(sizes)} of an axis of {dim} add up to", total, dim)


# -- Expand, Tile ------------------------------------------------------------------------------------------------------


def infer_expand(input: TensorType, shape: TensorType) -> TensorType:
    """The broadcast of ``input`` against the shape that the operand holds."""
    target, count = dims_of(shape), count_of("Expand target", shape)
    if target is not None:
        if any(isinstance(d, int) and d < 0 for d in target):
            raise ModelError(f"Expand to [{','.join(map(str, target))}] asks for a negative dimension")
        return TensorType(input.dtype, broadcast("Expand", input, TensorType(input.dtype, target)))
    if count is None or input.shape is None:
        return TensorType(input.dtype)
    # A dimension that is neither 1 nor symbolic stays, whatever the target says.
    own: Shape = tuple(d if isinstance(d, int) and d != 1 else UNKNOWN for d in input.shape)
    return TensorType(input.dtype, (UNKNOWN,) * (count - len(own)) + own)


def expand(input: Array, shape: Array) -> Array:
    """``input`` broadcast against ``shape``, both ways; a read-only view. Source: ONNX Expand-13."""
    return np.broadcast_to(input, np.broadcast_shapes(input.shape, tuple(to_dims("Expand", shape))))


def infer_tile(input: TensorType, repeats: TensorType) -> TensorType:
    """Each dimension of ``input`` times its number of repeats."""
    times, count = dims_of(repeats), count_of("Tile repeats", repeats)
    if input.shape is None:
        return TensorType(input.dtype, None if count is None else (UNKNOWN,) * count)
    if count not in (None, len(input.shape)):
        raise ModelError(f"Tile has {count} repeats for input {input}")
    if times is None:
        return TensorType(input.dtype, (UNKNOWN,) * len(input.shape))
    if any(isinstance(t, int) and t < 0 for t in times):
        raise ModelError(f"Tile repeats [{','.join(map(str, times))}] are not all 0 or more")
    return TensorType(input.dtype, tuple(product(pair) for pair in zip(input.shape, times, strict=True)))


def tile(input: Array, repeats: Array) -> Array:
    """``input`` repeated along each axis. Source: ONNX Tile-13."""
    return np.tile(input, to_dims("Tile", repeats))


TRANSPOSE = define("Transpose", infer=infer_transpose, reference=transpose, symbolic=True, moves=True)
CONCAT = define("Concat", infer=infer_concat, reference=concat, symbolic=True, moves=True)
SPLIT = define("Split", infer=infer_split, reference=split, symbolic=True, shape_operands=(1,), moves=True)
EXPAND = define("Expand", infer=infer_expand, reference=expand, symbolic=True, shape_operands=(1,), moves=True)
TILE = define("Tile", infer=infer_tile, reference=tile, symbolic=True, shape_operands=(1,), moves=True)
