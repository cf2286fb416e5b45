"""QuantizeLinear(Reshape(x)) -> Reshape(QuantizeLinear(x)), and so on: what is going to be integers is moved as integers.

That is so under one scale, for all that moves data, and for MaxPool, since the order of numbers stays. What is quantized as it
was before is as it was.
"""

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.precision.quantized_moves import (
    attrs_of_one_scale,
    dtype_of_value,
    is_float,
    moves_data,
    takes_integers,
    undone,
)


def raise_quantization(graph: Graph) -> int:
    """Gives the number of nodes that move integers from now on, and of those that quantize no more what was so before."""
    fired = 0
    for node in graph.nodes:
        value = node.inputs[0] if node.is_op("QuantizeLinear") else None
        mover = None if value is None else value.producer
        if value is None or mover is None:
            continue
        before = undone(node)
        if before is not None and before.inputs[0] is not None:
            graph.replace_node(node, [before.inputs[0]])
            fired += 1
            continue
        is_alone = len(mover.outputs) == len(value.users) == 1 and not graph.is_output(value)
        if not (moves_data(mover) and is_pointwise(node) and is_alone):
            continue
        floats = [v for v in mover.inputs if v is not None and is_float(v)]
        if any(v.constant is not None for v in floats) or (len(floats) > 1 and not mover.is_op("Concat")):
            continue
        fired += _quantized_before(graph, mover, node)
    return fired


def _quantized_before(graph: Graph, mover: Node, node: Node) -> int:
    dtype = dtype_of_value(node.output)
    if dtype is None or not takes_integers(mover, mover.inputs, dtype):
        return 0
    attrs = attrs_of_one_scale(node)
    inputs = [
        insert(graph, "QuantizeLinear", v, *node.inputs[1:], before=mover, out=f"{v.name}_int", **attrs)
        if v is not None and is_float(v)
        else v
        for v in mover.inputs
    ]
    moved = insert(graph, mover.op, *inputs, before=mover, out=node.output.name, domain=mover.domain, **mover.attrs)
    assert moved.producer is not None
    graph.rename_node(moved.producer, mover.name)
    graph.replace_node(node, [moved])
    graph.remove(mover)
    return 1
