"""Reshape(DequantizeLinear(x)) -> DequantizeLinear(Reshape(x)), and so on: integers are moved, not the floats they stand for.

That is so under one scale, for all that moves data, and for MaxPool, since the order of numbers stays. A Transpose of dequantized
weights becomes weights that are stored so.
"""

from collections.abc import Sequence

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert, insert_many
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.stored_numbers import dequantizing
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.operands import constant_handle
from miniinfer_cli.passes.precision.quantized_moves import (
    attrs_of_one_scale,
    dtype_of_value,
    is_float,
    leads_to_attention,
    moves_data,
    same_numbers,
    takes_integers,
)
from miniinfer_cli.passes.recipes import transpose_constant


def sink_dequantization(graph: Graph) -> int:
    """Gives the number of nodes that move integers from now on, and of weights turned."""
    fired = 0
    for node in graph.nodes:
        sources = [dequantizing(v) for v in node.inputs]
        first = sources[0] if sources else None
        if first is None:
            continue
        if node.is_op("Transpose") and _turn_weights(graph, node, first):
            fired += 1
            continue
        others = [s for v, s in zip(node.inputs[1:], sources[1:], strict=True) if v is not None and is_float(v)]
        alike = all(s is not None and same_numbers(s, first) for s in others)
        if leads_to_attention(graph, node):
            continue  # which reads floats: they are dequantized once, where they are quantized
        if moves_data(node) and is_pointwise(first) and alike and (not others or node.is_op("Concat")):
            inputs = [v if s is None else s.inputs[0] for v, s in zip(node.inputs, sources, strict=True)]
            fired += _moved(graph, node, inputs, first)
    return fired


def _moved(graph: Graph, node: Node, inputs: Sequence[Value | None], source: Node) -> int:
    """Puts the node over integers in the place of the one over floats; 0 where it does not take these."""
    dtype = dtype_of_value(source.inputs[0])
    if dtype is None or not takes_integers(node, node.inputs, dtype):
        return 0
    names = [v.name for v in node.outputs]
    narrow = insert_many(
        graph, node.op, *inputs, n_outputs=len(names), before=node, out=f"{names[0]}_int", domain=node.domain, **node.attrs
    )
    producer = narrow[0].producer
    assert producer is not None
    graph.rename_node(producer, node.name)
    attrs = attrs_of_one_scale(source)
    wide = [
        insert(graph, "DequantizeLinear", v, *source.inputs[1:], before=node, out=name, **attrs)
        for v, name in zip(narrow, names, strict=True)
    ]
    graph.replace_node(node, wide)
    return 1


def _turn_weights(graph: Graph, node: Node, source: Node) -> bool:
    """Transpose(DequantizeLinear(constant)) -> DequantizeLinear(the constant transposed), and so the scales of blocks."""
    handles, perm = [constant_handle(v) for v in source.inputs], permutation(node)
    if handles[0] is None or perm is None:
        return False
    blocked = bool(source.attrs.get("block_size", 0))
    if blocked and None in handles:
        return False
    turned = [
        graph.add_constant(transpose_constant(h, perm), v.name) if h is not None and v is not None and (blocked or not i) else v
        for i, (h, v) in enumerate(zip(handles, source.inputs, strict=True))
    ]
    axis = source.attrs.get("axis", 1) % max(len(perm), 1)
    attrs = {**source.attrs, "axis": list(perm).index(axis)}
    wide = insert(graph, "DequantizeLinear", *turned, before=node, out=node.output.name, **attrs)
    graph.replace_node(node, [wide])
    return True
