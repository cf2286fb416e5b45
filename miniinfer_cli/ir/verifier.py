"""Checks that a graph is well formed: what every pass may count on and must leave behind.

Nodes stand after the producers of their inputs; producers, users and names agree with each other; tensors have types;
regions and their bodies fit together; sub-graphs are closed and well formed themselves.
"""

from collections import Counter

from miniinfer_cli.ir.graph import Graph
from miniinfer_cli.ir.node import Node, Value
from miniinfer_cli.ir.types import TensorType


class MalformedGraph(Exception):
    """A graph broke its own rules: always a bug of whatever edited it last, never the user's fault."""


def verify(graph: Graph) -> None:
    """Raises MalformedGraph, naming node and value, unless ``graph`` is well formed, bodies and sub-graphs included."""
    ready: set[Value] = set()
    names: set[str] = set()
    for value in graph.inputs:
        if value.producer is not None or value.constant is not None:
            raise MalformedGraph(f"graph {graph.name!r}: input {value!r} has a producer or is a constant")
        _enter(graph, value, ready, names)
    nodes = set(graph)
    if len(nodes) != len(graph):
        raise MalformedGraph(f"graph {graph.name!r} counts {len(graph)} nodes and links {len(nodes)}")
    # Inference does not reach a branch that an If is known not to take: such a graph has no types at all.
    typed = any(value.type is not None for node in graph for value in node.outputs)
    for node in graph:
        _verify_node(graph, node, nodes, ready, names)
        if typed:
            _verify_types(node)
    for value in graph.outputs:
        if value.constant is None and value not in ready:
            raise MalformedGraph(f"graph {graph.name!r} returns {value!r}, which nothing in it makes")
    _verify_signature(graph)


def _verify_node(graph: Graph, node: Node, nodes: set[Node], ready: set[Value], names: set[str]) -> None:
    if node.graph is not graph:
        raise _fault(node, "belongs to another graph")
    for value, count in Counter(v for v in node.inputs if v is not None).items():
        if value.constant is not None:
            if value.producer is not None:
                raise _fault(node, f"reads {value!r}, a constant with a producer")
            _verify_constant_type(node, value)
            if value not in ready:
                _enter(graph, value, ready, names)
        elif value not in ready:
            raise _fault(node, f"reads {value!r}, which nothing before it makes")
        if value._uses.get(node) != count:
            raise _fault(node, f"reads {value!r} {count} times, and the value knows of {value._uses.get(node, 0)}")
    for value in node.outputs:
        if value.producer is not node:
            raise _fault(node, f"does not own its output {value!r}, made by {value.producer!r}")
        for user in value.users:
            if user not in nodes or value not in user.inputs:
                raise _fault(node, f"its output {value!r} names {user!r} as a user, which does not read it here")
        _enter(graph, value, ready, names)
    if node.body is not None:
        _verify_body(node, node.body)
    for inner in node.graphs.values():
        verify(inner)


def _verify_types(node: Node) -> None:
    for value in node.outputs:
        if value.type is None and all(v is None or v.type is not None for v in node.inputs):
            raise _fault(node, f"its output {value!r} has no type though all its inputs have")


def _verify_body(node: Node, body: Graph) -> None:
    if not node.domain:
        raise _fault(node, "has a body but stands in ai.onnx's name space")
    if len(body.inputs) != len(node.inputs) or len(body.outputs) != len(node.outputs):
        raise _fault(
            node,
            f"has {len(node.inputs)} inputs and {len(node.outputs)} outputs, its body {len(body.inputs)} and {len(body.outputs)}",
        )
    for inner_node in body:
        if inner_node.body is not None or inner_node.graphs:
            raise _fault(node, f"its body holds {inner_node!r}, which is not a primitive node")
    for inner, outer in zip((*body.inputs, *body.outputs), (*node.inputs, *node.outputs), strict=True):
        if outer is not None and inner.type != outer.type:
            raise _fault(node, f"{outer!r} is {inner!r} in its body")
    try:
        verify(body)
    except MalformedGraph as error:
        raise _fault(node, f"in its body: {error}") from None


def _verify_constant_type(node: Node, value: Value) -> None:
    handle = value.constant
    if handle is not None and value.type != TensorType(handle.dtype, handle.shape):
        raise _fault(node, f"reads {value!r}, a constant that holds {TensorType(handle.dtype, handle.shape)}")


def _verify_signature(graph: Graph) -> None:
    if len(graph.outputs) != len(graph.output_names):
        raise MalformedGraph(
            f"graph {graph.name!r} has {len(graph.outputs)} outputs and {len(graph.output_names)} names for them"
        )
    for name, count in Counter(graph.output_names).items():
        if count > 1:
            raise MalformedGraph(f"graph {graph.name!r} returns {count} outputs named {name!r}")


def _enter(graph: Graph, value: Value, ready: set[Value], names: set[str]) -> None:
    if value in ready:
        raise MalformedGraph(f"graph {graph.name!r}: {value!r} is made twice")
    if value.name in names:
        raise MalformedGraph(f"graph {graph.name!r} has two values named {value.name!r}")
    ready.add(value)
    names.add(value.name)


def _fault(node: Node, what: str) -> MalformedGraph:
    return MalformedGraph(f"node {node.name!r} ({node.op}) {what}")
