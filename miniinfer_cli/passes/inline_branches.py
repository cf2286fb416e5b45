"""If with a known condition -> the nodes of the branch that it takes."""

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.operands import scalar


def inline_branches(graph: Graph) -> int:
    """Gives the number of Ifs replaced."""
    count = 0
    for node in graph.nodes:
        condition = scalar(node.inputs[0]) if node.is_op("If") else None
        if condition is not None:
            branch = node.graphs["then_branch" if condition else "else_branch"]
            graph.replace_node(node, graph.inline(branch, node.inputs[1:], before=node)[: len(node.outputs)])
            count += 1
    return count
