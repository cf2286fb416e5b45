"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: per tensor, per axis, or in blocks along an axis."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Graph, Node, Shape, TensorType, Type, Value, dtype_of, numpy_dtype
from miniinfer_cli.ops.cast import convert
from miniinfer_cli.ops.element_types import FP8, SUB_BYTE_INTEGERS, dtype_names, expect_dtype, same_dtype
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis
from miniinfer_cli.ops.type_codes import dtype_of_code

_HIGH = frozenset({DType.F64, DType.F32, DType.F16, DType.BF16, DType.I32})
_SCALES = _HIGH | {DType.F8E8M0}
_LOW = FP8 | SUB_BYTE_INTEGERS | {DType.F4E2M1, DType.I8, DType.U8, DType.I16, DType.U16}
_COMPUTED = frozenset({DType.F64, DType.F32, DType.F16, DType.BF16})


def infer_quantize_linear(
    x: TensorType,
    y_scale: TensorType,
    y_zero_point: TensorType | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> TensorType:
    """The shape of ``x``; the type of the zero point, or ``output_dtype``, or u8."""
    op = "QuantizeLinear"
    expect_dtype(op, x, _HIGH)
    expect_dtype(op, y_scale, _SCALES)
    dtype = dtype_of_code(output_dtype) if output_dtype else DType.U8 if y_zero_point is None else y_zero_point.dtype
    if y_zero_point is not None and y_zero_point.dtype != dtype:
        raise ModelError(f"{op} output_dtype {dtype} is not the type of the zero point {y_zero_point}")
    if dtype not in _LOW:
        raise ModelError(f"{op} to {dtype} is not possible, only to {dtype_names(_LOW)}")
    if precision and dtype_of_code(precision) not in _COMPUTED:
        raise ModelError(f"{op} precision is {dtype_of_code(precision)}, expected one of {dtype_names(_COMPUTED)}")
    _check_scale(op, x, y_scale, y_zero_point, axis, block_size)
    return TensorType(dtype, x.shape)


def quantize_linear(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    """round(x / scale) + zero point, held within the range of the result type. Source: ONNX QuantizeLinear-28.

    The quotient is rounded to ``precision``, or to the type of the scale, before it is rounded to an integer.
    """
    dtype = dtype_of_code(output_dtype) if output_dtype else DType.U8 if y_zero_point is None else dtype_of(y_zero_point)
    scale = _spread(y_scale, x.shape, axis, block_size)
    zero = None if y_zero_point is None else _spread(y_zero_point, x.shape, axis, block_size).astype(np.float32)
    with np.errstate(all="ignore"):
        quotient = _quotient(x, scale, dtype_of_code(precision) if precision else dtype_of(y_scale))
        if dtype.is_integer:
            np.rint(quotient, out=quotient)
        if zero is not None:
            quotient += zero
        if dtype.is_integer:
            np.clip(quotient, *integer_range(dtype), out=quotient)
    return convert(quotient, dtype, saturate=bool(saturate))


def infer_dequantize_linear(
    x: TensorType,
    x_scale: TensorType,
    x_zero_point: TensorType | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> TensorType:
    """The shape of ``x``; the type of the scale, or ``output_dtype``."""
    op = "DequantizeLinear"
    expect_dtype(op, x, _LOW | {DType.I32})
    expect_dtype(op, x_scale, _SCALES - {DType.I32})
    same_dtype(op, x, x_zero_point)
    dtype = dtype_of_code(output_dtype) if output_dtype else x_scale.dtype
    if dtype not in _COMPUTED:
        raise ModelError(f"{op} to {dtype} is not possible, only to {dtype_names(_COMPUTED)}", hint="set output_dtype")
    _check_scale(op, x, x_scale, x_zero_point, axis, block_size)
    return TensorType(dtype, x.shape)


def dequantize_linear(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    """(x - zero point) * scale in f32 (f64 for an f64 scale), rounded once. Source: ONNX DequantizeLinear-28."""
    dtype = dtype_of_code(output_dtype) if output_dtype else dtype_of(x_scale)
    wide = np.float64 if x_scale.dtype == np.float64 or dtype is DType.F64 else np.float32
    out: Array = x.astype(wide)
    with np.errstate(all="ignore"):
        if x_zero_point is not None:
            np.subtract(out, _spread(x_zero_point, x.shape, axis, block_size).astype(wide), out=out)
        np.multiply(out, _spread(x_scale, x.shape, axis, block_size).astype(wide), out=out)
        return out.astype(numpy_dtype(dtype), copy=False)


def infer_dynamic_quantize_linear(x: TensorType) -> tuple[TensorType, TensorType, TensorType]:
    """u8 of the shape of ``x``, an f32 scale, a u8 zero point."""
    expect_dtype("DynamicQuantizeLinear", x, frozenset({DType.F32}))
    return TensorType(DType.U8, x.shape), TensorType(DType.F32, ()), TensorType(DType.U8, ())


def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """``x`` in u8 with the scale and zero point that its range, widened to hold 0, asks for.

    The scale of an ``x`` that is all zeros is 1, as in ONNX Runtime. Source: ONNX DynamicQuantizeLinear-11.
    """
    low, high = np.min(x, initial=0), np.max(x, initial=0)
    with np.errstate(all="ignore"):
        scale = np.asarray((high - low) / np.float32(255) if high > low else 1, np.float32)
        zero = np.asarray(np.clip(np.rint(-low / scale), 0, 255)).astype(np.uint8)
    return quantize_linear(x, scale, zero), scale, zero


def expand_dynamic_quantize_linear(graph: Graph, node: Node) -> tuple[Value, ...]:
    """The range by ReduceMin and ReduceMax, then QuantizeLinear."""
    build = Expansion(graph, node)
    x, zero, one = build.required(0), build.scalar(0, DType.F32), build.scalar(1, DType.F32)
    low = build.op("Min", build.op("ReduceMin", x, keepdims=0), zero)
    high = build.op("Max", build.op("ReduceMax", x, keepdims=0), zero)
    width = build.op("Sub", high, low)
    scale = build.op("Where", build.op("Greater", width, zero), build.op("Div", width, build.scalar(255, DType.F32)), one)
    offset = build.op("Round", build.op("Div", build.op("Neg", low), scale))
    point = build.cast(build.op("Clip", offset, zero, build.scalar(255, DType.F32)), DType.U8)
    return build.op("QuantizeLinear", x, scale, point), scale, point


def integer_range(dtype: DType) -> tuple[int, int]:
    """The least and the largest number of an integer type."""
    if dtype.value.startswith("u"):
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def _quotient(x: Array, scale: Array, precision: DType) -> Array:
    """x / scale as a new array of f32 or f64, rounded to ``precision`` on the way."""
    if precision is DType.I32 or precision is DType.F64:
        return np.asarray(np.divide(x.astype(np.float64), scale.astype(np.float64)))
    narrow = numpy_dtype(precision)
    quotient = np.asarray(np.divide(x.astype(np.float32), scale.astype(np.float32)))
    if precision in (DType.F16, DType.BF16):
        quotient = quotient.astype(narrow).astype(np.float32)
    return quotient


def _check_scale(op: str, x: TensorType, scale: TensorType, zero: TensorType | None, axis: int, block_size: int) -> None:
    """Raises ModelError when scale and zero point do not lie on ``x``: scalar, one per index of an axis, or blocked."""
    if zero is not None and not (_may_be_single(scale) and _may_be_single(zero)) and _differ(scale.shape, zero.shape):
        raise ModelError(f"{op}: scale {scale} and zero point {zero} differ in shape")
    if x.shape is None or scale.shape is None or _is_single(scale):
        return
    at = _axis(op, axis, x)
    if block_size == 0 and len(scale.shape) == 1:
        expected: Shape = (x.shape[at],)
    elif block_size > 0:
        expected = tuple(-(-d // block_size) if i == at else d for i, d in enumerate(x.shape))
    else:
        raise ModelError(f"{op}: scale {scale} has rank {scale.rank}, which needs a block_size above 0, got {block_size}")
    if _differ(expected, scale.shape):
        shape = ",".join(map(str, expected))
        raise ModelError(f"{op} axis {axis}: scale {scale} does not lie on {x}, expected shape [{shape}]")


def _differ(a: Shape | None, b: Shape | None) -> bool:
    """True when the two shapes are certainly not the same."""
    if a is None or b is None:
        return False
    return len(a) != len(b) or any(isinstance(m, int) and isinstance(n, int) and m != n for m, n in zip(a, b, strict=True))


def _is_single(x: TensorType) -> bool:
    return x.shape is not None and all(d == 1 for d in x.shape)


def _may_be_single(x: TensorType) -> bool:
    """True where a size that is not known yet may turn out to be 1."""
    return x.shape is None or not any(isinstance(d, int) and d != 1 for d in x.shape)


def _axis(op: str, axis: int, x: TensorType) -> int:
    return 0 if x.rank == 1 else normal_axis(op, axis, x)


def _spread(operand: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    """A scale or zero point reshaped or repeated so that it broadcasts onto ``shape``."""
    if operand.size == 1:
        return operand.reshape(())
    axis = 0 if len(shape) == 1 else axis % len(shape)
    if block_size:
        index = np.arange(shape[axis]) // block_size
        return np.take(operand, index, axis=axis)
    return operand.reshape(tuple(-1 if i == axis else 1 for i in range(len(shape))))


def _has_one_scale(operands: Sequence[Type | None]) -> bool:
    """True where scale and zero point are single numbers, which broadcast onto everything."""
    return all(t is None or (isinstance(t, TensorType) and _is_single(t)) for t in operands[1:])


QUANTIZE_LINEAR = define("QuantizeLinear", infer=infer_quantize_linear, reference=quantize_linear, pointwise_if=_has_one_scale)
DEQUANTIZE_LINEAR = define(
    "DequantizeLinear", infer=infer_dequantize_linear, reference=dequantize_linear, pointwise_if=_has_one_scale
)
DYNAMIC_QUANTIZE_LINEAR = define(
    "DynamicQuantizeLinear",
    infer=infer_dynamic_quantize_linear,
    reference=dynamic_quantize_linear,
    expand=expand_dynamic_quantize_linear,
)
