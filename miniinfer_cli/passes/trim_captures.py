"""Captures of If, Loop and Scan: constants move into the sub-graphs, where they fold, and what no sub-graph reads goes."""

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ops import find


def trim_captures(graph: Graph) -> int:
    """Gives the number of captures removed."""
    return sum(_trim(graph, node) for node in graph.nodes if _has_control(node))


def _has_control(node: Node) -> bool:
    opdef = find(node.domain, node.op)
    return opdef is not None and opdef.control


def _trim(graph: Graph, node: Node) -> int:
    count = len(node.inputs) - 1 if node.op == "If" else int(node.attrs.get("n_captures", 0))
    removed = 0
    # From the last one on: captures are the trailing inputs of the node and of its sub-graphs.
    for back in range(1, count + 1):
        place = back - removed
        outer = node.inputs[-place]
        parameters = [(inner, inner.inputs[-place]) for inner in node.graphs.values()]
        if outer is not None and outer.constant is not None:
            for inner, parameter in parameters:
                if parameter.users or inner.is_output(parameter):
                    inner.replace_uses(parameter, inner.add_constant(outer.constant, outer.name))
        if any(parameter.users or inner.is_output(parameter) for inner, parameter in parameters):
            continue
        for inner, parameter in parameters:
            inner.remove_input(parameter)
        graph.set_inputs(node, (*node.inputs[: len(node.inputs) - place], *node.inputs[len(node.inputs) - place + 1 :]))
        removed += 1
    if removed and node.op != "If":
        graph.set_attribute(node, "n_captures", count - removed)
    return removed
