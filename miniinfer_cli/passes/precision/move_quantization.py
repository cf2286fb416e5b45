"""Integers are moved, not the floats that they stand for: DequantizeLinear behind what moves data, QuantizeLinear in front of it.

    Reshape(DequantizeLinear(x)) -> DequantizeLinear(Reshape(x))      QuantizeLinear(Reshape(x)) -> Reshape(QuantizeLinear(x))

under one scale. MaxPool commutes with both, since they keep the order of numbers. A Transpose of dequantized weights becomes
weights that are stored so, and what is quantized as it was before is as it was.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops import OURS, find, insert, insert_many
from miniinfer_cli.ops.inference import infer_node
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.operands import constant_handle, is_pointwise
from miniinfer_cli.passes.recipes import transpose_constant


def sink_dequantization(graph: Graph) -> int:
    """Gives the number of nodes that move integers from now on, and of weights turned."""
    fired = 0
    for node in graph.nodes:
        sources = [_made_by(v, "DequantizeLinear") for v in node.inputs]
        first = sources[0] if sources else None
        if first is None:
            continue
        if node.is_op("Transpose") and _turn_weights(graph, node, first):
            fired += 1
            continue
        others = [s for v, s in zip(node.inputs[1:], sources[1:], strict=True) if v is not None and _is_float(v)]
        alike = all(s is not None and _same_numbers(s, first) for s in others)
        if _moves(node) and is_pointwise(first) and alike and (not others or node.is_op("Concat")):
            inputs = [v if s is None else s.inputs[0] for v, s in zip(node.inputs, sources, strict=True)]
            fired += _moved(graph, node, inputs, first)
    return fired


def raise_quantization(graph: Graph) -> int:
    """Gives the number of nodes that move integers from now on, and of those that quantize no more what was so before."""
    fired = 0
    for node in graph.nodes:
        value = node.inputs[0] if node.is_op("QuantizeLinear") else None
        mover = None if value is None else value.producer
        if value is None or mover is None:
            continue
        if mover.is_op("DequantizeLinear") and _same_numbers(mover, node) and _dtype(mover.inputs[0]) is _dtype(node.output):
            assert mover.inputs[0] is not None
            graph.replace_node(node, [mover.inputs[0]])
            fired += 1
            continue
        if not (_moves(mover) and is_pointwise(node) and len(mover.outputs) == len(value.users) == 1) or graph.is_output(value):
            continue
        floats = [v for v in mover.inputs if v is not None and _is_float(v)]
        if any(v.constant is not None for v in floats) or (len(floats) > 1 and not mover.is_op("Concat")):
            continue
        fired += _quantized_before(graph, mover, node)
    return fired


def _moves(node: Node) -> bool:
    """Whether the node's results are elements of its first operands, or the largest of some."""
    opdef = find(node.domain, node.op)
    if opdef is None or node.graphs or not node.outputs:
        return False
    is_pool = node.is_op("MaxPool") or (node.domain, node.op) == (OURS, "MaxPoolNHWC")
    return (opdef.moves or opdef.view or is_pool) and all(_is_float(v) for v in node.outputs)


def _takes(node: Node, inputs: Sequence[Value | None], dtype: DType) -> bool:
    """Whether the node may have these inputs, those of floats as integers of ``dtype``."""
    types = [None if v is None else replace(v.tensor, dtype=dtype, known=None) if _is_float(v) else v.type for v in inputs]
    try:
        infer_node(node, types)
    except ModelError:
        return False
    return True


def _moved(graph: Graph, node: Node, inputs: Sequence[Value | None], source: Node) -> int:
    """Puts the node over integers in the place of the one over floats; 0 where it does not take these."""
    dtype = _dtype(source.inputs[0])
    if dtype is None or not _takes(node, node.inputs, dtype):
        return 0
    names = [v.name for v in node.outputs]
    narrow = insert_many(
        graph, node.op, *inputs, n_outputs=len(names), before=node, out=f"{names[0]}_int", domain=node.domain, **node.attrs
    )
    producer = narrow[0].producer
    assert producer is not None
    graph.rename_node(producer, node.name)
    attrs = {name: value for name, value in source.attrs.items() if name != "axis"}
    wide = [
        insert(graph, "DequantizeLinear", v, *source.inputs[1:], before=node, out=name, **attrs)
        for v, name in zip(narrow, names, strict=True)
    ]
    graph.replace_node(node, wide)
    return 1


def _quantized_before(graph: Graph, mover: Node, node: Node) -> int:
    dtype = _dtype(node.output)
    if dtype is None or not _takes(mover, mover.inputs, dtype):
        return 0
    attrs = {name: value for name, value in node.attrs.items() if name != "axis"}
    inputs = [
        insert(graph, "QuantizeLinear", v, *node.inputs[1:], before=mover, out=f"{v.name}_int", **attrs)
        if v is not None and _is_float(v)
        else v
        for v in mover.inputs
    ]
    moved = insert(graph, mover.op, *inputs, before=mover, out=node.output.name, domain=mover.domain, **mover.attrs)
    assert moved.producer is not None
    graph.rename_node(moved.producer, mover.name)
    graph.replace_node(node, [moved])
    graph.remove(mover)
    return 1


def _turn_weights(graph: Graph, node: Node, source: Node) -> bool:
    """Transpose(DequantizeLinear(constant)) -> DequantizeLinear(the constant transposed)."""
    handle, perm = constant_handle(source.inputs[0]), permutation(node)
    if handle is None or perm is None or source.attrs.get("block_size", 0):
        return False
    axis = source.attrs.get("axis", 1) % max(len(perm), 1)
    narrow = graph.add_constant(transpose_constant(handle, perm), source.inputs[0].name if source.inputs[0] is not None else "")
    attrs = {**source.attrs, "axis": list(perm).index(axis)}
    wide = insert(graph, "DequantizeLinear", narrow, *source.inputs[1:], before=node, out=node.output.name, **attrs)
    graph.replace_node(node, [wide])
    return True


def _made_by(value: Value | None, op: str) -> Node | None:
    node = None if value is None else value.producer
    return node if node is not None and node.is_op(op) else None


def _same_numbers(a: Node, b: Node) -> bool:
    """Whether scale and zero point are the same, of one number each."""
    if not (is_pointwise(a) and is_pointwise(b)):
        return False
    for i in (1, 2):
        one, other = (n.inputs[i] if len(n.inputs) > i else None for n in (a, b))
        if one is other:
            continue
        left, right = constant_handle(one), constant_handle(other)
        if left is None or right is None:
            return False
        if left.dtype is not right.dtype or not np.array_equal(left.array().reshape(()), right.array().reshape(())):
            return False
    return True


def _is_float(value: Value) -> bool:
    return _dtype(value) in (DType.F32, DType.F16, DType.BF16, DType.F64)


def _dtype(value: Value | None) -> DType | None:
    return value.type.dtype if value is not None and isinstance(value.type, TensorType) else None
