"""Activation functions written out in arithmetic: the ``expand`` of each, for backends and passes that want primitives.

Half-width operands are widened to f32 and the result is rounded once, as the references do.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops.expansion import Expansion

# Attributes are f32 in ONNX, and so are their defaults: these are the doubles that the f32 numbers stand for.
LEAKY_RELU_ALPHA = 0.00999999977648258209228515625
HARD_SIGMOID_ALPHA = 0.20000000298023223876953125
SELU_ALPHA = 1.67326319217681884765625
SELU_GAMMA = 1.05070102214813232421875

Emit = Callable[..., Value]  # emit(op, *operands): the output of a new node; a number stands for a constant


def expansion(write: Callable[..., Value]) -> Callable[[Graph, Node], tuple[Value, ...]]:
    """Makes ``write(emit, *operands, **attributes)`` the expansion of a pointwise operation with one output."""

    @functools.wraps(write)
    def expand(graph: Graph, node: Node) -> tuple[Value, ...]:
        build = Expansion(graph, node)
        operands = [build.widen(build.required(i)) for i in range(len(node.inputs))]
        dtype = operands[0].tensor.dtype

        def emit(op: str, *inputs: Any) -> Value:
            return build.op(op, *(v if isinstance(v, Value) else build.scalar(v, dtype) for v in inputs))

        result = write(emit, *operands, **node.attrs)
        return (build.cast(result, build.required(0).tensor.dtype),)

    return expand


@expansion
def leaky_relu(emit: Emit, x: Value, *, alpha: float = LEAKY_RELU_ALPHA) -> Value:
    """Where(x < 0, x * alpha, x)."""
    return emit("Where", emit("Less", x, 0), emit("Mul", x, alpha), x)


@expansion
def prelu(emit: Emit, x: Value, slope: Value) -> Value:
    """Where(x < 0, x * slope, x)."""
    return emit("Where", emit("Less", x, 0), emit("Mul", x, slope), x)


@expansion
def elu(emit: Emit, x: Value, *, alpha: float = 1.0) -> Value:
    """Where(x < 0, alpha * (exp(min(x, 0)) - 1), x)."""
    return emit("Where", emit("Less", x, 0), _exponential_part(emit, x, alpha), x)


@expansion
def selu(emit: Emit, x: Value, *, alpha: float = SELU_ALPHA, gamma: float = SELU_GAMMA) -> Value:
    """gamma * Where(x > 0, x, alpha * (exp(min(x, 0)) - 1))."""
    return emit("Mul", emit("Where", emit("Greater", x, 0), x, _exponential_part(emit, x, alpha)), gamma)


@expansion
def celu(emit: Emit, x: Value, *, alpha: float = 1.0) -> Value:
    """max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)."""
    low = emit("Mul", emit("Sub", emit("Exp", emit("Div", x, alpha)), 1), alpha)
    return emit("Add", emit("Relu", x), emit("Min", low, 0))


@expansion
def hard_sigmoid(emit: Emit, x: Value, *, alpha: float = HARD_SIGMOID_ALPHA, beta: float = 0.5) -> Value:
    """Clip(x * alpha + beta, 0, 1)."""
    return _hard_sigmoid(emit, x, alpha, beta)


@expansion
def hard_swish(emit: Emit, x: Value) -> Value:
    """x * Clip(x / 6 + 0.5, 0, 1)."""
    return emit("Mul", x, _hard_sigmoid(emit, x, 1 / 6, 0.5))


@expansion
def softplus(emit: Emit, x: Value) -> Value:
    """max(x, 0) + log(1 + exp(-|x|)), which overflows nowhere."""
    return _softplus(emit, x)


@expansion
def softsign(emit: Emit, x: Value) -> Value:
    """x / (1 + |x|)."""
    return emit("Div", x, emit("Add", emit("Abs", x), 1))


@expansion
def thresholded_relu(emit: Emit, x: Value, *, alpha: float = 1.0) -> Value:
    """Where(x > alpha, x, 0)."""
    return emit("Where", emit("Greater", x, alpha), x, 0)


@expansion
def gelu(emit: Emit, x: Value, *, approximate: str = "none") -> Value:
    """x * (0.5 * (1 + erf(x / sqrt 2))), or the formula in tanh."""
    if approximate == "tanh":
        cubic = emit("Mul", emit("Add", emit("Mul", emit("Mul", x, x), 0.044715), 1), x)
        inner = emit("Tanh", emit("Mul", cubic, math.sqrt(2 / math.pi)))
    else:
        inner = emit("Erf", emit("Mul", x, math.sqrt(0.5)))
    return emit("Mul", x, emit("Mul", emit("Add", inner, 1), 0.5))


@expansion
def mish(emit: Emit, x: Value) -> Value:
    """x * tanh(softplus(x))."""
    return emit("Mul", x, emit("Tanh", _softplus(emit, x)))


@expansion
def swish(emit: Emit, x: Value, *, alpha: float = 1.0) -> Value:
    """x * sigmoid(alpha * x)."""
    return _swish(emit, x, alpha)


@expansion
def swiglu(emit: Emit, a: Value, b: Value, *, alpha: float = 1.0) -> Value:
    """swish(a, alpha) * b."""
    return emit("Mul", _swish(emit, a, alpha), b)


def _exponential_part(emit: Emit, x: Value, alpha: float) -> Value:
    return emit("Mul", emit("Sub", emit("Exp", emit("Min", x, 0)), 1), alpha)


def _hard_sigmoid(emit: Emit, x: Value, alpha: float, beta: float) -> Value:
    return emit("Clip", emit("Add", emit("Mul", x, alpha), beta), 0, 1)


def _softplus(emit: Emit, x: Value) -> Value:
    tail = emit("Log", emit("Add", emit("Exp", emit("Neg", emit("Abs", x))), 1))
    return emit("Add", emit("Relu", x), tail)


def _swish(emit: Emit, x: Value, alpha: float) -> Value:
    return emit("Mul", x, emit("Sigmoid", x if alpha == 1 else emit("Mul", x, alpha)))
