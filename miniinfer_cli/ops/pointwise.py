"""Whether a node is pointwise: what its operation says of it."""

from miniinfer_cli.ir import Node
from miniinfer_cli.ops.registry import find


def is_pointwise(node: Node) -> bool:
    """True when each output element of ``node`` depends only on the input elements that broadcast onto it."""
    opdef = find(node.domain, node.op)
    if opdef is None or node.body is not None:
        return False
    if opdef.pointwise_if is None:
        return opdef.pointwise
    return opdef.pointwise_if([None if v is None else v.type for v in node.inputs])
