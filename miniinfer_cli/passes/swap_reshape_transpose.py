"""Transpose -> Reshape -> Transpose, where the Reshape merges or splits axes that were neighbours all along -> Reshape
-> Transpose, or a plain Reshape.

The patches of a vision transformer are the usual case: [N,H,W,C] -> [N,C,H,W] -> [N,C,H*W] -> [N,H*W,C] only merges H
and W once the convolution is channels-last.
"""

from collections.abc import Sequence

from miniinfer_cli.ir import Dim, Graph, Node
from miniinfer_cli.ir.dims import product
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.operands import dims, sole_user
from miniinfer_cli.passes.reshape_targets import insert_reshape


def swap_reshape_transpose(graph: Graph) -> int:
    """Gives the number of Transposes moved behind a Reshape, where they meet the next one."""
    count = 0
    for node in graph.nodes:
        if node.is_op("Transpose") and _swap(graph, node):
            count += 1
    return count


def _swap(graph: Graph, transpose: Node) -> bool:
    view = sole_user(graph, transpose.output)
    after = sole_user(graph, view.output) if view is not None and view.is_op(*VIEWS) else None
    x, perm = transpose.inputs[0], permutation(transpose)
    if view is None or after is None or not after.is_op("Transpose") or x is None or perm is None:
        return False
    source, target = dims(transpose.output), dims(view.output)
    groups = None if source is None or target is None else _groups(source, target)
    if groups is None or target is None:
        return False
    order = _order(groups, perm)
    if order is None:
        return False
    # The target axes in the order in which their source axes lie in x, and where each then has to go.
    axes = [axis for g in order for axis in groups[g][1]]
    y = insert_reshape(graph, x, [target[a] for a in axes], before=view, out=f"{view.output.name}_early")
    if y is None:
        return False
    back = [axes.index(a) for a in range(len(target))]
    graph.replace_node(view, [insert(graph, "Transpose", y, before=view, out=view.output.name, perm=back)])
    graph.remove(transpose)
    return True


def _groups(source: Sequence[Dim], target: Sequence[Dim]) -> list[tuple[list[int], list[int]]] | None:
    """Which axes of ``source`` are merged into which axis of ``target``, or split into which; None for anything else."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        merged = next((k for k in range(i + 1, len(source) + 1) if product(source[i:k]) == target[j]), i)
        split = next((k for k in range(j + 1, len(target) + 1) if product(target[j:k]) == source[i]), j)
        if merged == i and split == j:
            return None
        left, right = (merged, j + 1) if merged > i else (i + 1, split)
        groups.append((list(range(i, left)), list(range(j, right))))
        i, j = left, right
    return groups if i == len(source) and j == len(target) else None


def _order(groups: Sequence[tuple[list[int], list[int]]], perm: Sequence[int]) -> list[int] | None:
    """The groups in the order of their axes before the Transpose; None when a group's axes were no neighbours there."""
    for left, _ in groups:
        before = [perm[a] for a in left]
        if before != list(range(before[0], before[0] + len(before))):
            return None
    return sorted(range(len(groups)), key=lambda g: perm[groups[g][0][0]])
