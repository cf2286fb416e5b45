"""Moves Reshapes that only regroup leading dimensions down through row-wise operations, to where they are undone.

    Reshape [b,s,k] -> [b*s,k], MatMul, Add, Reshape -> [b,s,n]      becomes      MatMul, Add on [b,s,...]

Exporters write fully connected layers of sequences like this. Without the Reshapes the layer fuses with the residual Add
and the activation behind it, and what is recognised by its shape is recognised.
"""

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.operands import dims, is_pointwise, sole_user
from miniinfer_cli.passes.reshape_targets import insert_reshape

_ROW_WISE = ("LayerNormalization", "RMSNormalization", "Softmax", "LogSoftmax")


def sink_reshapes(graph: Graph) -> int:
    """Gives the number of operations that Reshapes were moved past."""
    count = 0
    for node in graph.nodes:
        view = _view_above(node)
        if view is not None and _sink(graph, node, view):
            count += 1
    return count


def _view_above(node: Node) -> Node | None:
    """The Reshape of leading dimensions whose result is the rows that ``node`` works on."""
    for value in node.inputs:
        view = value.producer if value is not None else None
        if view is not None and view.is_op(*VIEWS) and view.output is value and _regroups(dims(view.inputs[0]), dims(value)):
            return view if _passes_rows(node, value, dims(value) or ()) else None
    return None


def _sink(graph: Graph, node: Node, view: Node) -> bool:
    source, target = view.inputs[0], dims(node.output)
    lead = (dims(source) or ())[:-1]
    if source is None or target is None or not _is_undone(graph, node.output, lead):
        return False
    attrs = dict(node.attrs)
    if "axis" in attrs:
        attrs["axis"] = -1
    inputs = [source if v is view.output else v for v in node.inputs]
    y = insert(graph, node.op, *inputs, before=node, out=f"{node.output.name}_rows", domain=node.domain, **attrs)
    back = insert_reshape(graph, y, target, before=node, out=node.output.name)
    made = y.producer
    if back is None:
        if made is not None:
            graph.remove(made)
        return False
    if made is not None:
        made.name = node.name
    graph.replace_node(node, [back])
    return True


def _regroups(before: tuple[Dim, ...] | None, after: tuple[Dim, ...] | None) -> bool:
    """True when the rows stay what they are and only their arrangement changes."""
    return bool(before and after) and len(before or ()) > 1 and len(after or ()) > 1 and (before or ())[-1] == (after or ())[-1]


def _passes_rows(node: Node, rows: Value, shape: tuple[Dim, ...]) -> bool:
    """True when each row of the result of ``node`` depends on the same row of ``rows`` and on nothing that has rows."""
    others = [v for v in node.inputs if v is not None and v is not rows]
    if len(node.outputs) != 1:
        return False
    if node.is_op("MatMul"):
        return node.inputs[0] is rows and len(dims(node.inputs[1]) or ()) == 2
    if node.is_op(*_ROW_WISE):
        return node.inputs[0] is rows and node.attrs.get("axis", -1) in (-1, len(shape) - 1)
    return is_pointwise(node) and dims(node.output) == shape and all(len(dims(v) or (1, 1)) <= 1 for v in others)


def _is_undone(graph: Graph, value: Value, lead: tuple[Dim, ...]) -> bool:
    """True when ``value`` goes through row-wise operations of one reader each into a view that brings ``lead`` back."""
    while True:
        node = sole_user(graph, value)
        if node is None:
            return False
        if node.is_op(*VIEWS):
            return (dims(node.output) or ())[: len(lead)] == lead
        if not _passes_rows(node, value, dims(value) or ()):
            return False
        value = node.output
