"""MatMuls that read one tensor, each with constant weights -> one MatMul and a Split: the Q, K and V of attention.

Biases that follow all of them are joined too. The weights become one Concat of constants, which folding turns into a
recipe.
"""

import numpy as np

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims, sole_user


def merge_projections(graph: Graph) -> int:
    """Merges the MatMuls of each such tensor; counts the MatMuls that went."""
    fired = 0
    for node in graph.nodes:
        if node in graph and _is_projection(node):
            x = node.inputs[0]
            assert x is not None
            group = [n for n in x.users if _is_projection(n) and _rows(n) == _rows(node)]
            if len(group) > 1:
                _merge(graph, x, sorted(group, key=list(graph).index))
                fired += len(group) - 1
    return fired


def _is_projection(node: Node) -> bool:
    """A MatMul of something with constant weights ``[rows, columns]``."""
    if not node.is_op("MatMul"):
        return False
    x, w = node.inputs
    if x is None or w is None or w.constant is None or x.constant is not None:
        return False
    return len(dims(w) or ()) == 2 and len(dims(x) or ()) >= 2


def _rows(node: Node) -> tuple[object, ...]:
    w = node.inputs[1]
    assert w is not None
    return (w.tensor.dtype, (dims(w) or (None,))[0])


def _merge(graph: Graph, x: Value, group: list[Node]) -> None:
    first = group[0]
    weights = [n.inputs[1] for n in group]
    columns = [(dims(w) or (0, 0))[1] for w in weights]
    joined = insert(graph, "Concat", *weights, before=first, out="weights", axis=1)
    whole = product = insert(graph, "MatMul", x, joined, before=first, out=f"{first.output.name}_merged")
    biases = [_bias(graph, n, c) for n, c in zip(group, columns, strict=True)]
    ends = group
    if all(b is not None for b in biases):
        bias = insert(graph, "Concat", *biases, before=first, out="biases", axis=0)
        whole = insert(graph, "Add", whole, bias, before=first, out=f"{first.output.name}_biased")
        ends = [n.output.users[0] for n in group]
    sizes = graph.add_constant(np.array(columns, np.int64), "columns")
    parts = [graph.new_value(end.output.name, end.output.type) for end in ends]
    split = graph.add_node("Split", (whole, sizes), parts, attrs={"axis": -1}, before=first)
    for made in (product.producer, whole.producer, split):
        if made is not None:
            graph.add_origins(made, [name for n in (*group, *ends) for name in n.known_origins])
    for node, end, part in zip(group, ends, parts, strict=True):
        graph.replace_node(end, [part])
        if end is not node:
            graph.remove(node)


def _bias(graph: Graph, node: Node, columns: object) -> Value | None:
    """The constant ``[columns]`` that an Add, the only reader of the product, adds to it."""
    reader = sole_user(graph, node.output)
    if reader is None or not reader.is_op("Add"):
        return None
    a, b = reader.inputs
    other = b if a is node.output else a
    return other if other is not None and other.constant is not None and dims(other) == (columns,) else None
