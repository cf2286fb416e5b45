"""Checks a node where it comes from a file, a model or a plan, before anything else looks at it."""

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ops.registry import find


def check_entering(node: Node) -> None:
    """Raises ModelError, naming the node, unless it is sound: see ``check_sound``."""
    try:
        check_sound(node)
    except ModelError as error:
        raise error.at(f"node {node.name!r}") from None


def check_sound(node: Node) -> None:
    """Raises ModelError, without naming the node, unless it holds what its operation's declaration says; see ``declaration``.

    A region's body has as many inputs and outputs as the region, and holds primitive nodes only. An operation that is not
    defined passes: inference refuses it, by name.
    """
    opdef = find(node.domain, node.op) if node.body is None else None
    if opdef is not None:
        opdef.declaration.check_node(len(node.inputs), node.attrs, node.graphs)
        if opdef.check is not None:
            opdef.check(node.attrs)
    elif node.body is not None:
        _check_region(node, node.body)


def _check_region(node: Node, body: Graph) -> None:
    if not node.domain or node.graphs:
        raise ModelError(f"{node.op} has a body, and is of ai.onnx or has sub-graphs")
    counts = (len(node.inputs), len(node.outputs))
    inner = (len(body.inputs), len(body.outputs))
    if counts != inner or any(v is None for v in node.inputs):
        raise ModelError(f"{node.op} has {counts[0]} inputs and {counts[1]} outputs, its body {inner[0]} and {inner[1]}")
    for part in body:
        if part.body is not None or part.graphs:
            raise ModelError(f"{node.op} holds node {part.name!r} ({part.op}), which is not a primitive one")
