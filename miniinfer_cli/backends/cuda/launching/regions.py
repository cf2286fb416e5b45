"""Regions in parts: what one kernel or library call takes of a body, and the rest as a region of its own behind it."""

from collections.abc import Sequence

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops import OURS

REST = "FusedPointwise"


def split_region(region: Node, prefix: Sequence[Node]) -> Graph:
    """The region as a graph of two nodes, for ``Rewrite``: ``prefix`` of its body first, then the rest as FusedPointwise.

    ``prefix`` is some of ``region.body``'s nodes in order, closed (``is_closed``) and not all of them. One node alone stands
    in the graph as itself, several as a region of the same operation as ``region``, which is lowered anew; so the lowering
    that splits must take a body of just these nodes whole. The graph's inputs are the region's; types are the body's.
    Raises ValueError when ``prefix`` is empty, everything, or not closed.
    """
    body = region.body
    if body is None or not prefix or len(prefix) >= len(body) or not is_closed(body, prefix):
        raise ValueError(f"cannot split {region!r} behind {[n.op for n in prefix]}")
    graph = Graph(region.op)
    outer = {v: graph.add_input(v.name, v.type) for v in body.inputs}
    taken = set(prefix)
    rest = [n for n in body if n not in taken]
    if len(prefix) == 1:
        _copy_node(graph, prefix[0], outer)
    else:
        _add_part(graph, region.op, body, prefix, outer)
    _add_part(graph, REST, body, rest, outer)
    graph.set_outputs([outer[v] for v in body.outputs])
    return graph


def is_closed(body: Graph, prefix: Sequence[Node]) -> bool:
    """True when nothing that ``prefix`` makes is read outside of it but the one output of its last node."""
    taken = set(prefix)
    return len(prefix[-1].outputs) == 1 and leaving(body, prefix) == [prefix[-1].output] and _reads_no_other(body, taken)


def leaving(body: Graph, nodes: Sequence[Node]) -> list[Value]:
    """What ``nodes`` make and others of ``body`` read, or the body returns."""
    taken = set(nodes)
    return [v for n in nodes for v in n.outputs if body.is_output(v) or any(u not in taken for u in v.users)]


def _reads_no_other(body: Graph, taken: set[Node]) -> bool:
    return all(v is None or v.producer is None or v.producer in taken for n in body if n in taken for v in n.inputs)


def _add_part(graph: Graph, op: str, body: Graph, nodes: Sequence[Node], outer: dict[Value, Value]) -> None:
    """Adds ``nodes`` as one region; constants of one element stay inside, where a generated kernel finds them as literals."""
    members = set(nodes)
    part = Graph(op)
    inner: dict[Value, Value] = {}
    operands = []
    for value in dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v.producer not in members):
        if value.constant is not None and _is_literal(value):
            inner[value] = part.add_constant(value.constant, value.name)
        else:
            inner[value] = part.add_input(value.name, value.type)
            operands.append(_outside(graph, value, outer))
    for node in nodes:
        _copy_node(part, node, inner)
    made = leaving(body, nodes)
    part.set_outputs([inner[v] for v in made])
    results = [graph.new_value(v.name, v.type) for v in made]
    graph.add_node(op, operands, results, domain=OURS, name=nodes[0].name, body=part)
    outer.update(zip(made, results, strict=True))


def _copy_node(graph: Graph, node: Node, values: dict[Value, Value]) -> None:
    inputs = [None if v is None else _outside(graph, v, values) for v in node.inputs]
    results = [graph.new_value(v.name, v.type) for v in node.outputs]
    graph.add_node(node.op, inputs, results, domain=node.domain, name=node.name, attrs=node.attrs, body=node.body)
    values.update(zip(node.outputs, results, strict=True))


def _outside(graph: Graph, value: Value, outer: dict[Value, Value]) -> Value:
    """``value`` as ``graph`` knows it; a constant of the body is added at first need."""
    if value not in outer and value.constant is not None:
        outer[value] = graph.add_constant(value.constant, value.name)
    return outer[value]


def _is_literal(value: Value) -> bool:
    kind = value.type
    return isinstance(kind, TensorType) and kind.known is not None and kind.known.size == 1 and kind.dtype is not DType.STR
