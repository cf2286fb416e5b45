"""Mul, Div, Add and Sub by constants per channel -> into the weights and bias of what comes before them.

    Conv, ConvTranspose -> Mul, Div     weights and bias are scaled
    Conv, ConvTranspose -> Add, Sub     becomes the bias, or goes into it
    MatMul [-> Add]     -> Mul, Div     weights (and the constant of the Add) are scaled

A weight is scaled only when nobody else reads it, and as a recipe: its contents are not touched before the plan is written.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import Array, Constant, Graph, Node, Value, constant
from miniinfer_cli.ir.constants import Filled
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import constant_handle, dims, same_type, sole_user
from miniinfer_cli.passes.recipes import map_constants, reshape_constant

_FUNCTIONS: dict[str, Callable[..., Array]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


def fold_affine(graph: Graph) -> int:
    """Gives the number of elementwise operations that went into weights."""
    return sum(_fold(graph, node) for node in graph.nodes if node.domain == "" and node.op in _FUNCTIONS)


@dataclass(frozen=True, slots=True)
class _Affine:
    """``node`` is y op numbers: one number per channel of ``y``, or a single one, in a vector. ``source`` makes ``y``."""

    node: Node
    source: Node
    y: Value
    numbers: Constant

    def apply(self, handle: Constant, numbers: Constant, shape: tuple[int, ...]) -> Constant:
        """``handle`` op ``numbers``, broadcast to ``shape``."""
        return map_constants(_wide(_FUNCTIONS[self.node.op]), [handle, numbers], handle.dtype, shape, self.node.op)


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
            return _Affine(node, y.producer, y, reshape_constant(handle, (handle.size,)))
    return None


def _into_bias(graph: Graph, affine: _Affine) -> bool:
    x, weight, bias = (*affine.source.inputs, None)[:3]
    channels = (dims(affine.y) or ())[1]
    old = Filled(affine.numbers.dtype, (channels,), 0) if bias is None and isinstance(channels, int) else constant_handle(bias)
    if old is None:
        return False
    new = graph.add_constant(affine.apply(old, affine.numbers, old.shape), bias.name if bias else f"{affine.y.name}_bias")
    _replace(graph, affine, [x, weight, new])
    return True


def _into_kernels(graph: Graph, affine: _Affine) -> bool:
    source = affine.source
    x, weight, bias = (*source.inputs, None)[:3]
    handle, old = constant_handle(weight), constant_handle(bias)
    if weight is None or handle is None or sole_user(graph, weight) is not source or (bias is not None and old is None):
        return False
    scaled = affine.apply(handle, _over_kernels(source, handle.shape, affine.numbers), handle.shape)
    inputs = [x, graph.add_constant(scaled, weight.name)]
    if bias is not None and old is not None:
        inputs.append(graph.add_constant(affine.apply(old, affine.numbers, old.shape), bias.name))
    _replace(graph, affine, inputs)
    return True


def _over_kernels(source: Node, shape: tuple[int, ...], numbers: Constant) -> Constant:
    """The numbers per output channel in the shape in which they broadcast onto the weights."""
    ones = (1,) * (len(shape) - 2)
    if numbers.size == 1 or source.op == "Conv":
        return reshape_constant(numbers, (numbers.size, 1, *ones))
    # ConvTranspose has weights [C, K/group, ...]: all input channels of a group share the group's output channels.
    group = source.attrs.get("group", 1)
    if group == 1:
        return reshape_constant(numbers, (1, numbers.size, *ones))
    return constant(np.repeat(numbers.array().reshape(group, shape[1], *ones), shape[0] // group, axis=0))


def _replace(graph: Graph, affine: _Affine, inputs: list[Value | None]) -> None:
    source, node = affine.source, affine.node
    y = insert(graph, source.op, *inputs, before=source, out=node.output.name, **source.attrs)
    graph.replace_node(node, [y])
    if y.producer is not None:
        y.producer.name = source.name  # a profile shows the layer, not what was folded into it
    graph.remove(source)


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
    node, name = affine.node, affine.node.output.name
    scaled = graph.add_constant(affine.apply(handle, affine.numbers, handle.shape), weight.name)
    y = insert(graph, "MatMul", product.inputs[0], scaled, before=node, out=name if bias is None else f"{name}_product")
    if bias is not None and old is not None:
        shape = np.broadcast_shapes(old.shape, affine.numbers.shape if affine.numbers.size > 1 else ())
        y = insert(
            graph, "Add", y, graph.add_constant(affine.apply(old, affine.numbers, shape), bias.name), before=node, out=name
        )
    graph.replace_node(node, [y])
    return True


def _wide(function: Callable[..., Array]) -> Callable[..., Array]:
    """``function`` computed in f32 for narrower floats; the recipe rounds its result once."""

    def apply(*blocks: Array) -> Array:
        with np.errstate(all="ignore"):
            return function(*(b.astype(np.float32) if b.dtype.itemsize < 4 else b for b in blocks))

    return apply
