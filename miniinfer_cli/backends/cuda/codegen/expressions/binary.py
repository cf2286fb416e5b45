"""Arithmetic of two or more operands: Add to Mod, Min to Sum, bit operations."""

import functools

import numpy as np

from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, emits, literal
from miniinfer_cli.backends.cuda.contract.types import computed_type
from miniinfer_cli.ir import Array, DType

_FOLDS = {
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Max": "maximum", "Min": "minimum", "Sum": "add",
}  # fmt: skip
_BITS = {"BitwiseAnd": "&", "BitwiseOr": "|", "BitwiseXor": "^"}
# Exponents that products and roots do better than pow(); numpy does the same, -inf to the power of 0.5 being NaN.
_POWERS = {
    0.5: "math::sqrt({x})", 1.0: "{x}", 2.0: "math::multiply({x}, {x})",
    3.0: "math::multiply(math::multiply({x}, {x}), {x})", -1.0: "math::reciprocal({x})",
}  # fmt: skip


@emits(*_FOLDS)
def emit_fold(call: Call) -> str:
    """Joined from the left by a function of arithmetic.cuh."""
    operands = [call.arg(i) for i in range(len(call.args))]
    return functools.reduce(lambda a, b: f"math::{_FOLDS[call.node.op]}({a}, {b})", operands)


@emits("Mean")
def emit_mean(call: Call) -> str:
    """The sum by the number of operands."""
    return f"({' + '.join(call.arg(i) for i in range(len(call.args)))}) / {literal(len(call.args), call.result)}"


@emits("Mod")
def emit_modulo(call: Call) -> str:
    """The rest, with the sign of the dividend or of the divisor."""
    return f"math::{'remainder' if call.attr('fmod', 0) else 'modulo'}({call.arg(0)}, {call.arg(1)})"


@emits("Pow")
def emit_power(call: Call) -> str:
    """In the base's type, or in f64 where an exponent of integers is no natural number."""
    x, y, base, exponent = call.arg(0), call.arg(1), call.dtype(0), call.dtype(1)
    known = call.known[1]
    if known is not None:
        form = known_power(np.asarray(known), base)
        if form is not None:
            return form.format(x=x)
    c = computed_type(base)
    if base.is_float:
        return f"math::power({x}, {y})" if exponent is DType.F64 else f"math::power({x}, ({c}){y})"
    if exponent.is_float:
        return f"math::truncated_power<{c}>((f64){x}, (f64){y})"
    whole = f"math::integer_power<{c}>({x}, ({c}){y})"
    if exponent.value.startswith("u"):
        return whole
    return f"{y} < 0 ? math::truncated_power<{c}>((f64){x}, (f64){y}) : {whole}"


def known_power(exponent: Array, base: DType) -> str | None:
    """A form without pow() for this exponent, None where there is none."""
    if exponent.size != 1:
        return None
    number = float(exponent.reshape(-1)[0])
    return _POWERS.get(number) if base.is_float or number in (1, 2, 3) else None


@emits("BitShift")
def emit_bit_shift(call: Call) -> str:
    """The sign fills from the left; what is shifted by more bits than there are leaves only the fill."""
    return f"math::shift_{call.attr('direction', '').lower()}({call.arg(0)}, {call.arg(1)})"


@emits(*_BITS)
def emit_bitwise(call: Call) -> str:
    """Bit by bit."""
    return f"({call.c})({call.arg(0)} {_BITS[call.node.op]} {call.arg(1)})"
