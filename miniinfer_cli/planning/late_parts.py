"""What can be made ready only once data have decided its sizes: parts of a graph, each as a graph of its own.

A node is late when a shape of what it reads is not known before something is computed: the boxes that NonMaxSuppression chose,
or what was reshaped to a size that is a result. Left alone, such nodes are run one by one by their references. Where there is
real work among them (the heads of a detector), a backend runs them as a graph for the sizes that came out, which is made into a
program like any other, and kept for when the same sizes come again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Type, Value, numpy_dtype
from miniinfer_cli.ir.parts import copy_node, copy_value, leaving, reading
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types
from miniinfer_cli.ops.registry import find

LATE_PART = "LatePart"
REASON = "its sizes depend on data"

DEEPEST = 32
"""Parts within parts: where choices follow on choices for longer than that, the rest is left to references."""
_SMALL = 64  # elements: shapes, and what they are computed from


@dataclass(frozen=True, slots=True, eq=False)
class LatePart:
    """Late nodes in order, what they read and what others read of them; ``node`` stands for them, with them as its body."""

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    node: Node


def late_parts(graph: Graph, types: Types) -> list[LatePart]:
    """The late parts of ``graph`` that are worth a program of their own; ``types`` are those of ``infer_graph``.

    A part can run where its last node stands: nothing before that waits for it. It is never all of the graph, which would be
    no nearer to an answer.
    """
    groups: list[list[Node]] = [[]]
    made: set[Value] = set()
    count = 0
    for node in graph:
        if _is_settled([types[v] for v in node.outputs]):
            continue
        count += 1
        waits = not made.isdisjoint(v for v in node.inputs if v is not None)
        if _is_late(node, types) or (waits and _goes_along(node, types)):
            groups[-1].append(node)
            made.update(node.outputs)
        elif waits:
            groups.append([])
            made.clear()
    parts = [part for group in groups for part in _connected(group, types)]
    return [_part(graph, part, types) for part in parts if len(part) < count and any(map(has_work, part))]


def has_work(node: Node) -> bool:
    """Whether the node, or one within it, does more than some instructions for each element."""
    inner = (*node.graphs.values(), *([node.body] if node.body is not None else ()))
    opdef = find(node.domain, node.op)
    return (opdef is not None and opdef.heavy) or any(has_work(n) for g in inner for n in g)


def _connected(nodes: Sequence[Node], types: Types) -> list[list[Node]]:
    """The nodes in parts that share no result and no open size: in one part, they would need a program for each pair of sizes."""
    joined = {n: n for n in nodes}
    first_reader: dict[Value, Node] = {}

    def part_of(node: Node) -> Node:
        while joined[node] is not node:
            joined[node] = joined[joined[node]]
            node = joined[node]
        return node

    for node in nodes:
        for value in (v for v in node.inputs if v is not None):
            if value.producer in joined:
                joined[part_of(value.producer)] = part_of(node)
            elif not _are_static([types.get(value, value.type)]):
                joined[part_of(first_reader.setdefault(value, node))] = part_of(node)
    parts: dict[Node, list[Node]] = {}
    for node in nodes:
        parts.setdefault(part_of(node), []).append(node)
    return list(parts.values())


def is_late_part(node: Node) -> bool:
    """True for the node that stands for a late part."""
    return node.domain == OURS and node.op == LATE_PART


def _is_late(node: Node, types: Types) -> bool:
    read = [types.get(v, v.type) for v in node.inputs if v is not None]
    results = [types[v] for v in node.outputs]
    if not _are_numbers((*read, *results)):
        return False  # sequences and strings are the host's whatever their sizes
    return not _are_static(read)


def _goes_along(node: Node, types: Types) -> bool:
    """True for a node that is none of the late ones, but computes a few numbers of theirs, as shapes are computed, or makes
    something whose shape such numbers decide.
    """
    read = [types.get(v, v.type) for v in node.inputs if v is not None]
    results = [types[v] for v in node.outputs]
    if not _are_numbers((*read, *results)):
        return False
    return not _are_static(results) or all(_size(t) <= _SMALL for t in results)


def _size(type: Type | None) -> int:
    assert isinstance(type, TensorType)
    return math.prod(type.shape or ())  # type: ignore[arg-type]


def _are_numbers(types: Sequence[Type | None]) -> bool:
    return all(isinstance(t, TensorType) and t.dtype is not DType.STR for t in types)


def _are_static(types: Sequence[Type | None]) -> bool:
    return all(isinstance(t, TensorType) and t.is_static for t in types)


def _is_settled(types: Sequence[Type | None]) -> bool:
    """True when the contents follow from shapes alone."""
    return bool(types) and all(isinstance(t, TensorType) and t.concrete is not None for t in types)


def _part(graph: Graph, nodes: Sequence[Node], types: Types) -> LatePart:
    body = Graph(LATE_PART)
    inner: dict[Value, Value] = {}
    inputs: list[Value] = []
    for value in reading(nodes):
        kind = types.get(value, value.type)
        assert isinstance(kind, TensorType)
        if value.constant is not None:
            copy_value(body, value, inner)
        elif (contents := kind.concrete) is not None:
            inner[value] = body.add_constant(np.asarray(contents, numpy_dtype(kind.dtype)), value.name)
        else:
            inner[value] = body.add_input(value.name, TensorType(kind.dtype, kind.shape))
            inputs.append(value)
    for node in nodes:
        copy_node(body, node, inner)
    outputs = leaving(graph, nodes)
    body.set_outputs([inner[v] for v in outputs])
    around = Graph(LATE_PART)
    read = [around.add_input(v.name, types[v]) for v in inputs]
    results = [around.new_value(v.name, types[v]) for v in outputs]
    origins = [o for n in nodes for o in n.origins]
    node = around.add_node(LATE_PART, read, results, domain=OURS, name=nodes[0].name, body=body, origins=origins)
    return LatePart(tuple(nodes), tuple(inputs), tuple(outputs), node)
