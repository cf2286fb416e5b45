"""Adding a node to a graph with its output types inferred; what passes, importers and expansions build with."""

from typing import Any

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops.inference import infer_node


def insert(
    graph: Graph, op: str, *inputs: Value | None, before: Node | None = None, out: str = "", domain: str = "", **attrs: Any
) -> Value:
    """Adds a node with one output, types it, and returns the output. Raises ModelError when the inputs do not fit."""
    (value,) = insert_many(graph, op, *inputs, n_outputs=1, before=before, out=out, domain=domain, **attrs)
    return value


def insert_many(
    graph: Graph,
    op: str,
    *inputs: Value | None,
    n_outputs: int,
    before: Node | None = None,
    out: str = "",
    domain: str = "",
    **attrs: Any,
) -> tuple[Value, ...]:
    """Like ``insert``, for a node with several outputs."""
    outputs = tuple(graph.new_value(out or op.lower()) for _ in range(n_outputs))
    node = graph.add_node(op, inputs, outputs, domain=domain, attrs=attrs, before=before)
    for value, type in zip(outputs, infer_node(node, [None if v is None else v.type for v in inputs]), strict=True):
        graph.set_type(value, type)
    return outputs
