"""Which inputs of a graph decide shapes by their contents, so that a program must be made for those contents."""

import math

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops.registry import lookup

_LIMIT = 64  # elements; a larger input is data (token ids), not a shape
_SCALES = frozenset({DType.F32, DType.F64, DType.F16})  # as Resize and OneHot take them


def shape_inputs(graph: Graph) -> frozenset[int]:
    """Numbers of the small inputs whose contents reach an operand that decides the shape of a result.

    Found by walking back from the operands of which ``OpDef.shape_operands`` tells, through nodes that compute on
    small tensors only. What larger inputs take part in is not known ahead, whatever the small ones hold: the sizes of a box
    that a loop's counter chooses.
    """
    known = _known_from_small(graph)
    reaching: set[Value] = set()
    for node in reversed(graph.nodes):
        if any(v in reaching for v in node.outputs) and not node.is_op("Shape", "Size"):
            reaching.update(v for v in node.inputs if v is not None)
        reaching.update(v for v in _shape_operands(node) if v in known)
    return frozenset(i for i, v in enumerate(graph.inputs) if v in reaching)


def _known_from_small(graph: Graph) -> set[Value]:
    """The values that follow from the contents of small inputs, and from shapes."""
    known = {v for v in graph.inputs if may_be_shape(v)}
    for node in graph:
        if node.is_op("Shape", "Size") or all(v is None or v.constant is not None or v in known for v in node.inputs):
            known.update(node.outputs)
    return known


def _shape_operands(node: Node) -> list[Value]:
    if node.body is not None:
        return []
    wanted = lookup(node.domain, node.op).shape_operands
    return [v for i in wanted if i < len(node.inputs) and (v := node.inputs[i]) is not None]


def is_small(value: Value) -> bool:
    """True for a tensor of known shape with few elements: its contents may be a shape or a choice, not data."""
    kind = value.type
    return isinstance(kind, TensorType) and kind.is_static and math.prod(kind.shape or ()) <= _LIMIT


def may_be_shape(value: Value) -> bool:
    """True for a small tensor of integers, or of floats as Resize takes them."""
    kind = value.type
    return isinstance(kind, TensorType) and (kind.dtype.is_integer or kind.dtype in _SCALES) and is_small(value)
