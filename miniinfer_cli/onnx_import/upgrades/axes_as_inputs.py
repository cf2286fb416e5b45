"""Attributes that became inputs: axes, splits, starts and ends, pads, bounds, sizes."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import Value, numpy_dtype
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import upgrades

_LOWEST = float(np.finfo(np.float32).min)
_HIGHEST = float(np.finfo(np.float32).max)


@upgrades("Squeeze", 1, 11)
@upgrades("Unsqueeze", 1, 11)
@upgrades("ReduceSum", 1, 11)
@upgrades("ReduceL1", 1, 11, 13)
@upgrades("ReduceL2", 1, 11, 13)
@upgrades("ReduceLogSum", 1, 11, 13)
@upgrades("ReduceLogSumExp", 1, 11, 13)
@upgrades("ReduceMax", 1, 11, 12, 13)
@upgrades("ReduceMean", 1, 11, 13)
@upgrades("ReduceMin", 1, 11, 12, 13)
@upgrades("ReduceProd", 1, 11, 13)
@upgrades("ReduceSumSquare", 1, 11, 13)
def axes_as_input(call: Call) -> Sequence[Value]:
    """``axes`` as the second input; without axes all are meant, as today."""
    axes = call.attrs.pop("axes", None)
    operand = call.integers(axes, "axes") if axes is not None else None
    return call.result(call.op, call.required(0), operand, **call.attrs)


@upgrades("Split", 2, 11, 13)
def split(call: Call) -> Sequence[Value]:
    """``split`` as the second input; without it the parts are as many as the outputs."""
    sizes = call.attrs.pop("split", None)
    operand = call.integers(sizes, "split") if sizes is not None else call.input(1)
    if operand is None:
        call.attrs["num_outputs"] = len(call.outputs)
    return call.result("Split", call.required(0), operand, **call.attrs)


@upgrades("Slice", 1)
def slice_(call: Call) -> Sequence[Value]:
    """``starts``, ``ends`` and ``axes`` as inputs; ``axes`` are the leading ones when left out."""
    starts, ends = call.attrs["starts"], call.attrs["ends"]
    axes = call.attrs.get("axes", range(len(starts)))
    bounds = (call.integers(starts, "starts"), call.integers(ends, "ends"), call.integers(axes, "axes"))
    return call.result("Slice", call.required(0), *bounds)


@upgrades("Pad", 2)
def pad(call: Call) -> Sequence[Value]:
    """``pads`` and ``value`` as inputs."""
    x = call.required(0)
    fill = call.number(call.attrs.get("value", 0.0), call.dtype(x), "value")
    pads = call.integers(call.attrs["pads"], "pads")
    return call.result("Pad", x, pads, fill, mode=call.attrs.get("mode", "constant"))


@upgrades("Clip", 6)
def clip(call: Call) -> Sequence[Value]:
    """``min`` and ``max`` as inputs; the defaults, the limits of f32, bound nothing."""
    x = call.required(0)
    bounds: list[Value | None] = []
    for name, default in (("min", _LOWEST), ("max", _HIGHEST)):
        bound = call.attrs.get(name, default)
        bounds.append(None if bound == default else call.number(bound, call.dtype(x), name))
    return call.result("Clip", x, *bounds)


@upgrades("TopK", 1)
def top_k(call: Call) -> Sequence[Value]:
    """``k`` as the second input."""
    return call.result("TopK", call.required(0), call.integers([call.attrs["k"]], "k"), axis=call.attrs.get("axis", -1))


@upgrades("Dropout", 6, 7, 10)
def dropout(call: Call) -> Sequence[Value]:
    """``ratio`` as the second input. It never trains: version 6 said so by ``is_test``, later ones by being inference."""
    x = call.required(0)
    ratio = call.constant(np.array(call.attrs.get("ratio", 0.5), np.float32), "ratio")
    if len(call.outputs) == 1 or call.version == 10:
        return call.result("Dropout", x, ratio)
    # Before version 10 the mask had the element type of the data.
    ones = np.ones(1, numpy_dtype(call.dtype(x)))
    return call.emit("Identity", x), call.emit("ConstantOfShape", call.emit("Shape", x), value=ones)
