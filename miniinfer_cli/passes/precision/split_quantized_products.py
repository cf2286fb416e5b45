"""QLinearConv and QLinearMatMul -> DequantizeLinear, the product of floats, QuantizeLinear: as other tools write the same.

Everything else then sees one form. Results are within one step: the sums are scaled in f32 either way, and a bias is added to
them as floats.
"""

import numpy as np

from miniinfer_cli.ir import Constant, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import constant_handle
from miniinfer_cli.passes.recipes import reshape_constant

_BYTES = (DType.I8, DType.U8)


def split_quantized_products(graph: Graph) -> int:
    """Gives the number of products taken apart."""
    fired = 0
    for node in graph.nodes:
        if node.is_op("QLinearConv", "QLinearMatMul") and _is_plain(node):
            _split(graph, node)
            fired += 1
    return fired


def _is_plain(node: Node) -> bool:
    """Whether numbers are constants, one for each tensor or, of the second factor, for each of its columns or features."""
    handles = [constant_handle(v) for v in node.inputs[:8]]
    types = [v.type if v is not None else None for v in node.inputs[:8]]
    if any(handles[i] is None for i in (1, 2, 4, 5, 6, 7)):
        return False
    if any(not isinstance(types[i], TensorType) or types[i].dtype not in _BYTES for i in (0, 3, 7)):  # type: ignore[union-attr]
        return False
    if any(not isinstance(types[i], TensorType) or types[i].dtype is not DType.F32 for i in (1, 4, 6)):  # type: ignore[union-attr]
        return False
    if any(h is not None and h.size != 1 for h in (handles[1], handles[2], handles[6], handles[7])):
        return False
    w = types[3]
    rank = w.rank if isinstance(w, TensorType) else None
    alone = all(h is not None and h.size == 1 for h in (handles[4], handles[5]))
    vector = all(h is not None and len(h.shape) <= 1 for h in (handles[4], handles[5]))
    return alone or (vector and (node.is_op("QLinearConv") or rank == 2))


def _split(graph: Graph, node: Node) -> None:
    x, xs, xz, w, ws, wz, ys, yz = node.inputs[:8]
    wide_x = _dequantized(graph, node, x, xs, xz, 0)
    wide_w = _dequantized(graph, node, w, ws, wz, 0 if node.is_op("QLinearConv") else 1)
    if node.is_op("QLinearConv"):
        bias = node.inputs[8] if len(node.inputs) > 8 else None
        operands = [wide_x, wide_w]
        if bias is not None:
            scale = insert(graph, "Mul", _single(graph, xs), ws, before=node, out=f"{node.output.name}_bias_scale")
            operands.append(insert(graph, "DequantizeLinear", bias, scale, before=node, out=f"{node.output.name}_bias", axis=0))
        y = insert(graph, "Conv", *operands, before=node, out=f"{node.output.name}_wide", **node.attrs)
    else:
        y = insert(graph, "MatMul", wide_x, wide_w, before=node, out=f"{node.output.name}_wide")
    if y.producer is not None:
        graph.rename_node(y.producer, node.name)
    numbers = (_single(graph, ys), _single(graph, yz))
    graph.replace_node(node, [insert(graph, "QuantizeLinear", y, *numbers, before=node, out=node.output.name)])


def _dequantized(graph: Graph, node: Node, value: Value | None, scale: Value | None, zero: Value | None, axis: int) -> Value:
    handle, point = constant_handle(scale), constant_handle(zero)
    assert value is not None and scale is not None and handle is not None and point is not None
    if max(handle.size, point.size) == 1:
        numbers = (_single(graph, scale), _single(graph, zero))
    else:
        count = max(handle.size, point.size)
        numbers = (_vector(graph, handle, count, scale.name), _vector(graph, point, count, "zero_point"))
    return insert(graph, "DequantizeLinear", value, *numbers, before=node, out=f"{value.name}_dequantized", axis=axis)


def _single(graph: Graph, value: Value | None) -> Value:
    """A constant of one element as a scalar."""
    handle = constant_handle(value)
    assert value is not None and handle is not None
    return value if handle.shape == () else graph.add_constant(reshape_constant(handle, ()), value.name)


def _vector(graph: Graph, handle: Constant, count: int, name: str) -> Value:
    return graph.add_constant(np.broadcast_to(handle.array().reshape(-1), (count,)).copy(), name)
