"""Convolutions and pools of com.microsoft: with a sum and an activation behind, or with the channels last."""

from collections.abc import Sequence

from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.activations import activated
from miniinfer_cli.onnx_import.registry import FLOATS, INT, INTS, STRING, contributed

_WINDOW = {"auto_pad": STRING, "dilations": INTS, "kernel_shape": INTS, "pads": INTS, "strides": INTS}
_CONV = {**_WINDOW, "group": INT}
_FUSED = {**_CONV, "activation": STRING, "activation_params": FLOATS}
_DEFAULTS = {"LeakyRelu": (0.01,), "HardSigmoid": (0.2, 0.5)}


@contributed("FusedConv", _FUSED, (2, 4))
def fused_conv(call: Call) -> Sequence[Value]:
    """Conv, plus Z, through an activation."""
    return (_activated(call, call.emit("Conv", *(call.input(i) for i in range(3)), **_window(call)), call.input(3)),)


@contributed("NhwcConv", _CONV, (2, 3))
@contributed("NhwcFusedConv", _FUSED, (2, 4))
def nhwc_conv(call: Call) -> Sequence[Value]:
    """FusedConv between Transposes: X, Z and Y have their channels last, W has them as Conv does."""
    x, z = call.required(0), call.input(3)
    y = call.emit("Conv", channels_first(call, x), *(call.input(i) for i in (1, 2)), **_window(call))
    y = channels_last(call, y)
    return (_activated(call, y, z),)


@contributed("NhwcMaxPool", {**_WINDOW, "ceil_mode": INT}, (1, 1), required=("kernel_shape",))
def nhwc_max_pool(call: Call) -> Sequence[Value]:
    """MaxPool between Transposes."""
    y = call.emit("MaxPool", channels_first(call, call.required(0)), **call.attrs)
    return (channels_last(call, y, last=True),)


@contributed("QLinearConv", {**_CONV, "channels_last": INT}, (8, 9))
def qlinear_conv(call: Call) -> Sequence[Value]:
    """QLinearConv, between Transposes where the channels are last."""
    x, others = call.required(0), call.inputs[1:]
    if not call.attrs.get("channels_last", 0):
        return call.result("QLinearConv", x, *others, domain="", **_window(call))
    y = call.emit("QLinearConv", channels_first(call, x), *others, **_window(call))
    return (channels_last(call, y, last=True),)


def channels_first(call: Call, x: Value) -> Value:
    """[N, spatial..., C] as [N, C, spatial...]."""
    rank = call.rank(x)
    return call.emit("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])


def channels_last(call: Call, x: Value, *, last: bool = False) -> Value:
    """[N, C, spatial...] as [N, spatial..., C]; with ``last`` it is the first output of the node."""
    add = call.first if last else call.emit
    return add("Transpose", x, perm=[0, *range(2, call.rank(x)), 1])


def _window(call: Call) -> dict[str, object]:
    return {name: value for name, value in call.attrs.items() if name in _CONV}


def _activated(call: Call, y: Value, z: Value | None) -> Value:
    name = call.attrs.get("activation", "")
    total = y if z is None else call.emit("Add", y, z)
    return activated(call, total, name, *(call.attrs.get("activation_params") or _DEFAULTS.get(name, ())))
