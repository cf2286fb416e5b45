"""Parts picked from a packed tensor after it was rearranged -> the packed tensor split first, each part rearranged alone.

    [b,s,3*h*d] -> Reshape [b,s,3,h,d] -> Transpose [3,b,h,s,d] -> Gather 0, Gather 1, Gather 2

is how frameworks take queries, keys and values from one projection. Split first, no five-dimensional Transpose is left,
and attention can read each part where it lies.
"""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert, insert_many
from miniinfer_cli.passes.movement import Movement, Moves, chain_above, is_movement, is_writable, movement_of, write
from miniinfer_cli.passes.operands import dims, known_ints

MOST_PARTS = 8


def split_packed(graph: Graph) -> int:
    """Gives the number of tensors split."""
    count = 0
    for node in graph.nodes:
        if node in graph and is_movement(node) and len(node.output.users) > 0 and not graph.is_output(node.output):
            count += _split(graph, node)
    return count


def _split(graph: Graph, last: Node) -> bool:
    packed = last.output
    picks = [_picks(user, packed) for user in packed.users]
    axes = {pick[0] for pick in picks if pick is not None}
    if len(axes) != 1 or any(pick is None for pick in picks):
        return False
    (axis,) = axes
    chain = chain_above(graph, packed)
    movement, x = movement_of(chain), chain[0].inputs[0]
    if movement is None or x is None or not movement.axes[axis]:
        return False
    count = movement.target[axis]
    found = _without(movement, axis)
    if found is None or not isinstance(count, int) or not 1 < count <= MOST_PARTS:
        return False
    part, place = found
    moves = part.moves()
    old_cost = (sum(n.op == "Transpose" for n in chain), len(chain))
    if not is_writable(part, moves) or moves.cost > old_cost:
        return False
    parts = insert_many(graph, "Split", x, n_outputs=count, before=last, out=f"{x.name}_part", axis=place, num_outputs=count)
    for user, pick in zip(packed.users, picks, strict=True):
        if pick is not None:
            _replace(graph, user, pick[1], axis, parts, moves)
    for node in reversed(chain):
        graph.remove(node)
    return True


def _picks(node: Node, packed: Value) -> tuple[int, list[int]] | None:
    """Axis and numbers of the single elements that each output of ``node`` is; None for any other operation."""
    shape = dims(packed)
    if shape is None or node.inputs[0] is not packed or sum(v is packed for v in node.inputs) != 1:
        return None
    rank = len(shape)
    if node.is_op("Gather"):
        index = known_ints(node.inputs[1])
        axis = node.attrs.get("axis", 0) % rank
        size = shape[axis]
        if index is None or dims(node.inputs[1]) != () or not isinstance(size, int):
            return None
        return axis, [index[0] % size]
    if node.is_op("Split"):
        axis = node.attrs.get("axis", 0) % rank
        ones = all((dims(v) or ())[axis : axis + 1] == (1,) for v in node.outputs)
        return (axis, list(range(len(node.outputs)))) if ones else None
    if node.is_op("Slice") and len(node.inputs) > 3:
        starts, axes = known_ints(node.inputs[1]), known_ints(node.inputs[3])
        if starts is None or axes is None or len(axes) != 1 or (dims(node.output) or ())[axes[0] % rank] != 1:
            return None
        axis = axes[0] % rank
        size = shape[axis]
        return (axis, [starts[0] % size]) if isinstance(size, int) and -size <= starts[0] < size else None
    return None


def _without(movement: Movement, axis: int) -> tuple[Movement, int] | None:
    """The movement of one part, and the axis of the source to split; None when the parts do not lie one after the other."""
    picked = movement.axes[axis]
    place = next(i for i, atoms in enumerate(movement.source) if picked[0] in atoms)
    if movement.source[place][: len(picked)] != picked:
        return None
    part = movement.copy()
    part.source[place] = part.source[place][len(picked) :]
    part.shape = (*part.shape[:place], part.measure(part.source[place]), *part.shape[place + 1 :])
    del part.axes[axis]
    return part, place


def _replace(graph: Graph, node: Node, numbers: Sequence[int], axis: int, parts: Sequence[Value], moves: Moves) -> None:
    values = []
    for output, number in zip(node.outputs, numbers, strict=True):
        value = write(graph, parts[number], moves, before=node, out=output.name)
        if not node.is_op("Gather"):  # a Split and a Slice keep the axis
            axes = graph.add_constant(np.array([axis], np.int64), "axis")
            value = insert(graph, "Unsqueeze", value, axes, before=node, out=output.name)
        values.append(value)
    graph.replace_node(node, values)
