"""Runs a graph node by node through the numpy references: the plainest statement of what a graph computes."""

from collections.abc import Sequence
from typing import Any

from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops.budget import current
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import lookup


def interpret(graph: Graph, inputs: Sequence[Any], for_each: ForEach | None = None) -> tuple[Any, ...]:
    """The outputs of ``graph`` for these inputs (numpy arrays, lists for sequences). Frees each value after its last use.

    Raises the references' errors with the node's name put in front.
    """
    left = {v: len(v.users) + sum(o is v for o in graph.outputs) for v in graph.values()}
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))

    def read(value: Value) -> Any:
        if value not in values:
            if value.constant is None:
                raise ValueError(f"{value!r} is read before it is made")
            values[value] = value.constant.array()
        return values[value]

    budget = current()
    computed: dict[Value, Any] = {}
    try:
        for node in graph:
            results = interpret_node(node, [None if v is None else read(v) for v in node.inputs], for_each)
            values.update(zip(node.outputs, results, strict=False))
            if budget is not None:
                for value, result in zip(node.outputs, results, strict=False):
                    budget.hold(result)
                    computed[value] = result
                budget.expect(0, f"results of {node.op}", f"node {node.name!r}")
            for value in {v for v in node.inputs if v is not None}:
                left[value] -= 1
                if not left[value]:
                    values.pop(value, None)
                    if budget is not None:
                        budget.let_go(computed.pop(value, None))
        return tuple(read(v) for v in graph.outputs)
    finally:
        if budget is not None:
            for result in computed.values():
                budget.let_go(result)


def interpret_node(node: Node, inputs: Sequence[Any], for_each: ForEach | None = None) -> tuple[Any, ...]:
    """The outputs of one node; a region runs its body. ``for_each``: threads to share the work with, see ``products``."""
    try:
        if node.body is not None:
            return interpret(node.body, inputs, for_each)
        limits = None if node.graph is None else node.graph.budget.limits
        return lookup(node.domain, node.op).evaluate(
            inputs, node.attrs, n_outputs=len(node.outputs), graphs=node.graphs, run_graph=interpret, for_each=for_each,
            limits=limits,
        )  # fmt: skip
    except MiniinferError as error:
        raise error.at(f"node {node.name!r}") from None
