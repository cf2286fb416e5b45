"""What looks up a row of each sequence moves up past operations that work on each row by itself: they compute those alone then.

    MatMul, Add, LayerNormalization on [b,s,768], GatherND at [b,2] -> [b,768]      GatherND, MatMul, Add, LayerNormalization

So text encoders read the last token of each sequence, wherever that is; ``raise_selections`` does the same for known places.
"""

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.row_wise import NORMALIZATIONS, SOFTMAX, axes_of_rows, pays


def raise_lookups(graph: Graph) -> int:
    """Gives the number of operations that work on the rows that are looked up now."""
    count = 0
    work = [node for node in graph.nodes if _is_lookup(node)]
    while work:
        node = work.pop()
        made = _raise(graph, node) if node in graph else []
        count += bool(made)
        work += made
    return count


def _is_lookup(node: Node) -> bool:
    """True for rows ``[b, ...]`` of ``[b, s, ...]`` at pairs ``[b, 2]`` of indices, where s is not known to be 1."""
    if not node.is_op("GatherND") or node.attrs.get("batch_dims", 0):
        return False
    shape, pairs = (dims(v) for v in node.inputs)
    return shape is not None and len(shape) > 2 and pairs is not None and pairs == (shape[0], 2) and shape[1] != 1


def _raise(graph: Graph, node: Node) -> list[Node]:
    """Does the operation in front of a lookup behind it; gives the lookups of its operands, nothing where it stays."""
    rows, pairs = node.inputs
    producer = None if rows is None else rows.producer
    if producer is None or rows is None or pairs is None or graph.is_output(rows) or producer.is_op("Attention"):
        return []
    readers = [n for n in graph if n in set(rows.users)]
    if any(not _is_lookup(n) or n.inputs[1] is not pairs or n.inputs[0] is not rows for n in readers):
        return []
    axes = _both_axes(producer)
    if axes is None or not any(axes) or not pays(graph, producer, 1):
        return []
    first = readers[0]  # the pairs are there
    looked_up = {v: insert(graph, "GatherND", v, pairs, before=first, out=f"{v.name}_looked_up") for v in axes if v is not None}
    operands = [looked_up.get(v, v) if v is not None else None for v in producer.inputs]
    attrs = dict(producer.attrs)
    if producer.is_op(*NORMALIZATIONS, *SOFTMAX):
        rank = len(dims(rows) or ())
        attrs["axis"] = attrs.get("axis", -1) % rank - rank  # counted from the end, for there is an axis less
    y = insert(graph, producer.op, *operands, before=first, out=f"{rows.name}_looked_up", domain=producer.domain, **attrs)
    made = y.producer
    assert made is not None
    graph.add_origins(made, producer.known_origins)
    for reader in readers:
        graph.replace_node(reader, [y])
    graph.remove(producer)
    graph.rename_node(made, producer.name)
    return [v.producer for v in looked_up.values() if v.producer is not None]


def _both_axes(node: Node) -> list[Value | None] | None:
    """For each operand itself where it has both axes of the rows, None where it has neither; no list where one has one of them.

    An operand that has neither must mean the same behind one axis less: it has none of the result's first two.
    """
    first, second = axes_of_rows(node, 0), axes_of_rows(node, 1)
    if not first or not second:
        return None
    rank, found = len(dims(node.output) or ()), list[Value | None]()
    for value, batch, row in zip(node.inputs, first, second, strict=True):
        own = len(dims(value) or ())
        if (batch, row) == (0, 1) and own == rank:
            found.append(value)
        elif batch is None and row is None and own <= rank - 1:
            found.append(None)
        else:
            return None
    return found
