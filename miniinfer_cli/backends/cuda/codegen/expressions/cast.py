"""Cast, BitCast: from any element type to any other."""

from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, emits, literal
from miniinfer_cli.backends.cuda.contract.types import c_type, computed_type
from miniinfer_cli.ir import DType
from miniinfer_cli.ir.quantization import FP8_LARGEST


@emits("Cast", stored=True)
def emit_cast(call: Call) -> str:
    """The value in another type; rounded there and then, though a chain goes on in f32: the model asks for it by name."""
    return converted(
        call.arg(0), call.dtype(0), call.result, saturate=bool(call.attr("saturate", 1)), mode=call.attr("round_mode", "up")
    )


@emits("BitCast", stored=True)
def emit_bit_cast(call: Call) -> str:
    """The same bits; types under 8 bits lie in the low bits of a byte, sign-extended or zero-extended as their type asks."""
    x, source, target = call.stored[0], call.dtype(0), call.result
    if target.bits >= 8:
        return f"bit_cast<{c_type(target)}>({x})"
    bits = f"({x}).bits"
    if target is DType.F4E2M1:
        return f"f4e2m1{{(u8)({bits} & 15)}}"
    return f"narrow<{c_type(target)}>((i32){bits})" if source.bits < 8 else f"narrow<{c_type(target)}>((i32){x})"


def converted(x: str, source: DType, target: DType, *, saturate: bool, mode: str = "up") -> str:
    """``x``, computed as ``source``, as an expression of the storage type of ``target``. See ops.cast.convert."""
    if target is source:
        return x if c_type(target) == computed_type(target) else f"narrow<{c_type(target)}>({x})"
    if target is DType.BOOL:
        return f"{x} != 0"
    if target is DType.F8E8M0:
        return f"to_f8e8m0((f64){x}, ROUND_{mode.upper()}, {'true' if saturate else 'false'})"
    if target in FP8_LARGEST:
        wide = f"(f32){x}"
        if saturate:
            limit = literal(FP8_LARGEST[target], DType.F32)
            wide = f"math::minimum(math::maximum({wide}, -{limit}), {limit})"
        return f"narrow<{c_type(target)}>({wide})"
    if target.is_half:
        return f"narrow<{c_type(target)}>({x if source is DType.F64 else f'(f32){x}'})"
    if target.is_float:
        return f"({c_type(target)}){x}"
    if target.bits < 8:
        return f"narrow<{c_type(target)}>(convert<i64>({x}))"
    return f"convert<{c_type(target)}>({x})"
