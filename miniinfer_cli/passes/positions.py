"""Integers that count positions: tensors that are an affine function of their own indices, known without running.

Exporters build masks and indices out of Range, Unsqueeze, Expand, Add and so on. Seen as ``offset + sum of stride * index``,
two of them can be compared: their difference says where one is at most the other, whatever the sizes turn out to be. A
boolean tensor counts as 0 and 1, and is known where a comparison comes out the same for all indices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from miniinfer_cli.ir import Array, Dim, DType, Node, TensorType, Value
from miniinfer_cli.ir.dims import assuming, lower_bound
from miniinfer_cli.passes.operands import dims, known_ints, scalar

_DEPTH = 40


@dataclass(frozen=True, slots=True)
class Affine:
    """``offset + sum(strides[axis] * index[axis])``; axes count from the end and have a stride only if it is not 0."""

    offset: Dim
    strides: Mapping[int, Dim] = field(default_factory=dict)


def affine(value: Value | None) -> Affine | None:
    """What an integer or boolean tensor is as an affine function of its indices; None when it is not known to be one."""
    return _affine(value, _DEPTH)


def least(found: Affine, shape: Sequence[Dim]) -> int | None:
    """A number that ``found`` is never below in a tensor of this shape; None when there is none to be told."""
    lowest, filled = found.offset, _filled(shape)
    for axis, stride in found.strides.items():
        bound = lower_bound(stride, filled)
        if bound is None or bound < 0:
            lowest = lowest + stride * (shape[axis] - 1)
    return lower_bound(lowest, filled)


def difference(a: Value | None, b: Value | None) -> Affine | None:
    """``a - b`` where the two broadcast against each other; None when it is not known."""
    left, right = affine(a), affine(b)
    if left is None or right is None:
        return None
    shapes = (dims(a), dims(b))
    return _combine([left, right], [s or () for s in shapes], lambda x, y: x - y)


def _filled(shape: Sequence[Dim]) -> list[Dim]:
    """What is not negative where a tensor of this shape has an element: what is said of its elements is said for then."""
    return [d - 1 for d in shape if not isinstance(d, int)]


def _affine(value: Value | None, depth: int) -> Affine | None:
    if value is None or depth == 0 or not isinstance(value.type, TensorType) or value.type.shape is None:
        return None
    shape, dtype = value.type.shape, value.type.dtype
    if dtype is not DType.BOOL and not (dtype.is_integer and dtype.bits >= 32):
        return None
    known = value.type.known
    if known is not None and known.size == 1:
        item = known.reshape(-1)[0]
        return Affine(int(item) if isinstance(item, (int, np.integer)) else item)
    number = scalar(value)
    if number is not None:
        return Affine(int(number))
    if known is not None and known.dtype != object:
        return _of_array(known.astype(np.int64))
    node = value.producer
    rule = _RULES.get(node.op) if node is not None and not node.domain else None
    if node is None or rule is None:
        return None
    parts = [_affine(v, depth - 1) for v in node.inputs[: 1 if node.op in _OF_FIRST else None]]
    found = None if any(p is None for p in parts) else rule(node, [p for p in parts if p is not None])
    if found is None:
        return None
    # An axis of size 1 has only the index 0.
    filled = _filled(shape)
    return Affine(found.offset, {a: s for a, s in found.strides.items() if s != 0 and assuming(shape[a], filled) != 1})


_MOST = 1 << 56  # beyond every size; sums over all axes are still counted in 64 bits


def _of_array(known: Array) -> Affine | None:
    if not known.size:
        return None
    first = int(known.reshape(-1)[0])
    strides: dict[int, Dim] = {}
    expected = np.full((), first)
    for axis in range(-known.ndim, 0):
        if known.shape[axis] > 1:
            stride = int(np.take(known, 1, axis).reshape(-1)[0]) - first
            if stride:
                strides[axis] = stride
            if abs(first) > _MOST or abs(stride) * known.shape[axis] > _MOST:
                return None
            expected = expected + (np.arange(known.shape[axis]) * stride).reshape(-1, *(1,) * (-axis - 1))
    return Affine(first, strides) if np.array_equal(np.broadcast_to(expected, known.shape), known) else None


def _uniform(node: Node, parts: Sequence[Affine]) -> Affine | None:
    """Whatever picks elements of one number gives that number."""
    return None if parts[0].strides else parts[0]


def _running_sum(node: Node, parts: Sequence[Affine]) -> Affine | None:
    return parts[0] if parts[0] == Affine(0) else None


def _not(node: Node, parts: Sequence[Affine]) -> Affine | None:
    return Affine(1 - parts[0].offset) if not parts[0].strides else None


def _and(node: Node, parts: Sequence[Affine]) -> Affine | None:
    return Affine(parts[0].offset * parts[1].offset) if not parts[0].strides and not parts[1].strides else None


def _compare(node: Node, parts: Sequence[Affine]) -> Affine | None:
    """0 or 1 where the comparison comes out the same for every pair of indices."""
    shape = dims(node.output)
    gap = _combine(parts, [dims(v) or () for v in node.inputs], lambda x, y: y - x)
    if gap is None or shape is None:
        return None
    low, high = least(gap, shape), least(Affine(-gap.offset, {a: -s for a, s in gap.strides.items()}), shape)
    if node.op == "Equal":
        truth = True if low == high == 0 else False if (low or 0) > 0 or (high or 0) > 0 else None
    elif node.op in ("LessOrEqual", "Less"):
        strict = int(node.op == "Less")
        truth = True if low is not None and low >= strict else False if high is not None and high >= 1 - strict else None
    else:
        strict = int(node.op == "Greater")
        truth = True if high is not None and high >= strict else False if low is not None and low >= 1 - strict else None
    return None if truth is None else Affine(int(truth))


def _range(node: Node, parts: Sequence[Affine]) -> Affine | None:
    start, _, step = parts
    return Affine(start.offset, {-1: step.offset})


def _same(node: Node, parts: Sequence[Affine]) -> Affine | None:
    return parts[0]


def _view(node: Node, parts: Sequence[Affine]) -> Affine | None:
    """Reshape and its kin, as long as they only move axes of size 1."""
    before, after = dims(node.inputs[0]), dims(node.output)
    if before is None or after is None:
        return None
    sources = [a for a in range(-len(before), 0) if before[a] != 1]
    targets = [a for a in range(-len(after), 0) if after[a] != 1]
    if [before[a] for a in sources] != [after[a] for a in targets]:
        return Affine(parts[0].offset) if not parts[0].strides else None
    moved = dict(zip(sources, targets, strict=True))
    return Affine(parts[0].offset, {moved[a]: s for a, s in parts[0].strides.items()})


def _transpose(node: Node, parts: Sequence[Affine]) -> Affine | None:
    shape = dims(node.output)
    if shape is None:
        return None
    perm = node.attrs.get("perm", range(len(shape))[::-1])
    return Affine(parts[0].offset, {perm.index(a + len(shape)) - len(shape): s for a, s in parts[0].strides.items()})


def _expand(node: Node, parts: Sequence[Affine]) -> Affine | None:
    before, after = dims(node.inputs[0]), dims(node.output)
    if before is None or after is None or any(before[a] != after[a] for a in parts[0].strides):
        return None
    return parts[0]


def _slice(node: Node, parts: Sequence[Affine]) -> Affine | None:
    shape = dims(node.inputs[0])
    starts = known_ints(node.inputs[1])
    axes = known_ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    steps = known_ints(node.inputs[4]) if len(node.inputs) > 4 else None
    if shape is None or starts is None:
        return parts[0] if not parts[0].strides else None
    axes = axes or tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    offset, strides = parts[0].offset, dict(parts[0].strides)
    for axis, start, step in zip(axes, starts, steps, strict=True):
        axis = axis - len(shape) if axis >= 0 else axis
        if axis in strides:
            if start < 0 or step < 1:
                return None  # where it starts depends on the size
            offset = offset + strides[axis] * start
            strides[axis] = strides[axis] * step
    return Affine(offset, strides)


def _concat(node: Node, parts: Sequence[Affine]) -> Affine | None:
    """Parts that continue each other along the axis, and are the same along the others."""
    shapes = [dims(v) for v in node.inputs]
    rank = len(dims(node.output) or ())
    axis = node.attrs["axis"] - rank if node.attrs["axis"] >= 0 else node.attrs["axis"]
    if any(s is None or len(s) != rank for s in shapes) or len(parts) < 2:
        return None
    filled = _filled(dims(node.output) or ())
    sizes = [assuming((s or ())[axis], filled) for s in shapes]
    stride = next(
        (p.strides.get(axis, 0) for p, n in zip(parts, sizes, strict=True) if n != 1), parts[1].offset - parts[0].offset
    )
    rest = [{a: s for a, s in p.strides.items() if a != axis} for p in parts]
    at = parts[0].offset
    for part, size, others in zip(parts, sizes, rest, strict=True):
        if part.offset != at or others != rest[0] or (size != 1 and part.strides.get(axis, 0) != stride):
            return None
        at = at + stride * size
    return Affine(parts[0].offset, {**rest[0], axis: stride})


def _pairwise(function: Callable[[Dim, Dim], Dim]) -> Callable[[Node, Sequence[Affine]], Affine | None]:
    def rule(node: Node, parts: Sequence[Affine]) -> Affine | None:
        return _combine(parts, [dims(v) or () for v in node.inputs], function)

    return rule


def _multiply(node: Node, parts: Sequence[Affine]) -> Affine | None:
    a, b = parts if not parts[1].strides else parts[::-1]
    if b.strides or not _broadcasts_whole(parts, [dims(v) or () for v in node.inputs]):
        return None
    return Affine(a.offset * b.offset, {axis: s * b.offset for axis, s in a.strides.items()})


def _combine(parts: Sequence[Affine], shapes: Sequence[Sequence[Dim]], function: Callable[[Dim, Dim], Dim]) -> Affine | None:
    if not _broadcasts_whole(parts, shapes):
        return None
    a, b = parts
    strides = {axis: function(a.strides.get(axis, 0), b.strides.get(axis, 0)) for axis in {**a.strides, **b.strides}}
    return Affine(function(a.offset, b.offset), {axis: s for axis, s in strides.items() if s != 0})


def _broadcasts_whole(parts: Sequence[Affine], shapes: Sequence[Sequence[Dim]]) -> bool:
    """True when no operand could turn out to have size 1 on an axis that it counts along and be repeated there."""
    for part, shape in zip(parts, shapes, strict=True):
        for axis in part.strides:
            if any(len(other) >= -axis and other[axis] not in (1, shape[axis]) for other in shapes):
                return False
    return True


_RULES: dict[str, Callable[[Node, Sequence[Affine]], Affine | None]] = {
    "Range": _range,
    "Identity": _same,
    "Cast": _same,
    "Reshape": _view,
    "Unsqueeze": _view,
    "Squeeze": _view,
    "Flatten": _view,
    "Transpose": _transpose,
    "Expand": _expand,
    "Slice": _slice,
    "Concat": _concat,
    "Add": _pairwise(lambda a, b: a + b),
    "Sub": _pairwise(lambda a, b: a - b),
    "Mul": _multiply,
    "Gather": _uniform,
    "GatherND": _uniform,
    "CumSum": _running_sum,
    "Not": _not,
    "And": _and,
    "Equal": _compare,
    "Less": _compare,
    "LessOrEqual": _compare,
    "Greater": _compare,
    "GreaterOrEqual": _compare,
}
_OF_FIRST = frozenset(
    ("Cast", "CumSum", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
     "Unsqueeze")
)  # fmt: skip
