"""What Attention can say itself is taken out of its operands: repeated heads, and transposes that split heads off.

Attention of rank 4 lets several query heads share one head of keys and values, so an explicit repetition goes. When q, k and v
each are Transpose [0, 2, 1, 3] of [batch, length, heads, size], and so is what is done to the result, Attention of rank 3 reads
[batch, length, heads * size] as it is, and four transposes go.
"""

import numpy as np

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.movement import Plan, chain_above, is_writable, movement_of, write
from miniinfer_cli.passes.operands import dims, sole_user
from miniinfer_cli.passes.reshape_targets import insert_reshape

_SPLIT_HEADS = [0, 2, 1, 3]


def absorb_attention_layout(graph: Graph) -> int:
    """Rewrites the Attention nodes that have such operands."""
    return sum(_unrepeat(graph, n) + _merge_heads(graph, n) for n in graph.nodes if n in graph and n.is_op("Attention"))


def _unrepeat(graph: Graph, node: Node) -> bool:
    q, k, v, *rest = node.inputs
    if len(dims(q) or ()) != 4 or len(node.outputs) != 1:
        return False
    apart = [_repeated(x) for x in (k, v)]
    shapes = [dims(x) or (0, 0) for x in apart]
    if any(x is None for x in apart) or shapes[0][1] != shapes[1][1]:
        return False
    shared = [
        insert_reshape(graph, x, (*shape[:2], *shape[3:]), before=node, out=f"{x.name}_shared")
        for x, shape in zip(apart, shapes, strict=True)
        if x is not None
    ]
    if any(x is None for x in shared):
        return False
    graph.set_inputs(node, (q, *shared, *rest))
    return True


def _repeated(value: Value | None) -> Value | None:
    """``x`` [batch, heads, 1, length, size] when ``value`` is it with each head repeated, by Expand or Tile and Reshape."""
    merged = _producer(value, "Reshape")
    expanded = merged.inputs[0].producer if merged is not None and merged.inputs[0] is not None else None
    if expanded is None or not expanded.is_op("Expand", "Tile"):
        return None
    x = expanded.inputs[0]
    one, many, result = dims(x), dims(expanded.output), dims(value)
    if one is None or many is None or result is None or len(one) != 5 or len(many) != 5 or one[2] != 1:
        return None
    batch, heads, _, length, size = one
    if many[:2] != (batch, heads) or many[3:] != (length, size):
        return None
    return x if result == (batch, heads * many[2], length, size) else None


def _merge_heads(graph: Graph, node: Node) -> bool:
    if len(node.outputs) != 1 or len(node.inputs) > 4:
        return False
    reader = sole_user(graph, node.output)
    rows = [_rows(graph, v) for v in node.inputs[:3]]
    heads = [(dims(v) or (0, 0))[1] for v in node.inputs[:2]]
    if reader is None or not reader.is_op("Transpose") or reader.attrs.get("perm") != _SPLIT_HEADS:
        return False
    if any(r is None for r in rows) or not all(isinstance(h, int) for h in heads):
        return False
    name = f"{node.output.name}_rows"
    operands = [write(graph, x, plan, before=reader, out=name) for x, plan in (r for r in rows if r is not None)]
    attrs = {**node.attrs, "q_num_heads": heads[0], "kv_num_heads": heads[1]}
    merged = insert(graph, "Attention", *operands, *node.inputs[3:], before=reader, out=node.output.name, **attrs)
    split = graph.add_constant(np.array([0, 0, heads[0], -1], np.int64), "split_heads")
    graph.replace_uses(reader.output, insert(graph, "Reshape", merged, split, before=reader, out=reader.output.name))
    graph.remove(reader)
    graph.remove(node)
    return True


def _rows(graph: Graph, value: Value | None) -> tuple[Value, Plan] | None:
    """What ``value`` [batch, heads, length, size] was made from, and how it becomes [batch, length, heads * size] without a
    Transpose; None when it does not.
    """
    shape = dims(value)
    chain = chain_above(graph, value) if value is not None else []
    movement = movement_of(chain)
    if movement is None or shape is None or len(shape) != 4:
        return None
    batch, heads, length, size = shape
    movement.axes = [movement.axes[axis] for axis in _SPLIT_HEADS]
    if not movement.view((batch, length, heads * size)):
        return None
    plan = movement.plan()
    x = chain[0].inputs[0]
    return (x, plan) if x is not None and plan.perm is None and is_writable(movement, plan) else None


def _producer(value: Value | None, op: str) -> Node | None:
    node = value.producer if value is not None else None
    return node if node is not None and node.is_op(op) else None
