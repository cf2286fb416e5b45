"""Bodies that one kernel cannot hold, as graphs of several: by shape of the outputs, by number of nodes, of operands."""

from collections.abc import Iterable, Sequence

import numpy as np

from miniinfer_cli.backends.cuda.launching.regions import POINTWISE, add_region
from miniinfer_cli.ir import Graph, Node, TensorType, Type, Value, numpy_dtype
from miniinfer_cli.ir.parts import copy_node, leaving
from miniinfer_cli.ops.inference import Types

MOST_NODES = 64
MOST_OPERANDS = 32


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
    passed: dict[Value, Value] = {}  # what is returned as it came, which a region copies
    for nodes, ends in parts:
        if len(nodes) == 1 and list(ends) == list(nodes[0].outputs):
            copy_node(graph, nodes[0], outer)
            continue
        results = add_region(graph, POINTWISE, nodes, ends, outer)
        passed.update((v, result) for v, result in zip(ends, results, strict=True) if v.producer is None)
    graph.set_outputs([passed.get(v) or outer[v] for v in body.outputs])
    return graph


def _shape(kind: Type | None) -> object:
    return kind.shape if isinstance(kind, TensorType) else kind
