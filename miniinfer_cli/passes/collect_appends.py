"""A Loop that appends to a tensor in every round -> one that collects the pieces, which are joined once, behind it.

Appending copies all that came before, every round, and gives every round another shape, hence another program for its body.
Pieces of one shape become a scanned output, which stays on the device; others a sequence.
"""

from miniinfer_cli.ir import Graph, Node, TensorType, Value
from miniinfer_cli.ops import annotate, insert
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.passes.operands import sole_user


def collect_appends(graph: Graph) -> int:
    """Gives the number of carried tensors replaced."""
    count = 0
    for node in graph.nodes:
        loop, place = node, 0
        while loop.is_op("Loop") and place < _carried(loop):
            concat = _appending(loop.graphs["body"], place)
            if concat is None:
                place += 1
                continue
            piece = _piece(loop.graphs["body"], concat)
            if _has_one_shape(piece):
                loop = _scan(graph, loop, place, concat, piece)  # the next carried value is in this one's place now
            else:
                loop = _gather(graph, loop, place, concat, piece)
                place += 1
            count += 1
    if count:
        annotate(graph)  # what the body carries is of another type now
    return count


def _carried(loop: Node) -> int:
    return len(loop.inputs) - 2 - int(loop.attrs.get("n_captures", 0))


def _appending(body: Graph, place: int) -> Node | None:
    """The Concat that makes the carried value of the next round from that of this one, when nothing else reads either."""
    before, after = body.inputs[2 + place], body.outputs[1 + place]
    concat = after.producer
    if concat is None or not concat.is_op("Concat") or concat.inputs[0] is not before or before in concat.inputs[1:]:
        return None
    if sole_user(body, before) is not concat or after.users or sum(v is after for v in body.outputs) > 1:
        return None
    return concat if len(concat.inputs) > 1 else None


def _piece(body: Graph, concat: Node) -> Value:
    """What one round appends."""
    pieces = concat.inputs[1:]
    axis = concat.attrs["axis"]
    piece = pieces[0] if len(pieces) == 1 else insert(body, "Concat", *pieces, before=concat, out="piece", axis=axis)
    assert piece is not None
    return piece


def _has_one_shape(piece: Value) -> bool:
    kind = piece.type
    return isinstance(kind, TensorType) and kind.is_static and 0 not in (kind.shape or ())


def _gather(graph: Graph, loop: Node, place: int, concat: Node, piece: Value) -> Node:
    """Carries a sequence of the pieces instead; gives the new Loop."""
    body = loop.graphs["body"]
    sequence = body.add("SequenceInsert", body.inputs[2 + place], piece, before=concat, out=concat.output.name)
    body.replace_node(concat, [sequence])
    first = graph.add("SequenceConstruct", loop.inputs[2 + place], before=loop)
    inputs = (*loop.inputs[: 2 + place], first, *loop.inputs[3 + place :])
    outputs = [graph.new_value("pieces" if i == place else v.name, v.type) for i, v in enumerate(loop.outputs)]
    new = _replacement(graph, loop, inputs, outputs)
    old, axis = loop.outputs[place], concat.attrs["axis"]
    joined = result = graph.add("ConcatFromSequence", outputs[place], before=loop, out=old.name, axis=axis, new_axis=0)
    sizes = _sizes_beside(old, axis)
    if sizes is not None and sizes != _sizes_beside(piece, axis):
        # Joining to one tensor with them made them known, and a sequence of pieces that do not tell them does not.
        result = graph.add("Reshape", joined, graph.add_constant(sizes, "joined_shape"), before=loop, out=old.name)
    graph.replace_node(loop, [result if i == place else v for i, v in enumerate(outputs)])
    _name(graph, result, f"{concat.name}_sizes")
    _name(graph, joined, concat.name)
    return new


def _sizes_beside(value: Value, axis: int) -> list[int] | None:
    """The sizes that are known, as Reshape takes them: 0, for what stays as it is, at ``axis`` and where none is."""
    kind = value.type
    if not isinstance(kind, TensorType) or kind.shape is None:
        return None
    at = axis % len(kind.shape)
    return [n if isinstance(n, int) and i != at else 0 for i, n in enumerate(kind.shape)]


def _scan(graph: Graph, loop: Node, place: int, concat: Node, piece: Value) -> Node:
    """Gives the pieces out one by one instead; gives the new Loop."""
    body = loop.graphs["body"]
    before, shape = body.inputs[2 + place], list(piece.tensor.shape or ())
    names = [n for i, n in enumerate(body.output_names) if i != 1 + place]
    kept = [v for i, v in enumerate(body.outputs) if i != 1 + place]
    body.set_outputs([*kept, piece], [*names, body.unique_name("piece")])
    body.remove(concat)
    body.remove_input(before)
    inputs = (*loop.inputs[: 2 + place], *loop.inputs[3 + place :])
    outputs = [graph.new_value(v.name, v.type) for i, v in enumerate(loop.outputs) if i != place]
    pieces = graph.new_value("pieces", TensorType(piece.tensor.dtype, (UNKNOWN, *shape)))
    new = _replacement(graph, loop, inputs, [*outputs, pieces])
    axis = concat.attrs["axis"] % len(shape)
    value = pieces
    if axis:
        order = (*range(1, axis + 1), 0, *range(axis + 1, len(shape) + 1))
        value = insert(graph, "Transpose", value, before=loop, perm=order)
    target = graph.add_constant([-1 if i == axis else n for i, n in enumerate(shape)], "pieces_shape")
    value = insert(graph, "Reshape", value, target, before=loop)
    value = insert(graph, "Concat", loop.inputs[2 + place], value, before=loop, out=loop.outputs[place].name, axis=axis)
    graph.replace_node(loop, [*outputs[:place], value, *outputs[place:]])
    _name(graph, value, concat.name)
    return new


def _name(graph: Graph, value: Value, name: str) -> None:
    """Reports call what joins the pieces by the name of what appended them, not by the Loop's."""
    assert value.producer is not None
    graph.rename_node(value.producer, name)


def _replacement(graph: Graph, loop: Node, inputs: tuple[Value | None, ...], outputs: list[Value]) -> Node:
    return graph.add_node("Loop", inputs, outputs, name=loop.name, attrs=loop.attrs, graphs=loop.graphs, before=loop)
