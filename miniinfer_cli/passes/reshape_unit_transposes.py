"""Transpose that only moves axes of size 1 -> Reshape, which moves no data and merges with its neighbours.

The pooled end of a convolutional net, [N,1,1,C] back to [N,C,1,1], is the usual case.
"""

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.reshape_targets import insert_reshape


def reshape_unit_transposes(graph: Graph) -> int:
    """Gives the number of Transposes replaced."""
    count = 0
    for node in graph.nodes:
        x = node.inputs[0] if node.is_op("Transpose") else None
        shape, perm = dims(x), permutation(node) if x is not None else None
        if x is None or shape is None or perm is None:
            continue
        moved = [axis for axis in perm if shape[axis] != 1]
        value = (
            insert_reshape(graph, x, [shape[a] for a in perm], before=node, out=node.output.name)
            if moved == sorted(moved)
            else None
        )
        if value is not None:
            graph.replace_node(node, [value])
            count += 1
    return count
