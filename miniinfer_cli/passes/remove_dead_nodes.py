"""Removes the nodes whose results nobody reads."""

from miniinfer_cli.ir import Graph


def remove_dead_nodes(graph: Graph) -> int:
    """Gives the number of nodes removed. One backward walk is enough: a node's readers all stand after it."""
    returned = set(graph.outputs)
    removed = 0
    for node in reversed(graph.nodes):
        if not any(v.users or v in returned for v in node.outputs):
            graph.remove(node)
            removed += 1
    return removed
