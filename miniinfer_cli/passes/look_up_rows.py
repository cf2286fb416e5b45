"""Rows that are moved in front of a normalization, or behind one, are looked up in front of it: Gather at places that are known.

    LayerNormalization -> Slice, Slice, Concat, Slice, Slice, Concat -> Reshape -> Transpose -> Reshape
    Reshape -> Transpose -> Reshape -> (Add ->) LayerNormalization

is how windows of an image are cut out, rolled, and put back. However many steps there are, whole rows change places within each
item of the batch; a kernel that normalizes rows reads them wherever they are, so that nothing is moved for it. Where several rows
make one that is normalized, as those of four neighbours, they are looked up in one step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Array, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ir.dims import divide_exactly, evaluate, names_in, product
from miniinfer_cli.ir.parts import copy_node
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.reshape_targets import insert_reshape

MOST_ELEMENTS = 1 << 22
"""Of a tensor of one item, by which is found out where its rows go."""
_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization")
_MOVING = ("Concat", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
_CUTTING = ("Concat", "Slice", "Split")
_DATA_ALONE = ("Concat",)  # of whose operands each is data; of others the first is


@dataclass(frozen=True, slots=True)
class Region:
    """Nodes that move rows of ``source``, in the graph's order; of what they make others read ``result`` alone."""

    nodes: tuple[Node, ...]
    source: Value
    result: Value


def look_up_rows(graph: Graph) -> int:
    """Gives the number of movements that became one Gather."""
    count = 0
    for norm in graph.nodes:
        if norm in graph and norm.is_op(*_NORMALIZATIONS) and _is_of_last_axis(norm):
            place = {node: number for number, node in enumerate(graph)}
            behind = _behind(graph, norm.output, place)
            if behind is not None and _look_up(graph, behind, norm):
                count += 1
            for value in (norm.inputs[0], *_added(graph, norm)):
                front = None if value is None else _in_front(graph, value, place)
                count += front is not None and _look_up(graph, front, None)
    if count:
        remove_dead_nodes(graph)
    return count


def _is_of_last_axis(norm: Node) -> bool:
    shape = dims(norm.inputs[0])
    affine = [dims(v) for v in norm.inputs[1:] if v is not None]
    last = shape is not None and len(shape) > 1 and norm.attrs.get("axis", -1) in (-1, len(shape) - 1)
    return last and len(norm.outputs) == 1 and all(d is not None and len(d) == 1 for d in affine)


def _added(graph: Graph, norm: Node) -> Sequence[Value | None]:
    """What is added up to what ``norm`` reads."""
    x = norm.inputs[0]
    add = None if x is None else x.producer
    return add.inputs if add is not None and add.is_op("Add") and all(dims(v) == dims(x) for v in add.inputs) else ()


# -- what moves --------------------------------------------------------------------------------------------------------


def _data(node: Node) -> list[Value]:
    """The operands that a moving node moves."""
    return [v for v in (node.inputs if node.op in _DATA_ALONE else node.inputs[:1]) if v is not None]


def _moves(node: Node | None) -> bool:
    """Whether a node gives elements that it reads, at places that are known."""
    if node is None or node.domain or node.op not in _MOVING:
        return False
    if node.op not in _DATA_ALONE and any(v is not None and v.constant is None for v in node.inputs[1:]):
        return False
    if node.op not in _CUTTING:
        return True
    # Along an axis whose size is not known, more could happen than two sizes show.
    pairs = [(dims(v), dims(y)) for v in _data(node) for y in node.outputs]
    return all(
        x is not None
        and y is not None
        and all(a == b or (isinstance(a, int) and isinstance(b, int)) for a, b in zip(x, y, strict=True))
        for x, y in pairs
    )


def _behind(graph: Graph, source: Value, place: Mapping[Node, int]) -> Region | None:
    """All that reads ``source``, where it moves it to one result."""
    if graph.is_output(source) or not all(_moves(u) for u in source.users):
        return None
    found: dict[Node, None] = {}
    made = {source}
    for node in sorted(_reached(source), key=place.__getitem__):
        if _moves(node) and made.issuperset(_data(node)):
            found[node] = None
            made.update(node.outputs)
    return _region(graph, tuple(found), source)


def _reached(source: Value) -> set[Node]:
    """Moving nodes that read ``source``, or what others of them make of it."""
    found: set[Node] = set()
    left = list(source.users)
    while left:
        node = left.pop()
        if node not in found and _moves(node):
            found.add(node)
            left += [u for v in node.outputs for u in v.users]
    return found


def _in_front(graph: Graph, result: Value, place: Mapping[Node, int]) -> Region | None:
    """What makes ``result`` by moving rows of one value."""
    if not _moves(result.producer):
        return None
    found: set[Node] = set()
    left, sources = {result}, set[Value]()
    while left:
        # What is made last comes first, so that all who read a value have been looked at before it is.
        value = max(left, key=lambda v: -1 if v.producer is None else place[v.producer])
        left.remove(value)
        node = value.producer
        inner = value is result or (not graph.is_output(value) and found.issuperset(value.users))
        if node is not None and inner and _moves(node):
            found.add(node)
            left.update(_data(node))
        else:
            sources.add(value)
    if len(sources) != 1:
        return None
    return _region(graph, tuple(sorted(found, key=place.__getitem__)), next(iter(sources)))


def _region(graph: Graph, nodes: tuple[Node, ...], source: Value) -> Region | None:
    if not any(n.is_op("Concat", "Transpose") for n in nodes):  # parts are read where they lie
        return None
    ends = [v for n in nodes for v in n.outputs if graph.is_output(v) or any(u not in nodes for u in v.users)]
    return Region(nodes, source, ends[0]) if len(ends) == 1 and not graph.is_output(ends[0]) else None


# -- where rows go -----------------------------------------------------------------------------------------------------


def _look_up(graph: Graph, region: Region, norm: Node | None) -> bool:
    """Puts a Gather in the place of the region; ``norm``, which makes its source, then comes behind. False where it cannot."""
    found = _places(region)
    if found is None:
        return False
    count, places = found
    read = region.source if norm is None else norm.inputs[0]
    last, name = region.nodes[-1], region.result.name
    shape, wanted = dims(region.source), dims(region.result)
    assert read is not None and shape is not None and wanted is not None
    items = divide_exactly(product(shape[:-1]), count)
    if items is None or product(wanted) != items * places.size * shape[-1] or (norm is not None and wanted[-1] != shape[-1]):
        return False
    flat = insert_reshape(graph, read, (items, count, shape[-1]), before=last, out=f"{name}_flat")
    if flat is None:
        return False
    index = graph.add_constant(places, f"{name}_places")
    rows = insert(graph, "Gather", flat, index, before=last, out=f"{name}_rows", axis=1)
    if norm is not None:
        rows = insert(graph, norm.op, rows, *norm.inputs[1:], before=last, out=norm.output.name, **{**norm.attrs, "axis": -1})
        assert rows.producer is not None
        graph.rename_node(rows.producer, norm.name)
        graph.add_origins(rows.producer, norm.origins)
    made = insert_reshape(graph, rows, wanted, before=last, out=name)
    if made is None or made.type != region.result.type:
        return False
    graph.replace_uses(region.result, made)
    return True


def _places(region: Region) -> tuple[int, Array] | None:
    """How many rows an item has, and which of them each row of the result is; None where something else is moved than rows."""
    names = {name for v in (region.source, region.result) for d in dims(v) or () for name in names_in(d)}
    one = _moved(region, dict.fromkeys(names, 1))
    if one is None:
        return None
    count, rows = one
    if names:
        two = _moved(region, dict.fromkeys(names, 2))
        if (
            two is None
            or two[0] != 2 * count
            or not np.array_equal(two[1].reshape(-1), np.concatenate([rows, rows + count], None))
        ):
            return None
    else:
        items = math.gcd(*((dims(v) or (1,))[0] for v in (region.source, region.result)))
        each = rows.reshape(items, -1)
        count //= items
        if not np.array_equal(each, each[0] + count * np.arange(items)[:, None]):
            return None
        rows = each[0].reshape(rows.shape[0] // items, *rows.shape[1:])
    if np.array_equal(rows.reshape(-1), np.arange(count)):
        return None
    return count, (rows[0] if rows.ndim > 1 and rows.shape[0] == 1 else rows).astype(np.int32)


def _moved(region: Region, sizes: Mapping[str, int]) -> tuple[int, Array] | None:
    """How many rows there are at these sizes, and which of them each row of the result is, or each part of one."""
    shape = [evaluate(d, sizes) for d in dims(region.source) or ()]
    if not shape or any(n is None for n in shape) or math.prod(n or 0 for n in shape) > MOST_ELEMENTS:
        return None
    whole = tuple(int(n or 0) for n in shape)
    count = math.prod(whole[:-1])
    graph = Graph("moved")
    values = {region.source: graph.add_input("rows", TensorType(DType.I32, whole))}
    for node in region.nodes:
        copy_node(graph, node, values)
    graph.set_outputs([values[region.result]])
    numbers = np.broadcast_to(np.arange(count, dtype=np.int32).reshape(*whole[:-1], 1), whole)
    try:
        (made,) = interpret(graph, [numbers])
    except MiniinferError:  # a shape that is of some sizes alone
        return None
    wanted = tuple(evaluate(d, sizes) for d in dims(region.result) or ())
    if made.shape != wanted or made.size == 0 or made.shape[-1] % whole[-1]:
        return None
    pieces = made.reshape(*made.shape[:-1], -1, whole[-1])
    if (pieces != pieces[..., :1]).any():
        return None
    rows = pieces[..., 0]
    return count, rows[..., 0] if rows.shape[-1] == 1 else rows
