"""Operators on 8-bit tensors with scales: DequantizeLinear, the float operation, and QuantizeLinear."""

from collections.abc import Sequence
from typing import Any

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.convolution import channels_first, channels_last
from miniinfer_cli.onnx_import.registry import FLOAT, INT, INTS, STRING, contributed
from miniinfer_cli.ops.type_codes import code_of_dtype

_POOL = {
    "auto_pad": STRING, "ceil_mode": INT, "channels_last": INT, "count_include_pad": INT, "kernel_shape": INTS,
    "pads": INTS, "strides": INTS,
}  # fmt: skip
_ONE, _TWO = (4, 5), (7, 8)


@contributed("QLinearAdd", {}, _TWO)
@contributed("QLinearMul", {}, _TWO)
def binary(call: Call) -> Sequence[Value]:
    """Add or Mul between DequantizeLinear and QuantizeLinear."""
    op = call.op.removeprefix("QLinear")
    return _quantized(call, call.emit(op, _float(call, 0), _float(call, 3)), 6)


@contributed("QLinearSigmoid", {}, _ONE)
@contributed("QLinearLeakyRelu", {"alpha": FLOAT}, _ONE)
def unary(call: Call) -> Sequence[Value]:
    """Sigmoid or LeakyRelu between DequantizeLinear and QuantizeLinear."""
    return _quantized(call, call.emit(call.op.removeprefix("QLinear"), _float(call, 0), **call.attrs), 3)


@contributed("QLinearSoftmax", {"axis": INT, "opset": INT}, (5, 5), required=("opset",))
def softmax(call: Call) -> Sequence[Value]:
    """Softmax between DequantizeLinear and QuantizeLinear, over all axes from ``axis`` on as of an opset below 13."""
    x, axis = _float(call, 0), call.attrs.get("axis", -1)
    if call.attrs["opset"] >= 13 or axis in (-1, call.rank(x) - 1):
        return _quantized(call, call.emit("Softmax", x, axis=axis), 3)
    flat = call.emit("Softmax", call.emit("Flatten", x, axis=axis), axis=-1)
    return _quantized(call, call.emit("Reshape", flat, call.emit("Shape", x), allowzero=1), 3)


@contributed("QLinearGlobalAveragePool", {"channels_last": INT}, (5, 5))
@contributed("QLinearAveragePool", _POOL, _ONE, required=("kernel_shape",))
def average_pool(call: Call) -> Sequence[Value]:
    """AveragePool or GlobalAveragePool between DequantizeLinear and QuantizeLinear; between Transposes with the channels last."""
    attrs = dict(call.attrs)
    is_last = attrs.pop("channels_last", 0)
    x = _float(call, 0)
    if attrs.get("ceil_mode", 0) and attrs.get("count_include_pad", 0) and attrs.get("auto_pad", "NOTSET") == "NOTSET":
        attrs |= _widened(attrs)
    y = call.emit(call.op.removeprefix("QLinear"), channels_first(call, x) if is_last else x, **attrs)
    return _quantized(call, channels_last(call, y) if is_last else y, 3)


def _widened(attrs: dict[str, Any]) -> dict[str, Any]:
    """Padding at the ends in the place of ``ceil_mode``: ONNX Runtime divides by a whole window here, also where it leaves."""
    rank = len(attrs["kernel_shape"])
    strides, pads = attrs.get("strides") or [1] * rank, attrs.get("pads") or [0] * (2 * rank)
    if len(strides) != rank or len(pads) != 2 * rank:
        return {}  # which AveragePool says
    ends = [end + stride - 1 for end, stride in zip(pads[rank:], strides, strict=True)]
    return {"ceil_mode": 0, "pads": [*pads[:rank], *ends]}


@contributed("QLinearReduceMean", {"axes": INTS, "keepdims": INT}, _ONE, required=("axes", "keepdims"))
def reduce_mean(call: Call) -> Sequence[Value]:
    """ReduceMean between DequantizeLinear and QuantizeLinear."""
    axes = call.integers(call.attrs["axes"], "axes")
    return _quantized(call, call.emit("ReduceMean", _float(call, 0), axes, keepdims=call.attrs["keepdims"]), 3)


@contributed("QLinearWhere", {}, (9, 9))
def where(call: Call) -> Sequence[Value]:
    """Where between DequantizeLinear and QuantizeLinear."""
    return _quantized(call, call.emit("Where", call.required(0), _float(call, 1), _float(call, 4)), 7)


@contributed("QLinearConcat", {"axis": INT}, (5, 1 << 31), required=("axis",))
def concat(call: Call) -> Sequence[Value]:
    """Concat between DequantizeLinear and QuantizeLinear."""
    if (len(call.inputs) - 2) % 3:
        raise ModelError(f"{call.op} takes a scale, a zero point, and three inputs for each part, got {len(call.inputs)}")
    parts = [_float(call, i) for i in range(2, len(call.inputs), 3)]
    return _quantized(call, call.emit("Concat", *parts, axis=call.attrs["axis"]), 0)


def _float(call: Call, at: int) -> Value:
    """Operand ``at``, with its scale and zero point behind it, as floats."""
    return call.emit("DequantizeLinear", call.required(at), call.required(at + 1), call.input(at + 2))


def _quantized(call: Call, y: Value, at: int) -> Sequence[Value]:
    """The output: ``y`` by the scale and zero point at ``at``, in the type of the first operand where there is no zero point."""
    zero = call.input(at + 1)
    attrs: dict[str, Any] = {}
    if zero is None:
        attrs["output_dtype"] = code_of_dtype(call.dtype(call.required(0)))
    return call.result("QuantizeLinear", y, call.required(at), zero, domain="", **attrs)
