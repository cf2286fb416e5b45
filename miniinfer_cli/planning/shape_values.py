"""Which inputs of a graph decide shapes by their contents, so that a program must be made for those contents."""

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops.registry import lookup

_LIMIT = 64  # elements; a larger input is data (token ids), not a shape
_SCALES = frozenset({DType.F32, DType.F64, DType.F16})  # as Resize and OneHot take them


def shape_inputs(graph: Graph) -> frozenset[int]:
    """Numbers of the small inputs whose contents reach an operand that decides the shape of a result.

    Found by walking back from the operands of which ``OpDef.shape_operands`` tells, through nodes that compute on
    small tensors only.
    """
    reaching: set[Value] = set()
    for node in reversed(graph.nodes):
        if any(v in reaching for v in node.outputs) and not node.is_op("Shape", "Size"):
            reaching.update(v for v in node.inputs if v is not None)
        reaching.update(v for v in _shape_operands(node) if v.constant is None)
    return frozenset(i for i, v in enumerate(graph.inputs) if v in reaching and _may_be_shape(v))


def _shape_operands(node: Node) -> list[Value]:
    if node.body is not None:
        return []
    wanted = lookup(node.domain, node.op).shape_operands
    return [v for i in wanted if i < len(node.inputs) and (v := node.inputs[i]) is not None]


def _may_be_shape(value: Value) -> bool:
    kind = value.type
    if not isinstance(kind, TensorType) or kind.shape is None or not kind.is_static:
        return False
    if not kind.dtype.is_integer and kind.dtype not in _SCALES:
        return False
    size = 1
    for d in kind.shape:
        assert isinstance(d, int)
        size *= d
    return size <= _LIMIT
