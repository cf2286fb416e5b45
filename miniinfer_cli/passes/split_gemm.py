"""Gemm -> MatMul + Add, so that everything below meets one form of a fully connected layer.

Transposition and ``alpha`` of a constant operand go into the constant. A Gemm that transposes or scales a product of two
computed matrices stays one: the libraries do that for nothing. So does one whose factors would make the constants less exact.
"""

import numpy as np

from miniinfer_cli.ir import Array, Constant, Graph, Node, Value, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.exact_scaling import can_scale, is_finite, keeps_digits, stored_type, wide
from miniinfer_cli.passes.operands import constant_handle, sole_user
from miniinfer_cli.passes.recipes import map_constants, transpose_constant


def split_gemm(graph: Graph) -> int:
    """Gives the number of Gemms split."""
    count = 0
    for node in graph.nodes:
        if node.is_op("Gemm") and _split(graph, node):
            count += 1
    return count


def _split(graph: Graph, node: Node) -> bool:
    a, b, c = (*node.inputs, None)[:3]
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    if a is None or b is None or ((alpha != 1 or beta != 1) and not a.tensor.dtype.is_float):
        return False
    if not _can_scale_weight(graph, node, b, alpha) or (c is not None and not _can_scale_bias(graph, c, beta)):
        return False
    left = _operand(graph, a, bool(node.attrs.get("transA")))
    right = _operand(graph, b, bool(node.attrs.get("transB")))
    if left is None or right is None:
        return False
    weight = constant_handle(right)
    if alpha != 1 and weight is not None:
        right = graph.add_constant(_scaled(weight, alpha), b.name)
    with_bias = c is not None and beta != 0
    y = insert(graph, "MatMul", left, right, before=node, out=f"{node.output.name}_product" if with_bias else node.output.name)
    if y.producer is not None:
        graph.rename_node(y.producer, node.name)  # what is fused from here on is known by the layer's name
    if c is not None and with_bias:
        y = insert(graph, "Add", y, _bias(graph, node, c, beta), before=node, out=node.output.name)
    graph.replace_node(node, [y])
    return True


def _operand(graph: Graph, value: Value, transposed: bool) -> Value | None:
    """The factor as MatMul takes it; None when it would have to be transposed at run time."""
    if not transposed:
        return value
    handle = constant_handle(value)
    return None if handle is None else graph.add_constant(transpose_constant(handle, (1, 0)), value.name)


def _bias(graph: Graph, node: Node, c: Value, beta: float) -> Value:
    if beta == 1:
        return c
    handle = constant_handle(c)
    if handle is not None:
        return graph.add_constant(_scaled(handle, beta), c.name)
    factor = graph.add_constant(np.array(beta, numpy_dtype(c.tensor.dtype)), "beta")
    return insert(graph, "Mul", c, factor, before=node, out=f"{c.name}_scaled")


def _can_scale_weight(graph: Graph, node: Node, b: Value, alpha: float) -> bool:
    if alpha == 1:
        return True
    transposed, handle = bool(node.attrs.get("transB")), constant_handle(b)
    if handle is None or (not transposed and sole_user(graph, b) is not node):
        return False  # a copy of a weight that others read takes more than a multiplication
    return can_scale(
        handle, _factor(alpha, handle), np.multiply, [1 if transposed else 0], stored=stored_type(graph, handle.dtype)
    )


def _can_scale_bias(graph: Graph, c: Value, beta: float) -> bool:
    handle, stored = constant_handle(c), stored_type(graph, c.tensor.dtype)
    if beta in (0, 1):
        return True
    return keeps_digits(np.array(beta), stored) if handle is None else is_finite(_scaled(handle, beta), stored)


def _scaled(handle: Constant, factor: float) -> Constant:
    by = _factor(factor, handle)
    return map_constants(wide(lambda block: block * by), [handle], handle.dtype, handle.shape, f"{factor:g} *")


def _factor(factor: float, handle: Constant) -> Array:
    """``factor`` in the type of ``handle``, in f32 for narrower ones."""
    with np.errstate(all="ignore"):
        return np.array(factor, np.promote_types(np.float32, numpy_dtype(handle.dtype)))
