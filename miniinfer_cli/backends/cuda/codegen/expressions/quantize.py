"""QuantizeLinear and DequantizeLinear of operands that broadcast onto the first;
tactics/pointwise/quantize.py makes them do so.
"""

from miniinfer_cli.backends.cuda.codegen.expressions.cast import converted
from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, emits, literal
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.ir import DType
from miniinfer_cli.ops.quantize import integer_range
from miniinfer_cli.ops.type_codes import dtype_of_code


@emits("QuantizeLinear", stored=True)
def emit_quantize(call: Call) -> str:
    """round(x / scale) + zero point within the range of the result; the quotient rounded to the precision first."""
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
