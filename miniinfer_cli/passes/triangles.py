"""Matrices of two numbers: one on and below the diagonal of the last two axes, another above it.

That is what a causal mask is, and every pointwise function of one is one again: ``Where(tril == 0, -inf, 0)`` is known to be
0 and minus infinity by computing it on the two numbers. A tensor that is one number everywhere counts too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.ir import Constant, DType, Node, TensorType, Value, numpy_dtype
from miniinfer_cli.ops import lookup
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.operands import dims, known_ints, scalar
from miniinfer_cli.passes.positions import affine, difference

_DEPTH = 16
_LARGEST = 1 << 22  # elements of a constant that are worth looking at: a mask of 2048 positions
_COMPARISONS = ("LessOrEqual", "GreaterOrEqual", "Less", "Greater")
_POINTWISE = ("Where", "Not", "And", "Or", "Equal", *_COMPARISONS, "Cast", "Add", "Sub", "Mul", "Neg")


@dataclass(frozen=True, slots=True)
class Triangle:
    """``lower`` where the column is at most the row (both counted from 0), ``upper`` elsewhere."""

    lower: Any
    upper: Any

    @property
    def is_uniform(self) -> bool:
        """True when it is one number everywhere."""
        return bool(self.lower == self.upper)


CAUSAL = Triangle(True, False)


def triangle(value: Value | None) -> Triangle | None:
    """The two numbers of ``value``, Python's; None when it is not known to be such a matrix."""
    return _triangle(value, _DEPTH)


def uniform(value: Value | None) -> Any:
    """The number that every element of ``value`` is; None when that is not known."""
    found = triangle(value)
    return found.lower if found is not None and found.is_uniform else None


def _triangle(value: Value | None, depth: int) -> Triangle | None:
    if value is None or depth == 0 or not isinstance(value.type, TensorType):
        return None
    number = scalar(value)
    if number is not None:
        return Triangle(number, number)
    if value.constant is not None:
        return _of_constant(value.constant)
    counted = affine(value)
    if counted is not None and not counted.strides and isinstance(counted.offset, int):
        number = bool(counted.offset) if value.type.dtype == "bool" else counted.offset
        return Triangle(number, number)
    node = value.producer
    if node is None or node.domain or len(node.outputs) != 1:
        return None
    if node.op in _COMPARISONS:
        found = _comparison(node)
        if found is not None:
            return found
    if node.op == "Trilu":
        return _trilu(node, _triangle(node.inputs[0], depth - 1))
    if node.op == "ConstantOfShape":
        fill = np.asarray(node.attrs.get("value", np.zeros(1, np.float32))).reshape(-1)[0].item()
        return Triangle(fill, fill)
    if node.op in VIEWS or node.op in ("Identity", "Expand", "Slice"):
        return _moved(node, _triangle(node.inputs[0], depth - 1))
    return _computed(node, depth) if node.op in _POINTWISE else None


def _of_constant(handle: Constant) -> Triangle | None:
    if handle.dtype is DType.STR or not 0 < handle.size <= _LARGEST:
        return None
    if not handle.is_small and len(handle.shape) >= 2:
        # A look at the first corner tells weights from masks without reading them.
        corner = handle.block((*(slice(0, 1) for _ in handle.shape[:-2]), *(slice(0, min(n, 2)) for n in handle.shape[-2:])))
        if len(np.unique(np.diagonal(corner, axis1=-2, axis2=-1))) > 1:
            return None
    data = handle.array()
    first, last = data[(0,) * data.ndim], data[(0,) * (data.ndim - 1) + (-1,)]  # row 0 sees column 0 alone
    if np.all(data == first):
        return Triangle(first.item(), first.item())
    if data.ndim < 2:
        return None
    expected = np.where(np.tri(*data.shape[-2:], dtype=np.bool_), first, last)
    return Triangle(first.item(), last.item()) if np.array_equal(data, np.broadcast_to(expected, data.shape)) else None


def _comparison(node: Node) -> Triangle | None:
    """A comparison of two counts whose truth is that of ``column <= row``, or the opposite."""
    a, b = node.inputs if node.op.startswith("Less") else node.inputs[::-1]
    gap = difference(b, a)  # a <= b where it is at least 0, a < b where it is at least 1
    if gap is None or not isinstance(gap.offset, int) or gap.strides.keys() != {-1, -2}:
        return None
    limit = gap.offset - (0 if node.op.endswith("Equal") else 1)
    if (gap.strides[-2], gap.strides[-1], limit) == (1, -1, 0):
        return Triangle(True, False)
    return Triangle(False, True) if (gap.strides[-2], gap.strides[-1], limit) == (-1, 1, -1) else None


def _trilu(node: Node, inner: Triangle | None) -> Triangle | None:
    shift = (known_ints(node.inputs[1]) or (None,))[0] if len(node.inputs) > 1 and node.inputs[1] is not None else 0
    if inner is None:
        return None
    zero = type(inner.lower)(0)
    if node.attrs.get("upper", 1):
        return Triangle(zero, inner.upper) if shift == 1 else None
    return Triangle(inner.lower, zero) if shift == 0 else None


def _moved(node: Node, inner: Triangle | None) -> Triangle | None:
    """A view, a repetition, or a part that starts at the diagonal's start."""
    if inner is None or inner.is_uniform:
        return inner
    before, after = dims(node.inputs[0]), dims(node.output)
    if before is None or after is None or len(after) < 2:
        return None
    if node.op != "Slice":
        return inner if before[-2:] == after[-2:] else None
    starts, steps = known_ints(node.inputs[1]), known_ints(node.inputs[4]) if len(node.inputs) > 4 else None
    axes = known_ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    if starts is None:
        return None
    for i, start in enumerate(starts):
        axis = axes[i] if axes is not None else i
        if axis % len(before) >= len(before) - 2 and (start != 0 or (steps is not None and steps[i] != 1)):
            return None
    return inner


def _computed(node: Node, depth: int) -> Triangle | None:
    shape, kinds = dims(node.output), []
    operands: list[Any] = []
    for value in node.inputs:
        if value is None:
            operands.append(None)
            continue
        found = _triangle(value, depth - 1)
        if found is None or shape is None or not (found.is_uniform or (dims(value) or ())[-2:] == shape[-2:]):
            return None
        kinds.append(found)
        operands.append(np.array([found.lower, found.upper], numpy_dtype(value.tensor.dtype)))
    if not kinds:
        return None
    with np.errstate(all="ignore"):
        (result,) = lookup(node.domain, node.op).evaluate(operands, node.attrs, n_outputs=1)
    lower, upper = np.broadcast_to(result, 2)
    return Triangle(lower.item(), upper.item())
