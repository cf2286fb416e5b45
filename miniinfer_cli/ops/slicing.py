"""Slice: numpy's basic slicing, with the lengths of symbolic dimensions kept symbolic where exporters need them."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, Sym, TensorType
from miniinfer_cli.ir.dims import lower_bound
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import count_of, dims_of, ints_of, to_ints
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axes

_FAR = 1 << 30  # exporters write INT_MAX, or the like, for "to the end"


def infer_slice(
    data: TensorType,
    starts: TensorType,
    ends: TensorType,
    axes: TensorType | None = None,
    steps: TensorType | None = None,
) -> TensorType:
    """``data`` with the named axes cut. A bound that is itself symbolic is taken to lie within its axis."""
    if data.shape is None:
        return TensorType(data.dtype)
    count = next((n for n in (count_of(x) for x in (starts, ends, axes, steps) if x is not None) if n is not None), None)
    chosen = ints_of(axes) if axes is not None else None if count is None else tuple(range(count))
    if chosen is None:
        return TensorType(data.dtype, (UNKNOWN,) * len(data.shape))
    first, last = dims_of(starts), dims_of(ends)
    stride = (1,) * len(chosen) if steps is None else ints_of(steps)
    for name, items in (("starts", first), ("ends", last), ("steps", stride)):
        if items is not None and len(items) != len(chosen):
            raise ModelError(f"Slice has {len(items)} {name} for {len(chosen)} axes")
    dims = list(data.shape)
    for i, axis in enumerate(normal_axes("Slice", chosen, data)):
        if first is None or last is None or stride is None:
            dims[axis] = UNKNOWN
        else:
            dims[axis] = _length(data.shape[axis], first[i], last[i], stride[i])
    return TensorType(data.dtype, tuple(dims))


def slice_(data: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    """``data`` cut along the named axes; a view. Bounds follow Python's rules. Source: ONNX Slice-13."""
    first, last = to_ints(starts), to_ints(ends)
    chosen: Sequence[int] = range(len(first)) if axes is None else to_ints(axes)
    stride = [1] * len(first) if steps is None else to_ints(steps)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(first, last, chosen, stride, strict=True):
        index[axis] = slice(start, end, step)
    return data[tuple(index)]


def _length(dim: Dim, start: Dim, end: Dim, step: int) -> Dim:
    """How many elements start:end:step takes of an axis of ``dim`` elements."""
    if step == 0:
        raise ModelError("Slice step is 0")
    if isinstance(dim, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end, step).indices(dim)))
    if step > 0:
        low, high = _bound(start, dim, 0, dim), _bound(end, dim, 0, dim)
        distance = None if low is None or high is None else high - low
    else:
        low, high = _bound(start, dim, -1, dim - 1), _bound(end, dim, -1, dim - 1)
        distance = None if low is None or high is None else low - high
    if distance is None:
        return UNKNOWN
    length = -(-distance // abs(step))
    return max(length, 0) if isinstance(length, int) else length


def _bound(bound: Dim, dim: Dim, front: Dim, back: Dim) -> Dim | None:
    """``bound`` as a position between ``front`` and ``back``; None when that hangs on the size of ``dim``.

    The axis is taken to have an element, so that ``x[:, -1:]`` is 1 long and ``x[:, 1:]`` is ``dim - 1``.
    """
    if isinstance(bound, int):
        if bound >= _FAR:
            return back
        if bound <= -_FAR:
            return front
    if _is_negative(bound):
        bound = bound + dim
    if bound in (front, back):
        return bound
    room = lower_bound(back - bound)
    if room is not None and room >= 0:
        return bound
    excess = lower_bound(bound - back)
    if excess is not None and excess >= 0:
        return back
    if isinstance(bound, Sym):
        return bound
    return bound if bound == 1 and front == 0 else None


def _is_negative(bound: Dim) -> bool:
    if isinstance(bound, int):
        return bound < 0
    least = lower_bound(-bound)
    return least is not None and least >= 0


SLICE = define("Slice", infer=infer_slice, reference=slice_, symbolic=True)
