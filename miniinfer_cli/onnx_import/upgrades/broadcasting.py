"""Opset 6 and its one-sided broadcasting: ``broadcast=1`` lines B up with the axes of A from ``axis`` on."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import TensorType, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import upgrades


@upgrades("Add", 6)
@upgrades("Sub", 6)
@upgrades("Mul", 6)
@upgrades("Div", 6)
@upgrades("Pow", 1)
@upgrades("And", 1)
@upgrades("Or", 1)
@upgrades("Xor", 1)
@upgrades("Equal", 1)
@upgrades("Greater", 1)
@upgrades("Less", 1)
def one_sided(call: Call) -> Sequence[Value]:
    """B with trailing axes of size 1 added, so that today's broadcasting lines it up as ``axis`` says."""
    a, b = call.required(0), call.required(1)
    axis = call.attrs.get("axis")
    if call.attrs.get("broadcast") and axis is not None:
        rank, own = _rank(a), _rank(b)
        if rank is None or own is None:
            # Axes of B and of 1 together are those of A from ``axis`` on.
            last = _rank_of(call, a) if axis >= 0 else call.integers([0], "end")
            covered = call.emit("Sub", last, call.integers([axis], "axis"))
            b = _with_ones(call, b, call.emit("Sub", covered, _rank_of(call, b)))
        else:
            trailing = rank - (axis % rank if rank else 0) - own
            if trailing > 0:
                b = call.emit("Unsqueeze", b, call.integers(range(own, own + trailing), "axes"))
    return call.result(call.op, a, b)


@upgrades("PRelu", 6)
def p_relu(call: Call) -> Sequence[Value]:
    """One slope per channel, the second axis; a single slope is for all."""
    x, slope = call.required(0), call.required(1)
    rank, own = _rank(x), _rank(slope)
    if own == 1 and rank is None:
        slope = _with_ones(call, slope, call.emit("Sub", _rank_of(call, x), call.integers([2], "channels")))
    elif call.rank(slope) == 1 and rank is not None and rank > 2:
        slope = call.emit("Unsqueeze", slope, call.integers(range(1, rank - 1), "axes"))
    return call.result("PRelu", x, slope)


@upgrades("Gemm", 6)
def gemm(call: Call) -> Sequence[Value]:
    """``broadcast`` only allowed what is always allowed today."""
    call.attrs.pop("broadcast", None)
    return call.result("Gemm", *call.inputs, **call.attrs)


def _rank(value: Value) -> int | None:
    return value.type.rank if isinstance(value.type, TensorType) else None


def _rank_of(call: Call, value: Value) -> Value:
    """The rank as a vector of one, computed where it is not known."""
    return call.emit("Shape", call.emit("Shape", value))


def _with_ones(call: Call, value: Value, count: Value) -> Value:
    """``value`` with as many axes of 1 behind its own as ``count`` says; none where that is below 0."""
    count = call.emit("Max", count, call.integers([0], "least"))
    ones = call.emit("ConstantOfShape", count, value=np.ones(1, np.int64))
    return call.emit("Reshape", value, call.emit("Concat", call.emit("Shape", value), ones, axis=0), allowzero=1)
