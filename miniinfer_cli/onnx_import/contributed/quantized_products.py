"""Products of 8-bit integers, with float scales before or behind them."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import FLOAT, INT, contributed
from miniinfer_cli.ops.type_codes import code_of_dtype


@contributed("DynamicQuantizeMatMul", {}, (3, 5))
def dynamic_quantize_matmul(call: Call) -> Sequence[Value]:
    """MatMulInteger of DynamicQuantizeLinear of A, and B, times both scales, plus bias."""
    stored, scale, zero = call.emits("DynamicQuantizeLinear", 3, call.required(0))
    return (_product(call, stored, call.required(1), (scale, call.required(2)), (zero, call.input(3)), call.input(4)),)


@contributed("MatMulIntegerToFloat", {}, (4, 7))
def matmul_integer_to_float(call: Call) -> Sequence[Value]:
    """MatMulInteger times both scales, plus bias."""
    a, b, *scales = (call.required(i) for i in range(4))
    return (_product(call, a, b, (scales[0], scales[1]), (call.input(4), call.input(5)), call.input(6)),)


@contributed("QGemm", {"alpha": FLOAT, "transA": INT, "transB": INT}, (6, 9))
def qgemm(call: Call) -> Sequence[Value]:
    """MatMulInteger plus C, times alpha and both scales; through QuantizeLinear where an output scale is given, else in f32."""
    a, b = _turned(call, 0, "transA"), _turned(call, 3, "transB")
    integers = call.emit("MatMulInteger", a, b, call.input(2), call.input(5))
    if (c := call.input(6)) is not None:
        integers = call.emit("Add", integers, c)
    factors = call.emit("Mul", call.required(1), call.required(4))
    if (alpha := call.attrs.get("alpha", 1.0)) != 1:
        factors = call.emit("Mul", factors, call.number(alpha, DType.F32, "alpha"))
    wide = call.emit("Cast", integers, to=code_of_dtype(DType.F32))
    if (scale := call.input(7)) is None:
        return (call.first("Mul", wide, factors),)
    return (call.first("QuantizeLinear", call.emit("Mul", wide, factors), scale, call.input(8)),)


def _product(
    call: Call, a: Value, b: Value, scales: tuple[Value, Value], zeros: tuple[Value | None, Value | None], bias: Value | None
) -> Value:
    y = scaled_product(call, a, b, scales, zeros)
    return call.first("Identity", y) if bias is None else call.first("Add", y, bias)


def scaled_product(
    call: Call, a: Value, b: Value, scales: tuple[Value, Value], zeros: tuple[Value | None, Value | None]
) -> Value:
    """MatMulInteger of ``a`` and ``b``, times both scales, in their type. A scale of ``b`` may be one for each column.

    Raises ModelError for one of ``a`` that is not one number.
    """
    for value in (scales[0], zeros[0]):
        shape = None if value is None else call.shape(value)
        if shape is not None and any(d != 1 for d in shape):
            raise ModelError(f"{call.op} with one scale, or zero point, for each row of A is not supported")
    dtype = call.dtype(scales[0])
    point_a = None if zeros[0] is None else call.emit("Reshape", zeros[0], call.integers([], "scalar"))
    integers = call.emit("MatMulInteger", a, b, point_a, zeros[1])
    return call.emit("Mul", call.cast(integers, dtype), call.emit("Mul", *scales))


def _turned(call: Call, index: int, name: str) -> Value:
    x = call.required(index)
    return call.emit("Transpose", x, perm=[1, 0]) if call.attrs.get(name, 0) else x
