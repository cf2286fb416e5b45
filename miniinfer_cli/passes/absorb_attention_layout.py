"""What Attention can say itself is taken out of its operands: repeated heads, and transposes that split heads off.

Attention of rank 4 lets several query heads share one head of keys and values, so an explicit repetition goes. When q, k and v
each are Transpose [0, 2, 1, 3] of [batch, length, heads, size], and so is what is done to the result, Attention of rank 3 reads
[batch, length, heads * size] as it is, and four transposes go.
"""

import numpy as np

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims, sole_user

_SPLIT_HEADS = [0, 2, 1, 3]


def absorb_attention_layout(graph: Graph) -> int:
    """Rewrites the Attention nodes that have such operands."""
    return sum(_unrepeat(graph, n) + _merge_heads(graph, n) for n in graph.nodes if n in graph and n.is_op("Attention"))


def _unrepeat(graph: Graph, node: Node) -> bool:
    q, k, v, *rest = node.inputs
    if len(dims(q) or ()) != 4 or len(node.outputs) != 1:
        return False
    shared = [_repeated(x) for x in (k, v)]
    if any(s is None for s in shared) or (dims(shared[0]) or ())[1] != (dims(shared[1]) or ())[1]:
        return False
    graph.set_inputs(node, (q, *shared, *rest))
    return True


def _repeated(value: Value | None) -> Value | None:
    """``x`` [batch, heads, length, size] when ``value`` is it with each head repeated: Unsqueeze, Expand, Reshape."""
    merged = _producer(value, "Reshape")
    expanded = _producer(merged.inputs[0], "Expand") if merged is not None else None
    apart = expanded.inputs[0] if expanded is not None else None
    source = apart.producer if apart is not None else None
    if merged is None or expanded is None or source is None or not source.is_op("Unsqueeze", "Reshape"):
        return None
    x = source.inputs[0]
    shape, one, many, result = dims(x), dims(apart), dims(expanded.output), dims(value)
    if shape is None or one is None or many is None or result is None or len(shape) != 4 or len(one) != 5 or len(result) != 4:
        return None
    batch, heads, length, size = shape
    if one != (batch, heads, 1, length, size) or many[:2] != (batch, heads) or many[3:] != (length, size):
        return None
    return x if result == (batch, heads * many[2], length, size) else None


def _merge_heads(graph: Graph, node: Node) -> bool:
    if len(node.outputs) != 1 or len(node.inputs) > 4:
        return False
    apart = [_producer(v, "Transpose") for v in node.inputs[:3]]
    reader = sole_user(graph, node.output)
    if any(t is None or t.attrs.get("perm") != _SPLIT_HEADS for t in apart) or reader is None:
        return False
    if not reader.is_op("Transpose") or reader.attrs.get("perm") != _SPLIT_HEADS:
        return False
    sources = [t.inputs[0] for t in apart if t is not None]
    heads = [(dims(s) or (0, 0, 0))[2] for s in sources]
    if not all(isinstance(h, int) for h in heads):
        return False
    target = graph.add_constant(np.array([0, 0, -1], np.int64), "merged_heads")
    operands = [insert(graph, "Reshape", s, target, before=reader, out=f"{node.output.name}_rows") for s in sources]
    attrs = {**node.attrs, "q_num_heads": heads[0], "kv_num_heads": heads[1]}
    rows = insert(graph, "Attention", *operands, *node.inputs[3:], before=reader, out=node.output.name, **attrs)
    split = graph.add_constant(np.array([0, 0, heads[0], -1], np.int64), "split_heads")
    graph.replace_uses(reader.output, insert(graph, "Reshape", rows, split, before=reader, out=reader.output.name))
    graph.remove(reader)
    graph.remove(node)
    return True


def _producer(value: Value | None, op: str) -> Node | None:
    node = value.producer if value is not None else None
    return node if node is not None and node.is_op(op) else None
