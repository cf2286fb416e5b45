"""What Attention can say itself is taken out of its operands: repeated heads, merged batches, transposes that split heads off.

Attention of rank 4 lets several query heads share one head of keys and values, so an explicit repetition goes. Heads that were
merged with the batch are taken apart again. When q, k and v each are Transpose [0, 2, 1, 3] of [batch, length, heads, size],
and so is what is done to the result, Attention of rank 3 reads [batch, length, heads * size] as it is, and four transposes go
(or fewer, where the length of one came first); a RotaryEmbedding in between works on that form, too.
"""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.movement import Moves, chain_above, is_writable, movement_of, write
from miniinfer_cli.passes.operands import dims, sole_user
from miniinfer_cli.passes.reshape_targets import insert_reshape, reshape_target

_SPLIT_HEADS = [0, 2, 1, 3]
_MASK = 3  # its place among the operands; what follows it is a past, or lengths


def absorb_attention_layout(graph: Graph) -> int:
    """Gives the number of times that an Attention node took something in."""
    count = 0
    for node in graph.nodes:
        if node.is_op("Attention") and len(node.outputs) == 1 and len(node.inputs) <= _MASK + 1:
            for absorb in (_unrepeat, _part_batch, _merge_heads):
                if node in graph:
                    count += absorb(graph, node)
    return count


# -- Repeated heads ----------------------------------------------------------------------------------------------------


def _unrepeat(graph: Graph, node: Node) -> bool:
    q, k, v, *rest = node.inputs
    if len(dims(q) or ()) != 4:
        return False
    apart = [_repeated(x) for x in (k, v)]
    shapes = [dims(x) or () for x in apart]
    shared = [(*shape[:2], *shape[3:]) for shape in shapes]
    if any(x is None for x in apart) or shared[0][1] != shared[1][1]:
        return False
    if any(reshape_target(shape, target) is None for shape, target in zip(shapes, shared, strict=True)):
        return False
    operands = [
        insert_reshape(graph, x, target, before=node, out=f"{x.name}_shared")
        for x, target in zip(apart, shared, strict=True)
        if x is not None
    ]
    graph.set_inputs(node, (q, *operands, *rest))
    return True


def _repeated(value: Value | None) -> Value | None:
    """``x`` [batch, heads, 1, length, size] when ``value`` is it with each head repeated, by Expand or Tile and Reshape."""
    merged = _producer(value, "Reshape")
    expanded = _producer(merged.inputs[0], "Expand", "Tile") if merged is not None else None
    if expanded is None:
        return None
    x = expanded.inputs[0]
    one, many, result = dims(x), dims(expanded.output), dims(value)
    if one is None or many is None or result is None or len(one) != 5 or len(many) != 5 or one[2] != 1:
        return None
    batch, heads, _, length, size = one
    if many[:2] != (batch, heads) or many[3:] != (length, size):
        return None
    return x if result == (batch, heads * many[2], length, size) else None


# -- Heads merged with the batch ---------------------------------------------------------------------------------------


def _part_batch(graph: Graph, node: Node) -> bool:
    """Operands [1, batch * heads, length, size] that are views of [batch, heads, length, size]."""
    apart = [_parted(v) for v in node.inputs[:_MASK]]
    leads = {(dims(v) or ())[:2] for v in apart}
    shape = dims(node.output)
    if any(v is None for v in apart) or len(leads) != 1 or shape is None:
        return False
    ((batch, heads),) = leads
    if reshape_target((batch, heads, *shape[2:]), shape) is None:
        return False
    masks = node.inputs[_MASK:]
    if masks and masks[0] is not None:
        source = _parted(masks[0])
        if source is not None and (dims(source) or ())[:2] == (batch, heads):
            masks = (source,)
        elif any(d != 1 for d in (dims(masks[0]) or ())[:-2]):
            return False
    out = node.output.name
    y = insert(graph, "Attention", *apart, *masks, before=node, out=f"{out}_apart", **node.attrs)
    merged = insert_reshape(graph, y, shape, before=node, out=out)
    assert merged is not None
    graph.replace_node(node, [merged])
    return True


def _parted(value: Value | None) -> Value | None:
    """The tensor [batch, heads, length, size] of which ``value`` [1, batch * heads, length, size] is a view."""
    view = _producer(value, *VIEWS)
    source = view.inputs[0] if view is not None else None
    shape, merged = dims(source), dims(value)
    if shape is None or merged is None or len(shape) != 4 or len(merged) != 4 or shape[0] == 1:
        return None
    return source if merged == (1, shape[0] * shape[1], *shape[2:]) else None


# -- Heads split off by a Transpose ------------------------------------------------------------------------------------


def _merge_heads(graph: Graph, node: Node) -> bool:
    reader = sole_user(graph, node.output)
    rows = [_rows(graph, v) for v in node.inputs[:_MASK]]
    heads = [(dims(v) or (0, 0))[1] for v in node.inputs[:_MASK]]
    if reader is None or not reader.is_op("Transpose") or list(reader.attrs.get("perm", ())) != _SPLIT_HEADS:
        return False
    if any(r is None for r in rows) or not all(isinstance(h, int) for h in heads):
        return False
    if sum(r.saved for r in rows if r is not None) < 0:
        return False
    operands = [_write(graph, r, h, node) for r, h in zip(rows, heads, strict=True) if r is not None]
    attrs = {**node.attrs, "q_num_heads": heads[0], "kv_num_heads": heads[1]}
    merged = insert(graph, "Attention", *operands, *node.inputs[_MASK:], before=node, out=f"{node.output.name}_rows", **attrs)
    split = graph.add_constant(np.array([0, 0, heads[0], -1], np.int64), "split_heads")
    graph.replace_node(reader, [insert(graph, "Reshape", merged, split, before=reader, out=reader.output.name)])
    graph.remove(node)
    return True


@dataclass(frozen=True, slots=True)
class _Rows:
    """How an operand [batch, heads, length, size] comes as [batch, length, heads * size] from ``x``, and is then turned."""

    x: Value
    moves: Moves
    rotary: Node | None
    saved: int  # Transposes fewer than before


def _rows(graph: Graph, value: Value | None) -> _Rows | None:
    """None when that cannot be told."""
    rotary = _producer(value, "RotaryEmbedding")
    if rotary is not None and value is not None and sole_user(graph, value) is not None:
        value = rotary.inputs[0]
    shape = dims(value)
    chain = chain_above(graph, value) if value is not None else []
    movement = movement_of(chain)
    if movement is None or shape is None or len(shape) != 4:
        return None
    batch, heads, length, size = shape
    before = movement.moves()
    movement.axes = [movement.axes[axis] for axis in _SPLIT_HEADS]
    if not movement.view((batch, length, heads * size)):
        return None
    moves, x = movement.moves(), chain[0].inputs[0]
    saved = int(before.perm is not None) - int(moves.perm is not None)
    return _Rows(x, moves, rotary, saved) if x is not None and is_writable(movement, moves) else None


def _write(graph: Graph, rows: _Rows, heads: int, before: Node) -> Value:
    value = write(graph, rows.x, rows.moves, before=before, out=f"{rows.x.name}_rows")
    if rows.rotary is None:
        return value
    attrs = {**rows.rotary.attrs, "num_heads": heads}
    out = f"{rows.rotary.output.name}_rows"
    return insert(graph, "RotaryEmbedding", value, *rows.rotary.inputs[1:], before=before, out=out, **attrs)


def _producer(value: Value | None, *ops: str) -> Node | None:
    node = value.producer if value is not None else None
    return node if node is not None and node.is_op(*ops) else None
