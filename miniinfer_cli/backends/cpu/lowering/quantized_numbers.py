"""QuantizeLinear and DequantizeLinear number by number, by one scale; by constants with what bounds the numbers first."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.element_form import Elementwise, Scratch, hold_within
from miniinfer_cli.ir import Array, DType, Graph, Node, Value, dtype_of, numpy_dtype
from miniinfer_cli.ops.cast import convert
from miniinfer_cli.ops.quantize import integer_range

QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")
FLOATS = (DType.F8E4M3FN, DType.F8E5M2)
"""Floats of 8 bits that are converted by tables: a library's conversion takes three to six times as long."""
_STORED = frozenset({DType.I8, DType.U8, DType.I16, DType.U16})


def quantization(node: Node, kinds: Sequence[DType], output: DType) -> Elementwise | None:
    """The form of one of ``QUANTIZATION`` by a scale that each call is given; None for other types than f32 and 8 or 16 bits."""
    x, scale = kinds[:2]
    stored, wide = (output, x) if node.op == "QuantizeLinear" else (x, output)
    if (wide, scale) != (DType.F32, DType.F32) or stored not in (*_STORED, *FLOATS):
        return None
    if any(node.attrs.get(name) for name in ("precision", "block_size")) or (stored in FLOATS and not saturates(node)):
        return None
    return _quantize(stored) if node.op == "QuantizeLinear" else _dequantize


def saturates(node: Node) -> bool:
    """Whether what is beyond the range of 8-bit floats becomes the largest of them."""
    return bool(node.attrs.get("saturate", 1))


def _quantize(dtype: DType) -> Elementwise:
    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        quantized_by(dtype, *(n.reshape(-1)[0] for n in inputs[1:]))(inputs, out, scratch)

    return run


def _dequantize(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
    numbers = [n.reshape(-1)[0] for n in inputs[1:]]
    dequantized_by(dtype_of(inputs[0]), *numbers)(inputs, out, scratch)


def quantized_by(dtype: DType, scale: Any, zero: Any = 0, *, least: float = -math.inf, greatest: float = math.inf) -> Elementwise:
    """QuantizeLinear by numbers that are known, of what is held between two numbers first, which costs nothing more."""
    f32 = np.float32
    factor, point, wide = f32(scale), f32(zero), np.dtype(f32)
    if dtype in FLOATS:
        return _quantized_to_floats(dtype, factor, point, least, greatest)
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


def _quantized_to_floats(dtype: DType, factor: Any, point: Any, least: float, greatest: float) -> Elementwise:
    table = narrowing_table(dtype)
    bounded = least != -math.inf or greatest != math.inf

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        quotient = scratch.take("quotient", out.shape, np.dtype(np.float32))
        source = inputs[0]
        if bounded:
            source = quotient
            hold_within(inputs[0], least, greatest, quotient)
        if factor != 1 or source.shape != out.shape:
            source = np.divide(source, factor, out=quotient)
        if point:
            source = np.add(source, point, out=quotient)
        narrowed(source, table, out, scratch)

    return run


@functools.cache
def narrowing_table(dtype: DType) -> Array:
    """The 8-bit float, as a byte, that each upper half of an f32 becomes; its last bit stands for any bits in the lower half.

    That is enough to round to nearest even: an upper half has seven digits of the mantissa, and the numbers have three at most.
    """
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    return convert(upper.view(np.float32), dtype).view(np.uint8)


@functools.cache
def widening_table(dtype: DType) -> Array:
    """The f32 that each byte stands for as an 8-bit float."""
    return np.arange(256, dtype=np.uint8).view(numpy_dtype(dtype)).astype(np.float32)


def narrowed(x: Array, table: Array, out: Array, scratch: Scratch) -> None:
    """``x``, of f32, as 8-bit floats; see ``narrowing_table``."""
    bits = x.view(np.uint32)
    codes = scratch.take("codes", x.shape, np.dtype(np.uint16))
    carried = scratch.take("carried", x.shape, np.dtype(np.uint32))
    np.bitwise_and(bits, 0xFFFF, out=carried)
    carried += 0xFFFF  # reaches the upper half where there is anything in the lower one
    carried |= bits
    np.right_shift(carried, 16, out=codes, casting="unsafe")
    np.take(table, codes, out=out.view(np.uint8), mode="clip")


def dequantized_by(dtype: DType, scale: Any, zero: Any = 0) -> Elementwise:
    """DequantizeLinear by numbers that are known, of integers or of what ``FLOATS`` has."""
    factor, point = np.float32(scale), np.float32(zero)
    if dtype in FLOATS:
        if factor == 1 and not point:
            return lambda inputs, out, scratch: widened_in_pairs(inputs[0], dtype, out)
        with np.errstate(all="ignore"):
            table = (widening_table(dtype) - point) * factor
        return lambda inputs, out, scratch: widened(inputs[0], table, out)

    def run(inputs: Sequence[Array], out: Array, scratch: Scratch) -> None:
        np.copyto(out, inputs[0])
        if point:
            out -= point
        if factor != 1:
            out *= factor

    return run


def widened(x: Array, table: Array, out: Array) -> None:
    """What ``table`` has for each byte of ``x``, which may be a view that is broadcast onto ``out``."""
    bytes_ = x.view(np.uint8)
    if bytes_.shape == out.shape and out.flags.c_contiguous:
        np.take(table, bytes_, out=out, mode="clip")
    else:
        np.copyto(out, table[bytes_])


def widened_in_pairs(x: Array, dtype: DType, out: Array) -> None:
    """The f32 that ``x`` stands for: two at a time where they lie side by side, which takes half as many look-ups."""
    laid = x.shape == out.shape and x.flags.c_contiguous and out.flags.c_contiguous and x.size % 2 == 0
    if laid and x.ctypes.data % 2 == 0 and out.ctypes.data % 8 == 0:
        np.take(_pairs(dtype), x.reshape(-1).view(np.uint16), out=out.reshape(-1).view(np.float64), mode="clip")
    else:
        widened(x, widening_table(dtype), out)


@functools.cache
def _pairs(dtype: DType) -> Array:
    """For two bytes, as a number of 16 bits, the two f32 that they stand for, as one of 64: half a MiB."""
    both = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    return widening_table(dtype)[both].view(np.float64)


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
        source = node.inputs[0]
        return dequantized_by(source.tensor.dtype, *numbers) if source is not None else None
    if node.output.tensor.dtype in FLOATS and not saturates(node):
        return None
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
