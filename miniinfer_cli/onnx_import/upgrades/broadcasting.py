"""Opset 6 and its one-sided broadcasting: ``broadcast=1`` lines B up with the axes of A from ``axis`` on."""

from collections.abc import Sequence

from miniinfer_cli.ir import Value
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
        rank, own = call.rank(a), call.rank(b)
        trailing = rank - (axis % rank if rank else 0) - own
        if trailing > 0:
            b = call.emit("Unsqueeze", b, call.integers(range(own, own + trailing), "axes"))
    return call.result(call.op, a, b)


@upgrades("PRelu", 6)
def p_relu(call: Call) -> Sequence[Value]:
    """One slope per channel, the second axis; a single slope is for all."""
    x, slope = call.required(0), call.required(1)
    if call.rank(slope) == 1 and call.rank(x) > 2:
        slope = call.emit("Unsqueeze", slope, call.integers(range(1, call.rank(x) - 1), "axes"))
    return call.result("PRelu", x, slope)


@upgrades("Gemm", 6)
def gemm(call: Call) -> Sequence[Value]:
    """``broadcast`` only allowed what is always allowed today."""
    call.attrs.pop("broadcast", None)
    return call.result("Gemm", *call.inputs, **call.attrs)
