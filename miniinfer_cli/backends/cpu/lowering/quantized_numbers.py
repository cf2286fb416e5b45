"""QuantizeLinear and DequantizeLinear number by number, by one scale; by constants with what bounds the numbers first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.element_form import Elementwise, Scratch, hold_within
from miniinfer_cli.ir import Array, DType, Graph, Node, Value
from miniinfer_cli.ops.quantize import integer_range

QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")
_STORED = frozenset({DType.I8, DType.U8, DType.I16, DType.U16})


def quantization(node: Node, kinds: Sequence[DType], output: DType) -> Elementwise | None:
    """The form of one of ``QUANTIZATION`` by a scale that each call is given; None for other types than f32 and 8 or 16 bits."""
    x, scale = kinds[:2]
    stored, wide = (output, x) if node.op == "QuantizeLinear" else (x, output)
    if (wide, scale) != (DType.F32, DType.F32) or stored not in _STORED:
        return None
    if any(node.attrs.get(name) for name in ("precision", "block_size")):
        return None
    return _quantize(stored) if node.op == "QuantizeLinear" else _dequantize


def _quantize(dtype: DType) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        quantized_by(dtype, *(n.reshape(-1)[0] for n in inputs[1:]))(inputs, out, scratch)

    return run


def _dequantize(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
    dequantized_by(*(n.reshape(-1)[0] for n in inputs[1:]))(inputs, out, scratch)


def quantized_by(dtype: DType, scale: Any, zero: Any = 0, *, least: float = -math.inf, greatest: float = math.inf) -> Elementwise:
    """QuantizeLinear by numbers that are known, of what is held between two numbers first, which costs nothing more."""
    f32 = np.float32
    factor, point, wide = f32(scale), f32(zero), np.dtype(f32)
    # Both roundings go up with what they round, so the ends may be rounded as what they hold is.
    with np.errstate(all="ignore"):
        ends = [np.rint(f32(end) / factor) + point for end in (least, greatest)]
    low, high = (f32(of(n, end)) for of, n, end in zip((max, min), integer_range(dtype), ends, strict=True))

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        quotient = scratch.take("quotient", out.shape, wide)
        source = inputs[0] if factor == 1 else np.divide(inputs[0], factor, out=quotient)
        np.rint(source, out=quotient)
        if point:
            quotient += point
        hold_within(quotient, low, high, quotient)
        np.copyto(out, quotient, casting="unsafe")

    return run


def dequantized_by(scale: Any, zero: Any = 0) -> Elementwise:
    """DequantizeLinear by numbers that are known."""
    factor, point = np.float32(scale), np.float32(zero)

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        np.copyto(out, inputs[0])
        if point:
            out -= point
        if factor != 1:
            out *= factor

    return run


@dataclass(frozen=True, slots=True)
class Bound:
    """A Relu, or a Clip between constants, and its two ends."""

    node: Node
    least: float
    greatest: float


def bounds_before_quantizing(body: Graph) -> dict[Node, Bound]:
    """By the node that quantizes, by constants: the bound whose result it alone reads."""
    found: dict[Node, Bound] = {}
    for node in body:
        value = node.inputs[0] if node.is_op("QuantizeLinear") else None
        bound = None if value is None or _known_numbers(node) is None else value.producer
        if bound is None or not bound.is_op("Relu", "Clip") or len(bound.output.users) != 1 or body.is_output(bound.output):
            continue
        if bound.is_op("Relu"):
            found[node] = Bound(bound, 0.0, math.inf)
            continue
        ends = (*bound.inputs[1:], None, None)[:2]
        low, high = (_end(value, other) for value, other in zip(ends, (-math.inf, math.inf), strict=True))
        if low is not None and high is not None and low <= high:
            found[node] = Bound(bound, low, high)
    return found


def quantization_by_constants(node: Node, bound: Bound | None) -> Elementwise | None:
    """The form of a node that quantizes or dequantizes by constants; None for others.

    It reads one operand: the node's first one, or that of the ``bound`` in front.
    """
    numbers = _known_numbers(node)
    if numbers is None:
        return None
    if node.is_op("DequantizeLinear"):
        return dequantized_by(*numbers)
    least, greatest = (-math.inf, math.inf) if bound is None else (bound.least, bound.greatest)
    return quantized_by(node.output.tensor.dtype, *numbers, least=least, greatest=greatest)


def _known_numbers(node: Node) -> tuple[Any, ...] | None:
    """Scale and zero point of a node that quantizes or dequantizes by constants."""
    if not node.is_op(*QUANTIZATION):
        return None
    handles = [v.constant for v in node.inputs[1:] if v is not None]
    if len(handles) + 1 != len(node.inputs) or any(h is None or h.size != 1 for h in handles):
        return None
    return tuple(h.array().reshape(-1)[0] for h in handles if h is not None)


def _end(value: Value | None, absent: float) -> float | None:
    """The number that bounds: ``absent`` for no operand, None where it is no constant."""
    if value is None:
        return absent
    handle = value.constant
    return None if handle is None or handle.size != 1 else float(handle.array().reshape(())[()])
