"""Shape operands as constants: how a Reshape reaches symbolic dimensions by copying (0) and by what is left over (-1)."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ir.dims import product
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims


def reshape_target(source: Sequence[Dim], target: Sequence[Dim]) -> list[int] | None:
    """A constant operand with which Reshape takes a tensor of shape ``source`` to ``target``; None when there is none.

    A symbolic dimension is copied from the same place of the source, or left over; only one can be left over.
    """
    items: list[int] = []
    for axis, dim in enumerate(target):
        if isinstance(dim, int):
            if dim == 0:  # in the operand 0 means a copy
                return None
            items.append(dim)
        elif axis < len(source) and source[axis] == dim:
            items.append(0)
        else:
            items.append(-1)
    return items if items.count(-1) <= 1 else None


def may_not_fit(node: Node) -> bool:
    """True for a Reshape whose dimensions do not say that it keeps the number of elements: at some sizes a run may have to refuse
    it, so no other Reshape takes its place. ``x[n,2]`` to ``[n-5,2]`` is one, and what a computed shape asks for.
    """
    if not node.is_op("Reshape"):
        return False
    source, target = dims(node.inputs[0]), dims(node.output)
    return source is None or target is None or product(source) != product(target)


def insert_reshape(graph: Graph, x: Value, shape: Sequence[Dim], *, before: Node, out: str = "") -> Value | None:
    """``x`` under another shape of as many elements, by a Reshape with a constant operand; None when there is none."""
    source = dims(x)
    if source == tuple(shape):
        return x
    target = None if source is None else reshape_target(source, shape)
    if target is None:
        return None
    operand = graph.add_constant(np.array(target, np.int64), f"{out or x.name}_shape")
    return insert(graph, "Reshape", x, operand, before=before, out=out)
