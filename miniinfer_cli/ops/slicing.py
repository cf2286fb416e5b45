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
    operands = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    counts = {name: count_of(f"Slice {name}", x) for name, x in operands.items() if x is not None}
    count = next((n for n in counts.values() if n is not None), None)
    for name, n in counts.items():
        if n not in (None, count):
            raise ModelError(f"Slice has {n} {name} and {count} starts")
    if count is not None and count > len(data.shape):
        raise ModelError(f"Slice cuts {count} axes of {data}")
    chosen = ints_of(axes) if axes is not None else None if count is None else tuple(range(count))
    if chosen is None:
        return TensorType(data.dtype, (UNKNOWN,) * len(data.shape))
    first, last = dims_of(starts), dims_of(ends)
    stride = (1,) * len(chosen) if steps is None else ints_of(steps)
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
    front, back = (0, dim) if step > 0 else (-1, dim - 1)
    (first, first_certain), (last, last_certain) = _bound(start, dim, front, back), _bound(end, dim, front, back)
    distance = last - first if step > 0 else first - last
    if isinstance(distance, int) and distance <= 0:
        return 0
    if isinstance(distance, int) and not (first_certain and last_certain):
        return UNKNOWN  # x[-128:] is 128 long, or as long as x: a number would be taken at its word
    return -(-distance // abs(step))


def _bound(bound: Dim, dim: Dim, front: Dim, back: Dim) -> tuple[Dim, bool]:
    """``bound`` as a position between ``front`` and ``back``, and whether it certainly lies there.

    A symbolic bound is taken to. A number that may lie outside is given as it is: ``x[2:]`` is ``dim - 2`` long.
    """
    if isinstance(bound, int) and abs(bound) >= _FAR:
        return (back if bound > 0 else front), True
    counted = bound + dim if _is_negative(bound) else bound
    if counted in (front, back):
        return counted, True
    room, excess = lower_bound(back - counted), lower_bound(counted - back)
    if excess is not None and excess >= 0:
        return back, True
    depth = lower_bound(counted - front)
    certain = room is not None and room >= 0 and depth is not None and depth >= 0
    return counted, certain or isinstance(bound, Sym)


def _is_negative(bound: Dim) -> bool:
    if isinstance(bound, int):
        return bound < 0
    least = lower_bound(-bound)
    return least is not None and least >= 0


SLICE = define("Slice", infer=infer_slice, reference=slice_, symbolic=True, shape_operands=(1, 2, 3, 4))
