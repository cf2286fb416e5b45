"""What moves data and may move integers in the place of the floats that they stand for: asked by the passes that make it so."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import infer_node
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.stored_numbers import only_moves
from miniinfer_cli.passes.operands import constant_handle

_REVERSED = {"QuantizeLinear": "DequantizeLinear", "DequantizeLinear": "QuantizeLinear"}


def moves_data(node: Node) -> bool:
    """Whether the node's results are elements of its first operands, or the largest of some."""
    is_pool = node.is_op("MaxPool") or (node.domain, node.op) == (OURS, "MaxPoolNHWC")
    return (is_pool or only_moves(node)) and all(is_float(v) for v in node.outputs)


def moves_one_operand(node: Node) -> bool:
    """Whether the node's results are elements of its first operand alone, in other places or under other sizes."""
    return only_moves(node) and [v for v in node.inputs if v is not None and is_float(v)] == [*node.inputs[:1]]


def leads_to_attention(graph: Graph, node: Node) -> bool:
    """Whether all that the node gives is moved to nothing but queries, keys and values of attention."""
    for value in node.outputs:
        if graph.is_output(value):
            return False
        for user in value.users:
            is_operand = user.is_op("Attention") and all(v is not value for v in user.inputs[3:])
            if not is_operand and not (moves_one_operand(user) and leads_to_attention(graph, user)):
                return False
    return True


def takes_integers(node: Node, inputs: Sequence[Value | None], dtype: DType) -> bool:
    """Whether the node may have these inputs, those of floats as integers of ``dtype``."""
    types = [None if v is None else replace(v.tensor, dtype=dtype, known=None) if is_float(v) else v.type for v in inputs]
    try:
        infer_node(node, types)
    except ModelError:
        return False
    return True


def same_numbers(a: Node, b: Node) -> bool:
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


def undone(node: Node) -> Node | None:
    """The QuantizeLinear that a DequantizeLinear undoes, or the other way round: same numbers, and the same type as before.

    None where ``node`` undoes none.
    """
    value = node.inputs[0] if node.op in _REVERSED else None
    before = None if value is None else value.producer
    if before is None or not before.is_op(_REVERSED[node.op]) or not same_numbers(before, node):
        return None
    return before if dtype_of_value(before.inputs[0]) is dtype_of_value(node.output) else None


def attrs_of_one_scale(node: Node) -> dict[str, Any]:
    """The attributes of a node that quantizes or dequantizes by one number each, for a tensor of another shape."""
    return {name: value for name, value in node.attrs.items() if name != "axis"}


def is_float(value: Value) -> bool:
    """True for a tensor of floats."""
    return dtype_of_value(value) in (DType.F32, DType.F16, DType.BF16, DType.F64)


def dtype_of_value(value: Value | None) -> DType | None:
    """The element type of a tensor; None for anything else."""
    return value.type.dtype if value is not None and isinstance(value.type, TensorType) else None
