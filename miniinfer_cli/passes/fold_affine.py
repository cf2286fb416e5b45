"""Mul, Div, Add and Sub by constants per channel -> into the weights and bias of what comes before them.

    Conv, ConvTranspose -> Mul, Div     weights and bias are scaled
    Conv, ConvTranspose -> Add, Sub     becomes the bias, or goes into it
    MatMul [-> Add]     -> Mul, Div     weights (and the constant of the Add) are scaled

A weight is scaled only when nobody else reads it, as a recipe, and where the result is as exact: what would overflow, become
subnormal, or is divided by 0 stays arithmetic (``exact_scaling``).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import Array, Constant, Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.convolution_weights import bias_handle, map_weights, replace_behind, scaled_weights
from miniinfer_cli.passes.exact_scaling import can_scale, is_finite, stored_type, wide
from miniinfer_cli.passes.operands import constant_handle, dims, same_type, sole_user
from miniinfer_cli.passes.recipes import map_constants, reshape_constant

_FUNCTIONS: dict[str, Callable[..., Array]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


def fold_affine(graph: Graph) -> int:
    """Gives the number of elementwise operations that went into weights."""
    return sum(_fold(graph, node) for node in graph.nodes if node.domain == "" and node.op in _FUNCTIONS)


@dataclass(frozen=True, slots=True)
class _Affine:
    """``node`` is y op numbers: one per channel of ``y`` in a vector, or a single one of rank 0. ``source`` makes ``y``."""

    node: Node
    source: Node
    y: Value
    numbers: Constant

    def applied_to(self, handle: Constant, shape: tuple[int, ...]) -> Constant:
        """``handle`` op the numbers, broadcast to ``shape``."""
        return map_constants(wide(_FUNCTIONS[self.node.op]), [handle, self.numbers], handle.dtype, shape, self.node.op)


def _fold(graph: Graph, node: Node) -> bool:
    affine = _match(graph, node)
    if affine is None:
        return False
    if affine.source.is_op("Conv", "ConvTranspose"):
        return _into_bias(graph, affine) if node.op in ("Add", "Sub") else _into_kernels(graph, affine)
    return node.op in ("Mul", "Div") and _into_product(graph, affine)


def _match(graph: Graph, node: Node) -> _Affine | None:
    pairs = [node.inputs] if node.op in ("Div", "Sub") else [node.inputs, node.inputs[::-1]]
    for y, operand in pairs:
        handle = constant_handle(operand)
        if y is None or y.producer is None or handle is None or sole_user(graph, y) is not node:
            continue
        shape = dims(y)
        if not shape or not y.tensor.dtype.is_float or not same_type(y, node.output):
            continue
        axis = 1 if y.producer.is_op("Conv", "ConvTranspose") else len(shape) - 1
        padded = (1,) * (len(shape) - len(handle.shape)) + handle.shape
        if all(n == 1 or i == axis for i, n in enumerate(padded)):
            return _Affine(node, y.producer, y, reshape_constant(handle, () if handle.size == 1 else (handle.size,)))
    return None


def _into_bias(graph: Graph, affine: _Affine) -> bool:
    x, weight, bias = (*affine.source.inputs, None)[:3]
    old = bias_handle(affine.source)
    if old is None:
        return False
    shifted = affine.applied_to(old, old.shape)
    if not is_finite(shifted):
        return False
    new = graph.add_constant(shifted, bias.name if bias else f"{affine.y.name}_bias")
    replace_behind(graph, affine.source, affine.node, [x, weight, new])
    return True


def _into_kernels(graph: Graph, affine: _Affine) -> bool:
    source, node = affine.source, affine.node
    x, _, bias = (*source.inputs, None)[:3]
    old = constant_handle(bias)
    if bias is not None and old is None:
        return False
    new = None if old is None else affine.applied_to(old, old.shape)
    if new is not None and not is_finite(new, stored_type(graph, new.dtype)):
        return False
    weight = scaled_weights(graph, source, affine.numbers, _FUNCTIONS[node.op], node.op)
    if weight is None:
        return False
    inputs = [x, weight]
    if bias is not None and new is not None:
        inputs.append(graph.add_constant(new, bias.name))
    replace_behind(graph, source, node, inputs)
    return True


def _into_product(graph: Graph, affine: _Affine) -> bool:
    product, bias = affine.source, None
    if product.is_op("Add"):
        y, bias = product.inputs if constant_handle(product.inputs[1]) is not None else product.inputs[::-1]
        if y is None or y.producer is None or sole_user(graph, y) is not product or not same_type(y, product.output):
            return False
        product = y.producer
    old = constant_handle(bias)
    weight = product.inputs[1] if product.is_op("MatMul") else None
    handle = constant_handle(weight)
    if weight is None or handle is None or len(handle.shape) < 2 or sole_user(graph, weight) is not product:
        return False
    if bias is not None and old is None:
        return False
    new = None if old is None else affine.applied_to(old, np.broadcast_shapes(old.shape, affine.numbers.shape))
    if new is not None and not is_finite(new, stored_type(graph, new.dtype)):
        return False
    rows = len(handle.shape) - 2
    if not can_scale(handle, affine.numbers.array(), _FUNCTIONS[affine.node.op], [rows], stored=stored_type(graph, handle.dtype)):
        return False
    node, name = affine.node, affine.node.output.name
    outputs = tuple(i for i in range(len(handle.shape)) if i != rows)
    weights = map_weights(_FUNCTIONS[node.op], [handle, affine.numbers], handle, node.op, outputs)
    scaled = graph.add_constant(weights, weight.name)
    y = insert(graph, "MatMul", product.inputs[0], scaled, before=node, out=name if bias is None else f"{name}_product")
    if bias is not None and new is not None:
        y = insert(graph, "Add", y, graph.add_constant(new, bias.name), before=node, out=name)
    graph.replace_node(node, [y])
    return True
