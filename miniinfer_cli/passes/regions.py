"""Regions: how a pass moves nodes into the body of one node that stands for all of them."""

from collections.abc import Sequence

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops import OURS


def make_region(graph: Graph, op: str, nodes: Sequence[Node]) -> Node:
    """Replaces ``nodes``, given in graph order, by one node with them as its body, in the place of the last of them.

    Its outputs are the values that others read, in order; its inputs what the nodes read from outside, in order of first
    use. A constant of one element is not an input: the body holds it, where a generated kernel finds it as a literal.
    The caller sees to it that no path leaves the nodes and comes back, and that what reads an output stands behind them
    (or sorts the graph afterwards).
    """
    members = set(nodes)
    made = [v for n in nodes for v in n.outputs]
    leaving = [v for v in made if graph.is_output(v) or any(u not in members for u in v.users)]
    body = Graph(op)
    inner: dict[Value, Value] = {}
    outer: list[Value] = []
    for value in dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v.producer not in members):
        if value.constant is not None and _is_literal(value):
            inner[value] = body.add_constant(value.constant, value.name)
        else:
            inner[value] = body.add_input(value.name, value.type)
            outer.append(value)
    for node in nodes:
        outputs = [body.new_value(v.name, v.type) for v in node.outputs]
        inputs = [None if v is None else inner[v] for v in node.inputs]
        body.add_node(node.op, inputs, outputs, domain=node.domain, name=node.name, attrs=node.attrs)
        inner.update(zip(node.outputs, outputs, strict=True))
    body.set_outputs([inner[v] for v in leaving])
    fresh = [graph.new_value(v.name, v.type) for v in leaving]
    region = graph.add_node(op, outer, fresh, domain=OURS, name=nodes[0].name, body=body, before=nodes[-1])
    replacement = dict(zip(leaving, fresh, strict=True))
    for node in reversed(nodes):
        if node.outputs[0] in replacement:
            graph.replace_node(node, [replacement[node.output]])
        else:
            graph.remove(node)
    return region


def dissolve_region(graph: Graph, region: Node) -> None:
    """The reverse of ``make_region``: the body's nodes take the region's place."""
    if region.body is not None:
        graph.replace_node(region, graph.inline(region.body, region.inputs, before=region))


def _is_literal(value: Value) -> bool:
    type = value.type
    return isinstance(type, TensorType) and type.known is not None and type.known.size == 1 and type.dtype is not DType.STR
