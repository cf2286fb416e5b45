"""Activation functions written out in arithmetic: the ``expand`` of each, for backends and passes that want primitives.

Constants take the operand's element type, so for half-width types each step is rounded.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.ir import Graph, Node, Value, numpy_dtype
from miniinfer_cli.ops.insert import insert

Expansion = tuple[Value, ...]


def leaky_relu(graph: Graph, node: Node) -> Expansion:
    """Where(x < 0, x * alpha, x)."""
    emit, x = _writer(graph, node)
    return (emit("Where", emit("Less", x, 0), emit("Mul", x, node.attrs.get("alpha", 0.01)), x),)


def prelu(graph: Graph, node: Node) -> Expansion:
    """Where(x < 0, x * slope, x)."""
    emit, x = _writer(graph, node)
    return (emit("Where", emit("Less", x, 0), emit("Mul", x, node.inputs[1]), x),)


def elu(graph: Graph, node: Node) -> Expansion:
    """Where(x > 0, x, alpha * (exp(min(x, 0)) - 1))."""
    emit, x = _writer(graph, node)
    return (_exponential_unit(emit, x, node.attrs.get("alpha", 1.0)),)


def selu(graph: Graph, node: Node) -> Expansion:
    """gamma * elu(x)."""
    emit, x = _writer(graph, node)
    unit = _exponential_unit(emit, x, node.attrs.get("alpha", 1.6732632))
    return (emit("Mul", unit, node.attrs.get("gamma", 1.050701)),)


def celu(graph: Graph, node: Node) -> Expansion:
    """max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)."""
    emit, x = _writer(graph, node)
    alpha = node.attrs.get("alpha", 1.0)
    low = emit("Mul", emit("Sub", emit("Exp", emit("Div", x, alpha)), 1), alpha)
    return (emit("Add", emit("Relu", x), emit("Min", low, 0)),)


def hard_sigmoid(graph: Graph, node: Node) -> Expansion:
    """Clip(x * alpha + beta, 0, 1)."""
    emit, x = _writer(graph, node)
    return (_hard_sigmoid(emit, x, node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)),)


def hard_swish(graph: Graph, node: Node) -> Expansion:
    """x * Clip(x / 6 + 0.5, 0, 1)."""
    emit, x = _writer(graph, node)
    return (emit("Mul", x, _hard_sigmoid(emit, x, 1 / 6, 0.5)),)


def softplus(graph: Graph, node: Node) -> Expansion:
    """max(x, 0) + log(1 + exp(-|x|)), which overflows nowhere."""
    emit, x = _writer(graph, node)
    return (_softplus(emit, x),)


def softsign(graph: Graph, node: Node) -> Expansion:
    """x / (1 + |x|)."""
    emit, x = _writer(graph, node)
    return (emit("Div", x, emit("Add", emit("Abs", x), 1)),)


def thresholded_relu(graph: Graph, node: Node) -> Expansion:
    """Where(x > alpha, x, 0)."""
    emit, x = _writer(graph, node)
    return (emit("Where", emit("Greater", x, node.attrs.get("alpha", 1.0)), x, 0),)


def gelu(graph: Graph, node: Node) -> Expansion:
    """x * (0.5 * (1 + erf(x / sqrt 2))), or the formula in tanh."""
    emit, x = _writer(graph, node)
    if node.attrs.get("approximate", "none") == "tanh":
        cubic = emit("Mul", emit("Add", emit("Mul", emit("Mul", x, x), 0.044715), 1), x)
        inner = emit("Tanh", emit("Mul", cubic, math.sqrt(2 / math.pi)))
    else:
        inner = emit("Erf", emit("Mul", x, math.sqrt(0.5)))
    return (emit("Mul", x, emit("Mul", emit("Add", inner, 1), 0.5)),)


def mish(graph: Graph, node: Node) -> Expansion:
    """x * tanh(softplus(x))."""
    emit, x = _writer(graph, node)
    return (emit("Mul", x, emit("Tanh", _softplus(emit, x))),)


def swish(graph: Graph, node: Node) -> Expansion:
    """x * sigmoid(alpha * x)."""
    emit, x = _writer(graph, node)
    return (_swish(emit, x, node.attrs.get("alpha", 1.0)),)


def swiglu(graph: Graph, node: Node) -> Expansion:
    """a * sigmoid(alpha * a) * b."""
    emit, a = _writer(graph, node)
    return (emit("Mul", _swish(emit, a, node.attrs.get("alpha", 1.0)), node.inputs[1]),)


_Emit = Callable[..., Value]


def _exponential_unit(emit: _Emit, x: Value, alpha: float) -> Value:
    low = emit("Mul", emit("Sub", emit("Exp", emit("Min", x, 0)), 1), alpha)
    return emit("Where", emit("Greater", x, 0), x, low)


def _hard_sigmoid(emit: _Emit, x: Value, alpha: float, beta: float) -> Value:
    return emit("Clip", emit("Add", emit("Mul", x, alpha), beta), 0, 1)


def _softplus(emit: _Emit, x: Value) -> Value:
    tail = emit("Log", emit("Add", emit("Exp", emit("Neg", emit("Abs", x))), 1))
    return emit("Add", emit("Relu", x), tail)


def _swish(emit: _Emit, x: Value, alpha: float) -> Value:
    return emit("Mul", x, emit("Sigmoid", x if alpha == 1 else emit("Mul", x, alpha)))


def _writer(graph: Graph, node: Node) -> tuple[_Emit, Value]:
    """A function that adds a node before ``node`` (numbers become constants of the operand's type), and the operand."""
    x = node.inputs[0]
    if x is None:
        raise ValueError(f"{node!r} has no operand")
    dtype = numpy_dtype(x.tensor.dtype)

    def emit(op: str, *operands: Any) -> Value:
        values = [o if isinstance(o, Value) else graph.add_constant(np.array(o, dtype)) for o in operands]
        return insert(graph, op, *values, before=node)

    return emit, x
