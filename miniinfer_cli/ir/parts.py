"""Some nodes of a graph as a part of it: what they read, what leaves them, which values are constants, and copies of them."""

from collections.abc import Sequence

from engine_format.dtypes import DType
from miniinfer_cli.ir.constants import Constant
from miniinfer_cli.ir.graph import Graph
from miniinfer_cli.ir.node import Node, Value
from miniinfer_cli.ir.types import TensorType


def reading(nodes: Sequence[Node]) -> list[Value]:
    """What ``nodes`` read and do not make, each once, in order of first use."""
    members = set(nodes)
    return list(dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v.producer not in members))


def leaving(graph: Graph, nodes: Sequence[Node]) -> list[Value]:
    """What ``nodes`` make and others of ``graph`` read, or the graph returns, in order."""
    members = set(nodes)
    return [v for n in nodes for v in n.outputs if graph.is_output(v) or any(u not in members for u in v.users)]


def copy_node(graph: Graph, node: Node, values: dict[Value, Value]) -> None:
    """Adds a copy of another graph's node to ``graph``; its body and sub-graphs are shared, so nobody may change them any more.

    ``values`` is that graph's values as ``graph`` knows them. What the node makes is added, and constants at first need.
    """
    inputs = [None if v is None else copy_value(graph, v, values) for v in node.inputs]
    results = [graph.new_value(v.name, v.type) for v in node.outputs]
    graph.add_node(
        *(node.op, inputs, results),
        domain=node.domain,
        name=node.name,
        attrs=node.attrs,
        graphs=node.graphs,
        body=node.body,
        origins=node.known_origins,
    )
    values.update(zip(node.outputs, results, strict=True))


def copy_value(graph: Graph, value: Value, values: dict[Value, Value]) -> Value:
    """``value`` as ``graph`` knows it; a constant of the other graph is added at first need."""
    if value not in values and value.constant is not None:
        values[value] = graph.add_constant(value.constant, value.name)
    return values[value]


def is_literal(value: Value) -> bool:
    """True for a constant that a generated kernel can have in its text: one number, whose value is known."""
    kind = value.type
    if value.constant is None or not isinstance(kind, TensorType) or kind.known is None:
        return False
    return bool(kind.known.size == 1) and kind.dtype is not DType.STR


def constant_within(body: Graph, given: Sequence[Constant | None], value: Value | None) -> Constant | None:
    """The constant that a value of ``body`` is: one of its own, or, of its inputs, one that is ``given``; None for others."""
    if value is None or value.constant is not None:
        return None if value is None else value.constant
    return given[body.inputs.index(value)] if value in body.inputs else None
