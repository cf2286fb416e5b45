"""Operators of com.microsoft that ai.onnx has as well, or has come to have."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import DType, Value, numpy_dtype
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import INT, STRING, contributed
from miniinfer_cli.ops.type_codes import code_of_dtype


@contributed("QuantizeLinear", {"axis": INT}, (2, 3))
@contributed("DequantizeLinear", {"axis": INT}, (2, 3))
@contributed("Trilu", {"upper": INT}, (1, 2))
def same(call: Call) -> Sequence[Value]:
    """The operation of this name."""
    return call.result(call.op, *call.inputs, domain="", **call.attrs)


@contributed("GridSample", {"align_corners": INT, "mode": STRING, "padding_mode": STRING}, (2, 2))
def grid_sample(call: Call) -> Sequence[Value]:
    """GridSample, whose modes were called bilinear and bicubic."""
    mode = call.attrs.get("mode", "bilinear")
    newer = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return call.result("GridSample", *call.inputs, domain="", **{**call.attrs, "mode": newer})


@contributed("ExpandDims", {}, (2, 2))
def expand_dims(call: Call) -> Sequence[Value]:
    """Unsqueeze at one axis."""
    at = call.emit("Reshape", call.required(1), call.integers([1], "one"))
    return call.result("Unsqueeze", call.required(0), call.emit("Cast", at, to=code_of_dtype(DType.I64)), domain="")


@contributed("Range", {}, (2, 3))
def range_(call: Call) -> Sequence[Value]:
    """Range of scalars, or of vectors of one element; the step is 1 where it is left out."""
    start = call.required(0)
    step = call.input(2) or call.constant(np.ones((), numpy_dtype(call.dtype(start))), "one")
    none = call.integers([], "scalar")
    return call.result("Range", *(call.emit("Reshape", v, none) for v in (start, call.required(1), step)), domain="")


@contributed("Unique", {}, (1, 1), (3, 3))
def unique(call: Call) -> Sequence[Value]:
    """Unique in the order of first appearance: the values, the place of each element among them, and how often each came."""
    wanted = call.outputs
    call.outputs = (wanted[0], "", *wanted[1:])
    values, _, inverse, counts = call.result("Unique", call.required(0), domain="", sorted=0)
    return values, inverse, counts
