"""Bodies that one kernel cannot hold, as graphs of several: by shape of the outputs, by number of nodes, of operands."""

from collections.abc import Iterable, Sequence

import numpy as np

from miniinfer_cli.backends.cuda.launching.regions import leaving
from miniinfer_cli.ir import Graph, Node, TensorType, Type, Value, numpy_dtype
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types

MOST_NODES = 64
MOST_OPERANDS = 32
REGION = "FusedPointwise"


def split(body: Graph, types: Types) -> Graph | None:
    """``body`` as a graph of regions that one kernel computes each, nearly: a region may be split again. None when it is small.

    ``types`` are those of ``infer_graph``. The graph has the inputs and outputs of ``body``.
    """
    shapes = list(dict.fromkeys(_shape(types.get(v, v.type)) for v in body.outputs))
    if len(shapes) > 1:
        wanted = [[v for v in body.outputs if _shape(types.get(v, v.type)) == s] for s in shapes]
        return _assemble(body, types, [(_needed(body, values), values) for values in wanted])
    chunks = list(_chunks(body))
    if len(chunks) > 1:
        passing = [v for v in body.outputs if v.producer is None]
        ends = [[*leaving(body, nodes), *(passing if nodes is chunks[-1] else ())] for nodes in chunks]
        return _assemble(body, types, list(zip(chunks, ends, strict=True)))
    return None


def split_fold(node: Node, types: Sequence[Type | None]) -> Graph | None:
    """A Sum, Max, Min or Mean of more operands than a kernel reads, as a chain of smaller ones; None when it is small."""
    if node.op not in ("Sum", "Max", "Min", "Mean") or len(node.inputs) <= MOST_OPERANDS:
        return None
    graph = Graph(node.op)
    operands = [graph.add_input(f"x{i}", t) for i, t in enumerate(types)]
    op = "Sum" if node.op == "Mean" else node.op
    total, rest = operands[0], operands[1:]
    while rest:
        total = graph.add(op, total, *rest[: MOST_OPERANDS - 1])
        rest = rest[MOST_OPERANDS - 1 :]
    if node.op == "Mean":
        kind = types[0]
        assert isinstance(kind, TensorType)
        total = graph.add("Div", total, graph.add_constant(np.array(len(operands), numpy_dtype(kind.dtype))))
    graph.set_outputs([total])
    return graph


def _chunks(body: Graph) -> Iterable[list[Node]]:
    """The nodes in order, in runs that are not too long and do not read too much."""
    chunk: list[Node] = []
    read: set[Value] = set()
    for node in body:
        more = {v for v in node.inputs if v is not None and v.producer not in chunk and v.constant is None}
        if chunk and (len(chunk) >= MOST_NODES or len(read | more) > MOST_OPERANDS):
            yield chunk
            chunk, read = [], set()
            more = {v for v in node.inputs if v is not None and v.constant is None}
        chunk.append(node)
        read |= more
    if chunk:
        yield chunk


def _needed(body: Graph, values: Sequence[Value]) -> list[Node]:
    """The nodes that these values depend on, in order."""
    needed: set[Node] = set()
    stack = [v.producer for v in values if v.producer is not None]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += [v.producer for v in node.inputs if v is not None and v.producer is not None]
    return [n for n in body if n in needed]


def _assemble(body: Graph, types: Types, parts: Sequence[tuple[Sequence[Node], Sequence[Value]]]) -> Graph:
    """A graph with one region for each part: nodes of ``body``, and the values that leave them or pass through."""
    graph = Graph(body.name)
    outer = {v: graph.add_input(v.name, types[v]) for v in body.inputs}
    homes: dict[Value, Value] = {}
    for nodes, ends in parts:
        if len(nodes) == 1 and list(ends) == list(nodes[0].outputs):
            _add_alone(graph, nodes[0], outer)
            continue
        part = Graph(REGION)
        inner: dict[Value, Value] = {}
        operands: list[Value] = []
        members = set(nodes)
        read = [v for n in nodes for v in n.inputs if v is not None and v.producer not in members]
        for value in dict.fromkeys((*read, *(v for v in ends if v.producer is None))):
            if value.constant is not None:
                inner[value] = part.add_constant(value.constant, value.name)
            else:
                inner[value] = part.add_input(value.name, value.type)
                operands.append(outer[value])
        for node in nodes:
            inputs = [None if v is None else inner[v] for v in node.inputs]
            made = [part.new_value(v.name, v.type) for v in node.outputs]
            part.add_node(node.op, inputs, made, domain=node.domain, name=node.name, attrs=node.attrs)
            inner.update(zip(node.outputs, made, strict=True))
        part.set_outputs([inner[v] for v in ends])
        results = [graph.new_value(v.name, v.type) for v in ends]
        graph.add_node(REGION, operands, results, domain=OURS, body=part)
        homes.update(zip(ends, results, strict=True))
        outer.update({v: homes[v] for v in ends if v.producer is not None})
    graph.set_outputs([homes.get(v) or outer[v] for v in body.outputs])
    return graph


def _add_alone(graph: Graph, node: Node, outer: dict[Value, Value]) -> None:
    """Adds one node as itself, with its constants."""
    for value in node.inputs:
        if value is not None and value.constant is not None and value not in outer:
            outer[value] = graph.add_constant(value.constant, value.name)
    made = [graph.new_value(v.name, v.type) for v in node.outputs]
    inputs = [None if v is None else outer[v] for v in node.inputs]
    graph.add_node(node.op, inputs, made, domain=node.domain, name=node.name, attrs=node.attrs)
    outer.update(zip(node.outputs, made, strict=True))


def _shape(kind: Type | None) -> object:
    return kind.shape if isinstance(kind, TensorType) else kind
