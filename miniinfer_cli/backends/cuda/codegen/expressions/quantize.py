"""QuantizeLinear and DequantizeLinear of operands that broadcast onto the first;
tactics/pointwise/quantize.py makes them do so.
"""

import numpy as np

from miniinfer_cli.backends.cuda.codegen.expressions.cast import converted
from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, emits, literal
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.ir import DType
from miniinfer_cli.ir.quantization import FP8_LARGEST
from miniinfer_cli.ops.quantize import integer_range
from miniinfer_cli.ops.type_codes import code_of_dtype, dtype_of_code

_LEAST = 2.0**-60  # of a scale whose inverse, and whose multiples, are far from the ends of f32


@emits("QuantizeLinear", stored=True)
def emit_quantize(call: Call) -> str:
    """round(x / scale) + zero point within the range of the result; the quotient rounded to the precision first."""
    by_literal = _by_literal(call)
    if by_literal is not None:
        return by_literal
    code = call.attr("precision", 0)
    precision = dtype_of_code(code) if code else call.dtype(1)
    wide = DType.F64 if precision in (DType.F64, DType.I32) else DType.F32
    quotient = f"({wide}){call.arg(0)} / ({wide}){call.arg(1)}"
    if precision in (DType.F16, DType.BF16):
        quotient = f"widen(narrow<{c_type(precision)}>({quotient}))"
    if call.result.is_integer:
        quotient = f"math::rint({quotient})"
    if call.has(2):
        quotient = f"{quotient} + ({wide}){call.arg(2)}"
    if call.result.is_integer:
        low, high = (literal(n, wide) for n in integer_range(call.result))
        quotient = f"math::minimum(math::maximum({quotient}, {low}), {high})"
    return converted(f"({quotient})", wide, call.result, saturate=bool(call.attr("saturate", 1)))


@emits("DequantizeLinear", stored=True)
def emit_dequantize(call: Call) -> str:
    """(x - zero point) * scale in f32, or in f64 where the scale or the result is."""
    wide = DType.F64 if DType.F64 in (call.dtype(1), call.result) else DType.F32
    x = f"({wide}){call.arg(0)}"
    if call.has(2):
        x = f"({x} - ({wide}){call.arg(2)})"
    return converted(f"({x} * ({wide}){call.arg(1)})", wide, call.result, saturate=False)


def _by_literal(call: Call) -> str | None:
    """The same in f32 by a scale that is known, in a third of the instructions; None where that is not so.

    x is bounded first, so that nothing overflows. A product with the inverse, corrected by what the scale leaves of x, is the
    quotient that a division gives (Markstein 1990). An addition rounds to whole numbers, which stand in the low bits then.
    """
    scale, zero = _number(call, 1), _number(call, 2) if call.has(2) else 0.0
    kinds = call.dtype(1), dtype_of_code(call.attr("precision", 0) or code_of_dtype(call.dtype(1)))
    if scale is None or zero is None or kinds != (DType.F32, DType.F32) or not _LEAST <= scale <= 1 / _LEAST:
        return None
    if call.result in (DType.I8, DType.U8):
        least, most = integer_range(call.result)
    elif call.result is DType.F8E4M3FN and call.attr("saturate", 1) and not zero:
        most = int(FP8_LARGEST[call.result])
        least = -most
    else:
        return None
    one, inverse = np.float32(scale), np.float32(1) / np.float32(scale)
    low, high = (literal(np.float32(end - zero) * one, DType.F32) for end in (least, most))
    by, back = literal(inverse, DType.F32), literal(one, DType.F32)
    quotient = f"const f32 q = __fmul_rn(x, {by}), r = __fmaf_rn(__fmaf_rn(-q, {back}, x), {by}, q);"
    kind = c_type(call.result)
    whole = f"x == x ? ({kind})(__float_as_int(r + 12582912.0f) + {int(zero)}) : ({kind})0"
    result = whole if call.result.is_integer else f"narrow<{kind}>(r)"
    return f"[](f32 x) {{ {quotient} return {result}; }}(math::minimum(math::maximum((f32){call.arg(0)}, {low}), {high}))"


def _number(call: Call, number: int) -> float | None:
    """An operand that is one number, and known."""
    known = call.known[number]
    return None if known is None or known.size != 1 else float(known.reshape(-1)[0])
