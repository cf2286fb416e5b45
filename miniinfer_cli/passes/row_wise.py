"""Operations that work on each row by itself: which axis of an operand is one of the result, and whether fewer rows save work."""

from collections.abc import Sequence

from miniinfer_cli.ir import Dim, Graph, Node
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.operands import dims, sole_user

NORMALIZATIONS = ("LayerNormalization", "RMSNormalization")
SOFTMAX = ("Softmax", "LogSoftmax")
_FURTHEST = 8  # pointwise operations in a row that are looked through

Axes = tuple[int | None, ...]


def axes_of_rows(node: Node, axis: int) -> Axes:
    """For each operand, which of its axes the result's ``axis`` is: None where it has none, or is repeated along it.

    Empty where an element of the result depends on elements from elsewhere along the axis.
    """
    shape = dims(node.output) if len(node.outputs) == 1 else None
    if shape is None or node.graphs or node.body is not None:
        return ()
    rank = len(shape)
    if node.is_op("MatMul"):
        first, second = (len(dims(v) or ()) for v in node.inputs)
        if min(first, second) < 2 or axis == rank - 1:
            return ()
        return (first - 2, None) if axis == rank - 2 else _broadcast(node, axis, shape)
    if node.is_op(*NORMALIZATIONS):
        axes = _broadcast(node, axis, shape)
        return axes if axis < node.attrs.get("axis", -1) % rank and axes[1:] == (None,) * len(axes[1:]) else ()
    if node.is_op("Attention"):
        return _queries(node, axis, rank)
    if node.is_op(*SOFTMAX):
        return (axis,) if axis != node.attrs.get("axis", -1) % rank else ()
    return _broadcast(node, axis, shape) if is_pointwise(node) and axis < rank - 1 else ()


def _queries(node: Node, axis: int, rank: int) -> Axes:
    """The same for attention over all keys that there are: of queries ``[batch, length, width]``, or with heads before length."""
    operands = dict(enumerate(node.inputs))
    length = dims(operands[0])
    if axis != rank - 2 or length is None or len(length) != rank or any(operands.get(i) is not None for i in (4, 5, 6)):
        return ()
    if any(node.attrs.get(f"{side}_window_size", -1) >= 0 for side in ("left", "right")):
        return ()
    mask = operands.get(3)
    if mask is None:
        return (axis, *(None for _ in node.inputs[1:]))
    shape = dims(mask)
    if shape is None or len(shape) < 2 or shape[-2] not in (1, length[axis]):
        return ()
    return (axis, None, None, None if shape[-2] == 1 else len(shape) - 2, *(None for _ in node.inputs[4:]))


def _broadcast(node: Node, axis: int, shape: Sequence[Dim]) -> Axes:
    """The same for operands that are broadcast to the result; empty where it is not known whether one is repeated."""
    found: list[int | None] = []
    for value in node.inputs:
        own = () if value is None else dims(value)
        if own is None:
            return ()
        at = axis - (len(shape) - len(own))
        if at < 0 or own[at] == 1:
            found.append(None)
        elif own[at] == shape[axis]:
            found.append(at)
        else:
            return ()
    return tuple(found)


def pays(graph: Graph, node: Node, axis: int, depth: int = 0) -> bool:
    """True where fewer rows save work: of a product or a normalization, at once or behind pointwise operations."""
    if node.is_op("MatMul", "Attention", *NORMALIZATIONS, *SOFTMAX):
        return True
    if depth == _FURTHEST:
        return False
    operands = [(v, a) for v, a in zip(node.inputs, axes_of_rows(node, axis), strict=False) if v is not None and a is not None]
    above = [(v.producer, a) for v, a in operands if v.producer is not None and sole_user(graph, v) is node]
    return any(axes_of_rows(n, a) and pays(graph, n, a, depth + 1) for n, a in above)
