"""Reshape and Expand to a shape worked out at run time -> to a constant one, where the dimensions that inference found allow.

Exporters compute targets like (batch, seq, 12, 64) from Shape, Gather and Concat; as the constant [0, 0, 12, 64] they need
none of that, and what computed them goes as dead code.
"""

import numpy as np

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.reshape_targets import may_not_fit, reshape_target


def simplify_shape_operands(graph: Graph) -> int:
    """Gives the number of operands that became constants."""
    count = 0
    for node in graph.nodes:
        if not node.is_op("Reshape", "Expand") or node.inputs[1] is None or node.inputs[1].constant is not None:
            continue
        target = _reshape(node) if node.op == "Reshape" else _expand(node)
        if target is not None:
            operand = graph.add_constant(np.array(target, np.int64), f"{node.output.name}_shape")
            value = insert(graph, node.op, node.inputs[0], operand, before=node, out=node.output.name)
            graph.replace_node(node, [value])
            count += 1
    return count


def _reshape(node: Node) -> list[int] | None:
    """A target that may not fit stays: a constant that takes what is left over would fit everything."""
    source, target = dims(node.inputs[0]), dims(node.output)
    return None if source is None or target is None or may_not_fit(node) else reshape_target(source, target)


def _expand(node: Node) -> list[int] | None:
    """A dimension that the input has already is asked for as 1."""
    source, target = dims(node.inputs[0]), dims(node.output)
    if source is None or target is None:
        return None
    source = (1,) * (len(target) - len(source)) + source
    items = [1 if s == t else t for s, t in zip(source, target, strict=True)]
    return [i for i in items if isinstance(i, int)] if all(isinstance(i, int) for i in items) else None
