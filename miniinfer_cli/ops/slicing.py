"""Slice: parts of an axis, whose lengths are followed where sizes are symbolic, too."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ir.dims import is_natural, minimum, positive_part
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import count_of, dims_of, ints_of, to_ints
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axes

_FAR = 1 << 30  # exporters write INT_MAX, or the like, for "to the end": further than any axis reaches


def infer_slice(
    data: TensorType,
    starts: TensorType,
    ends: TensorType,
    axes: TensorType | None = None,
    steps: TensorType | None = None,
) -> TensorType:
    """``data`` with the named axes cut; how long they become may hang on the sizes (``min(seq,4)`` for ``x[:4]``)."""
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
    """``data`` cut along the named axes; a view.

    Bounds follow Python's rules but for one: a step backwards from before the axis begins at its first element.
    Source: ONNX Slice-13.
    """
    first, last = to_ints(starts), to_ints(ends)
    chosen: Sequence[int] = range(len(first)) if axes is None else to_ints(axes)
    stride = [1] * len(first) if steps is None else to_ints(steps)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(first, last, chosen, stride, strict=True):
        index[axis] = _python_slice(data.shape[axis], start, end, step)
    return data[tuple(index)]


def positions(size: int, start: int, end: int, step: int) -> range:
    """Which elements start:end:step takes of an axis of ``size`` elements."""
    return range(*_python_slice(size, start, end, step).indices(size))


def _python_slice(size: int, start: int, end: int, step: int) -> slice:
    return slice(0 if step < 0 and start < -size else start, end, step)


def _length(dim: Dim, start: Dim, end: Dim, step: int) -> Dim:
    """How many elements start:end:step takes of an axis of ``dim`` elements."""
    if step == 0:
        raise ModelError("Slice step is 0")
    if isinstance(dim, int) and isinstance(start, int) and isinstance(end, int):
        return len(positions(dim, start, end, step))
    if step > 0:
        # From max(start, 0) up to min(end, dim). Rounding up goes well with taking the smaller, so it comes first.
        firsts = _kept_within(_counted(start, dim, 0), 0, dim)
        lasts = [-x for x in _kept_within(-_counted(end, dim, 0), -dim, dim)]
        distances = [last - first for first in firsts for last in lasts]
    else:
        # From min(max(start, 0), dim - 1) down to max(end, -1).
        first = positive_part(_counted(start, dim, 0))
        lasts = _kept_within(_counted(end, dim, -1), -1, dim)
        distances = [x - last for x in (first, dim - 1) for last in lasts]
    length: Dim | None = None
    for distance in dict.fromkeys(distances):
        steps = -(-distance // abs(step))
        steps = steps if is_natural(steps, given=[dim]) else positive_part(steps)
        length = steps if length is None else minimum(length, steps)
    assert length is not None
    return length


def _counted(bound: Dim, dim: Dim, front: int) -> Dim:
    """``bound`` as a position; what is before ``front`` is as good as ``front``. A negative one counts from the end."""
    if isinstance(bound, int):
        if abs(bound) >= _FAR:
            return dim if bound > 0 else front
        return bound + dim if bound < 0 else bound
    if is_natural(bound):
        return bound
    if is_natural(-1 - bound):
        return bound + dim
    if is_natural(front - bound - dim, given=[-1 - bound]):
        return bound  # x[: n - 1] where n is 0: counted from the end it is before the front, too
    is_negative = positive_part(-bound) - positive_part(-bound - 1)
    return bound + dim * is_negative


def _kept_within(position: Dim, least: Dim, dim: Dim) -> list[Dim]:
    """What the larger of ``position`` and ``least`` is the largest of: one of the two where that is clear."""
    if is_natural(position - least, given=[dim]):
        return [position]
    return [least] if is_natural(least - position, given=[dim]) else [position, least]


SLICE = define("Slice", infer=infer_slice, reference=slice_, symbolic=True, shape_operands=(1, 2, 3, 4), moves=True)
