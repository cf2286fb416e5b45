"""Elementwise operations that write into a given array: what the chains of the CPU backend are made of.

The register covers f32 and f64 arithmetic, comparisons and selections; what it does not have runs through the reference.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.element_form import Elementwise, Scratch, hold_within
from miniinfer_cli.backends.cpu.lowering.quantized_numbers import QUANTIZATION, quantization
from miniinfer_cli.ir import Array, DType, Node, TensorType, Type, numpy_dtype
from miniinfer_cli.ops.activation_expansions import HARD_SIGMOID_ALPHA, LEAKY_RELU_ALPHA
from miniinfer_cli.ops.erf import erf_into
from miniinfer_cli.ops.gelu import gelu_into
from miniinfer_cli.ops.pointwise import is_pointwise

_Make = Callable[[Mapping[str, Any]], Elementwise]
_SHORT = 2048  # elements: for fewer the maximum takes less time


def elementwise(node: Node, inputs: Sequence[Type | None], output: Type | None) -> Elementwise | None:
    """The in-array form of ``node`` for these types, or None."""
    if node.domain != "" or not isinstance(output, TensorType) or any(not isinstance(t, TensorType) for t in inputs):
        return None
    kinds = [t.dtype for t in inputs if isinstance(t, TensorType)]
    if node.op == "Cast":
        if any(d not in _NUMBERS for d in (*kinds, output.dtype)) or _narrows(kinds[0], output.dtype):
            return None
        return _rounded(numpy_dtype(output.dtype)) if output.dtype.is_half else _copy
    if node.op in _COMPARISONS and all(d in _NUMBERS for d in kinds):
        return _from_ufunc(_COMPARISONS[node.op])
    if node.op == "Where":
        return _where
    if node.op in QUANTIZATION and is_pointwise(node):
        return quantization(node, kinds, output.dtype)
    if node.op in _LOGICAL and all(d is DType.BOOL for d in kinds):
        return _from_ufunc(_LOGICAL[node.op])
    if output.dtype in _COMPUTED and all(d in _COMPUTED for d in kinds):
        make = _FLOAT.get(node.op)
        return make(node.attrs) if make is not None else None
    if node.op in ("Add", "Sub", "Mul", "Max", "Min") and output.dtype in (DType.I32, DType.I64):
        return _FLOAT[node.op](node.attrs)
    return None


def covered() -> tuple[str, ...]:
    """The ai.onnx operations that have an elementwise form for some types."""
    return ("Cast", "Where", *_COMPARISONS, *_LOGICAL, *_FLOAT, *QUANTIZATION)


_COMPUTED = frozenset({DType.F32, DType.F64, DType.F16, DType.BF16})
_NUMBERS = _COMPUTED | {DType.I64, DType.I32, DType.I16, DType.I8, DType.U8, DType.BOOL}


def _narrows(source: DType, target: DType) -> bool:
    """True for conversions whose result needs more care than a C cast: floats to small integers, wider to narrower integers."""
    if target is DType.BOOL or target in _COMPUTED:
        return False
    if target in (DType.I32, DType.I64) and source in _COMPUTED:
        return False
    return source in _COMPUTED or (source.bits > target.bits)


def _from_ufunc(ufunc: np.ufunc) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        ufunc(*inputs, out=out)

    return run


def _fold(ufunc: np.ufunc) -> _Make:
    """A variadic operation as a left fold of a binary ufunc."""

    def make(attrs: Mapping[str, Any]) -> Elementwise:
        def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
            if len(inputs) == 2:
                ufunc(inputs[0], inputs[1], out=out)
                return
            total = scratch.take("fold", out.shape, out.dtype)
            np.copyto(total, inputs[0])
            for x in inputs[1:]:
                ufunc(total, x, out=total)
            np.copyto(out, total)

        return run

    return make


def _plain(ufunc: np.ufunc) -> _Make:
    return lambda attrs: _from_ufunc(ufunc)


def _copy(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
    if out.dtype == np.bool_:
        np.not_equal(inputs[0], 0, out=out)
    else:
        np.copyto(out, inputs[0], casting="unsafe")


def _rounded(narrow: np.dtype[Any]) -> Elementwise:
    """A cast to a half-width type rounds, though the chain goes on in f32: the model asks for it by name."""

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        np.copyto(out, inputs[0].astype(narrow), casting="unsafe")

    return run


def _where(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
    condition, x, y = inputs
    if np.may_share_memory(out, x) or np.may_share_memory(out, condition):
        chosen = scratch.take("where", out.shape, out.dtype)
        np.copyto(chosen, y)
        np.copyto(chosen, x, where=condition)
        np.copyto(out, chosen)
    else:
        np.copyto(out, y)
        np.copyto(out, x, where=condition)


def _relu(attrs: Mapping[str, Any]) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        if out.size < _SHORT:
            np.maximum(inputs[0], out.dtype.type(0), out=out)
        else:
            hold_within(inputs[0], out.dtype.type(0), out.dtype.type(np.inf), out)

    return run


def _clip(attrs: Mapping[str, Any]) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        x, *bounds = inputs
        low = bounds[0] if bounds else None
        high = bounds[1] if len(bounds) > 1 else None
        if low is not None and high is not None:
            hold_within(x, low, high, out)
        elif low is not None:
            np.maximum(x, low, out=out)
        else:
            np.copyto(out, x)

    return run


def _leaky_relu(attrs: Mapping[str, Any]) -> Elementwise:
    alpha = attrs.get("alpha", LEAKY_RELU_ALPHA)

    def choose(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        """As ``run`` by another way: an infinite alpha times the 0 of positive elements would be NaN."""
        positive = scratch.take("positive", out.shape, np.dtype(bool))
        np.less(inputs[0], out.dtype.type(0), out=positive)
        np.logical_not(positive, out=positive)
        scaled = scratch.take("negative", out.shape, out.dtype)
        np.multiply(inputs[0], out.dtype.type(alpha), out=scaled)
        np.copyto(scaled, inputs[0], where=positive)
        np.copyto(out, scaled)

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        negative = scratch.take("negative", out.shape, out.dtype)
        zero, infinity = out.dtype.type(0), out.dtype.type(np.inf)
        hold_within(inputs[0], -infinity, zero, negative)
        negative *= out.dtype.type(alpha)
        hold_within(inputs[0], zero, infinity, out)
        out += negative

    return run if math.isfinite(alpha) else choose


def _sigmoid_into(x: Array, out: Array) -> None:
    """1 / (1 + exp(-x)); exp overflows to infinity, which gives the right limit."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += out.dtype.type(1)
    np.reciprocal(out, out=out)


def _sigmoid(attrs: Mapping[str, Any]) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        _sigmoid_into(inputs[0], out)

    return run


def _swish(attrs: Mapping[str, Any]) -> Elementwise:
    alpha = attrs.get("alpha", 1.0)

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        gate = scratch.take("gate", out.shape, out.dtype)
        if alpha == 1:
            np.negative(inputs[0], out=gate)
        else:
            np.multiply(inputs[0], out.dtype.type(-alpha), out=gate)
        np.exp(gate, out=gate)
        gate += out.dtype.type(1)
        np.divide(inputs[0], gate, out=out)  # one pass, and one rounding, less than the sigmoid times x

    return run


def _hard_sigmoid(attrs: Mapping[str, Any]) -> Elementwise:
    alpha, beta = attrs.get("alpha", HARD_SIGMOID_ALPHA), attrs.get("beta", 0.5)

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        one = out.dtype.type
        np.multiply(inputs[0], one(alpha), out=out)
        out += one(beta)
        hold_within(out, one(0), one(1), out)

    return run


def _hard_swish(attrs: Mapping[str, Any]) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        gate = scratch.take("gate", out.shape, out.dtype)
        np.divide(inputs[0], out.dtype.type(6), out=gate)
        gate += out.dtype.type(0.5)
        hold_within(gate, out.dtype.type(0), out.dtype.type(1), gate)
        np.multiply(inputs[0], gate, out=out)

    return run


def _gelu(attrs: Mapping[str, Any]) -> Elementwise:
    tanh = attrs.get("approximate", "none") == "tanh"

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        square, inner = (scratch.take(key, out.shape, out.dtype) for key in ("square", "gelu"))
        gelu_into(inputs[0], out, square, inner, tanh=tanh)

    return run


def _pow(attrs: Mapping[str, Any]) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        base, exponent = inputs
        known = exponent.reshape(-1)[0] if exponent.size == 1 else None
        if known == 2:
            np.multiply(base, base, out=out)
        elif known == 3:
            square = np.multiply(base, base, out=scratch.take("square", base.shape, base.dtype))
            np.multiply(square, base, out=out)
        else:
            np.power(base, exponent, out=out, casting="unsafe")

    return run


def _mean(attrs: Mapping[str, Any]) -> Elementwise:
    add = _fold(np.add)(attrs)

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        add(inputs, out, scratch) if len(inputs) > 1 else np.copyto(out, inputs[0])
        out /= out.dtype.type(len(inputs))

    return run


def _erf(attrs: Mapping[str, Any]) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        erf_into(inputs[0], out)

    return run


def _identity(attrs: Mapping[str, Any]) -> Elementwise:
    return _copy


_COMPARISONS: dict[str, np.ufunc] = {
    "Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal,
}  # fmt: skip
_LOGICAL: dict[str, np.ufunc] = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor, "Not": np.logical_not}
_FLOAT: dict[str, _Make] = {
    "Add": _plain(np.add), "Sub": _plain(np.subtract), "Mul": _plain(np.multiply), "Div": _plain(np.divide),
    "Sum": _fold(np.add), "Max": _fold(np.maximum), "Min": _fold(np.minimum), "Mean": _mean, "Pow": _pow,
    "Neg": _plain(np.negative), "Abs": _plain(np.abs), "Sqrt": _plain(np.sqrt), "Exp": _plain(np.exp), "Log": _plain(np.log),
    "Reciprocal": _plain(np.reciprocal), "Tanh": _plain(np.tanh), "Sin": _plain(np.sin), "Cos": _plain(np.cos),
    "Floor": _plain(np.floor), "Ceil": _plain(np.ceil), "Round": _plain(np.rint), "Erf": _erf, "Identity": _identity,
    "Relu": _relu, "LeakyRelu": _leaky_relu, "Clip": _clip, "Sigmoid": _sigmoid, "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish, "Swish": _swish, "Gelu": _gelu,
}  # fmt: skip
