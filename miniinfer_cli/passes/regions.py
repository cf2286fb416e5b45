"""Regions: how a pass moves nodes into the body of one node that stands for all of them."""

from collections.abc import Sequence

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import copy_node, is_literal, leaving, reading
from miniinfer_cli.ops import OURS


def make_region(graph: Graph, op: str, nodes: Sequence[Node], name: str = "") -> Node:
    """Replaces ``nodes``, given in graph order, by one node with them as its body, in the place of the last of them.

    Its outputs are the values that others read, in order; its inputs what the nodes read from outside, in order of first
    use. A constant of one element is not an input: the body holds it, where a generated kernel finds it as a literal.
    ``name``: of the region; that of its first node without it. The caller sees to it that no path leaves the nodes and comes
    back, and that what reads an output stands behind them (or sorts the graph afterwards).
    """
    left = leaving(graph, nodes)
    body = Graph(op)
    inner: dict[Value, Value] = {}
    outer: list[Value] = []
    for value in reading(nodes):
        if is_literal(value):
            inner[value] = body.add_constant(value.constant, value.name)
        else:
            inner[value] = body.add_input(value.name, value.type)
            outer.append(value)
    for node in nodes:
        copy_node(body, node, inner)
    body.set_outputs([inner[v] for v in left])
    fresh = [graph.new_value(v.name, v.type) for v in left]
    origins = [name for node in nodes for name in node.known_origins]
    region = graph.add_node(
        op, outer, fresh, domain=OURS, name=name or nodes[0].name, body=body, before=nodes[-1], origins=origins
    )
    replacement = dict(zip(left, fresh, strict=True))
    for node in reversed(nodes):
        if node.outputs[0] in replacement:
            graph.replace_node(node, [replacement[node.output]])
        else:
            graph.remove(node)
    return region
