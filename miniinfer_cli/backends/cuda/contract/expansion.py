"""A node as a graph of more primitive nodes, by its operation's own expansion."""

from collections.abc import Sequence

from miniinfer_cli.ir import Graph, Node, Type
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.registry import lookup


def expand_node(node: Node, types: Sequence[Type | None]) -> Graph | None:
    """A graph with the node's inputs (those that are not None) and outputs; None where there is nothing more primitive."""
    expand = lookup(node.domain, node.op).expand
    if expand is None:
        return None
    graph = Graph(node.op)
    values = [None if t is None else graph.add_input(f"x{i}", t) for i, t in enumerate(types)]
    results = [graph.new_value(v.name) for v in node.outputs]
    inner = graph.add_node(node.op, values, results, domain=node.domain, name=node.name, attrs=node.attrs)
    inferred = infer_graph(graph, [v.type for v in graph.inputs])
    for value in results:
        graph.set_type(value, inferred[value])
    replaced = expand(graph, inner)
    if replaced is None:
        return None
    graph.set_outputs(list(replaced)[: len(results)])  # the node may leave its last ones out
    graph.remove(inner)
    return graph
