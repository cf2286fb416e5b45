"""Operators that files have in ai.onnx though ai.onnx does not: experiments of its first versions, and ONNX Runtime's own.

Their meaning is ONNX Runtime's, which runs them all.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Value, numpy_dtype
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import unlisted
from miniinfer_cli.onnx_import.upgrades.normalized import without_stash_of_none

_FLOAT, _INT, _FLOATS, _INTS = (
    onnx.AttributeProto.FLOAT,
    onnx.AttributeProto.INT,
    onnx.AttributeProto.FLOATS,
    onnx.AttributeProto.INTS,
)
_ONE, _END = (1, 1), np.iinfo(np.int64).max


@unlisted("Affine", {"alpha": _FLOAT, "beta": _FLOAT}, _ONE, _ONE)
def affine(call: Call) -> Sequence[Value]:
    """alpha * x + beta."""
    x = call.required(0)
    return call.result("Add", call.emit("Mul", x, _number(call, x, "alpha", 1.0)), _number(call, x, "beta", 0.0))


@unlisted("Scale", {"scale": _FLOAT}, _ONE, _ONE)
def scale(call: Call) -> Sequence[Value]:
    """scale * x."""
    x = call.required(0)
    return call.result("Mul", x, _number(call, x, "scale", 1.0))


@unlisted("ScaledTanh", {"alpha": _FLOAT, "beta": _FLOAT}, _ONE, _ONE)
def scaled_tanh(call: Call) -> Sequence[Value]:
    """alpha * tanh(beta * x)."""
    x = call.required(0)
    inner = call.emit("Tanh", call.emit("Mul", x, _number(call, x, "beta")))
    return call.result("Mul", inner, _number(call, x, "alpha"))


@unlisted("ParametricSoftplus", {"alpha": _FLOAT, "beta": _FLOAT}, _ONE, _ONE)
def parametric_softplus(call: Call) -> Sequence[Value]:
    """alpha * log(1 + exp(beta * x))."""
    x = call.required(0)
    inner = call.emit("Softplus", call.emit("Mul", x, _number(call, x, "beta")))
    return call.result("Mul", inner, _number(call, x, "alpha"))


@unlisted("ImageScaler", {"scale": _FLOAT, "bias": _FLOATS}, _ONE, _ONE)
def image_scaler(call: Call) -> Sequence[Value]:
    """scale * x + bias, whose one number per channel is along axis 1 of [N,C,H,W]."""
    x = call.required(0)
    if "bias" not in call.attrs:
        raise ModelError("ImageScaler needs the attribute 'bias'")
    bias = np.array(call.attrs["bias"], np.float32).astype(numpy_dtype(call.dtype(x))).reshape(-1, 1, 1)
    return call.result("Add", call.emit("Mul", x, _number(call, x, "scale", 1.0)), call.constant(bias, "bias"))


@unlisted("Crop", {"border": _INTS, "scale": _INTS}, _ONE, _ONE)
def crop(call: Call) -> Sequence[Value]:
    """[N,C,H,W] without ``border`` (left, top, right, bottom); with ``scale`` (height, width) so much from left and top on."""
    border, size = call.attrs.get("border", ()), call.attrs.get("scale", ())
    if len(border) != 4 or len(size) not in (0, 2) or min(*border, *size) < 0:
        raise ModelError(f"Crop border {list(border)} and scale {list(size)}: expected 4 numbers and none or 2, from 0 on")
    left, top, right, bottom = border
    ends = [top + size[0], left + size[1]] if size else [-bottom or _END, -right or _END]
    bounds = (call.integers([top, left], "starts"), call.integers(ends, "ends"), call.integers([2, 3], "axes"))
    return call.result("Slice", call.required(0), *bounds)


@unlisted("DynamicSlice", {}, (3, 4), _ONE)
def dynamic_slice(call: Call) -> Sequence[Value]:
    """Today's Slice."""
    return call.result("Slice", *call.inputs)


@unlisted("MeanVarianceNormalization", {"across_channels": _INT, "normalize_variance": _INT}, _ONE, _ONE)
def mean_variance_normalization(call: Call) -> Sequence[Value]:
    """Its form before opset 9: over batch, height and width, and over the channels where it says so."""
    x = call.required(0)
    axes = [0, 1, 2, 3] if call.attrs.get("across_channels", 0) else [0, 2, 3]
    if call.attrs.get("normalize_variance", 1):
        return call.result("MeanVarianceNormalization", x, axes=axes)
    return call.result("Sub", x, call.emit("ReduceMean", x, call.integers(axes, "axes"), keepdims=1))


@unlisted("SimplifiedLayerNormalization", {"axis": _INT, "epsilon": _FLOAT, "stash_type": _INT}, (2, 2), (1, 2))
def simplified_layer_normalization(call: Call) -> Sequence[Value]:
    """RMSNormalization; a second output is the reciprocal of the root mean square, in f32."""
    x, scale = call.required(0), call.required(1)
    without_stash_of_none(call)
    (_, *statistics), call.outputs = call.outputs, call.outputs[:1]
    results = call.result("RMSNormalization", x, scale, **call.attrs)
    if not any(statistics):
        return results
    axis = call.attrs.get("axis", -1)
    axes = call.integers(range(axis, 0 if axis < 0 else call.rank(x)), "axes")
    wide = call.emit("Cast", x, to=onnx.TensorProto.FLOAT)
    square = call.emit("ReduceMean", call.emit("Mul", wide, wide), axes, keepdims=1)
    floor = call.constant(np.array(call.attrs.get("epsilon", 1e-5), np.float32), "epsilon")
    return *results, call.emit("Reciprocal", call.emit("Sqrt", call.emit("Add", square, floor)))


def _number(call: Call, x: Value, name: str, default: float | None = None) -> Value:
    """An attribute as a constant of the type of ``x``. Raises ModelError where it is left out and has no default."""
    value = call.attrs.get(name, default)
    if value is None:
        raise ModelError(f"{call.op} needs the attribute {name!r}")
    return call.number(value, call.dtype(x), name)
