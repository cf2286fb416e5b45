"""Transpose(Transpose(x)) -> Transpose(x), or plain x when the two undo each other."""

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims


def cancel_transposes(graph: Graph) -> int:
    """Gives the number of Transposes that now read the input of the one before, which dies when nobody else reads it."""
    count = 0
    for node in graph.nodes:
        inner = node.inputs[0].producer if node.is_op("Transpose") and node.inputs[0] is not None else None
        if inner is None or not inner.is_op("Transpose"):
            continue
        (x,), outer_perm, inner_perm = inner.inputs, permutation(node), permutation(inner)
        if x is None or outer_perm is None or inner_perm is None:
            continue
        perm = [inner_perm[axis] for axis in outer_perm]
        if perm != sorted(perm):
            x = insert(graph, "Transpose", x, before=node, out=node.output.name, perm=perm)
        graph.replace_node(node, [x])
        count += 1
    return count


def permutation(node: Node) -> list[int] | None:
    """The permutation of a Transpose; None when it is the reversal of an unknown number of axes."""
    perm = node.attrs.get("perm")
    if perm is not None:
        return [int(axis) for axis in perm]
    shape = dims(node.inputs[0])
    return None if shape is None else list(range(len(shape)))[::-1]
