"""Chains of Reshape, Flatten, Squeeze and Unsqueeze -> one Reshape, or nothing when the first shape comes back."""

from miniinfer_cli.ir import Graph, Node, TensorType, Value
from miniinfer_cli.ops import defined, insert
from miniinfer_cli.passes.operands import dims, same_type
from miniinfer_cli.passes.reshape_targets import insert_reshape, may_not_fit

VIEWS = tuple(d.name for d in defined() if d.view and d.name != "Identity")
"""The operations that give the bytes of their first input another shape."""


def cancel_reshapes(graph: Graph) -> int:
    """Gives the number of nodes that now read the start of their chain. The nodes between die when nobody else reads them."""
    count = 0
    for node in graph.nodes:
        inner = node.inputs[0].producer if node.is_op(*VIEWS) and node.inputs[0] is not None else None
        if inner is None or not inner.is_op(*VIEWS) or inner.inputs[0] is None or may_not_fit(inner) or may_not_fit(node):
            continue
        source = inner.inputs[0]
        value = source if same_type(source, node.output) else _direct(graph, node, source)
        if value is not None:
            graph.replace_node(node, [value])
            count += 1
    return count


def _direct(graph: Graph, node: Node, source: Value) -> Value | None:
    """``source`` taken to the output of ``node`` at once; None when its dimensions cannot be asked for."""
    target = dims(node.output)
    if target is None or dims(source) is None:
        return None
    value = insert_reshape(graph, source, target, before=node, out=node.output.name)
    if value is None and node.op == "Reshape" and _copies_nothing(node):
        return insert(graph, "Reshape", source, node.inputs[1], before=node, out=node.output.name, **node.attrs)
    return value


def _copies_nothing(node: Node) -> bool:
    """True when the target of a Reshape is known to hold no 0, whose meaning depends on what is reshaped."""
    operand = node.inputs[1]
    known = operand.type.known if operand is not None and isinstance(operand.type, TensorType) else None
    return known is not None and not any(isinstance(d, int) and d == 0 for d in known.reshape(-1).tolist())
