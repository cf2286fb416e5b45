"""What graphs of quantized tensors are made of, as passes and backends ask for it: who dequantizes a value, and who moves one."""

from miniinfer_cli.ir import Node, Value
from miniinfer_cli.ops.registry import find


def dequantizing(value: Value | None) -> Node | None:
    """The DequantizeLinear that makes ``value``; None for any other."""
    node = None if value is None else value.producer
    return node if node is not None and node.is_op("DequantizeLinear") else None


def only_moves(node: Node) -> bool:
    """Whether all that the node gives are elements of what it reads: in other places, under other sizes, or some of them."""
    opdef = find(node.domain, node.op)
    return opdef is not None and (opdef.moves or opdef.view) and not node.graphs and bool(node.outputs)
