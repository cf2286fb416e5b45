"""CastLike -> Cast to the type that the second operand has: one form of a conversion for everything below."""

from miniinfer_cli.ir import Graph
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.type_codes import code_of_dtype


def replace_cast_like(graph: Graph) -> int:
    """Gives the number of CastLikes replaced."""
    count = 0
    for node in graph.nodes:
        if node.is_op("CastLike") and node.inputs[0] is not None:
            attrs = {k: v for k, v in node.attrs.items() if k in ("saturate", "round_mode")}
            to = code_of_dtype(node.output.tensor.dtype)
            value = insert(graph, "Cast", node.inputs[0], before=node, out=node.output.name, to=to, **attrs)
            graph.replace_node(node, [value])
            count += 1
    return count
