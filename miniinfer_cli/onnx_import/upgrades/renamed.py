"""Operators under an older name or with attributes that mean nothing any more, and OneHot's old range."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import upgrades


@upgrades("Scatter", 9, 11)
def scatter(call: Call) -> Sequence[Value]:
    """Today's ScatterElements."""
    return call.result("ScatterElements", *call.inputs, **call.attrs)


@upgrades("RNN", 1)
@upgrades("LSTM", 1)
@upgrades("GRU", 3)
def recurrent(call: Call) -> Sequence[Value]:
    """Without ``output_sequence``, which said whether the first output is wanted."""
    call.attrs.pop("output_sequence", None)
    return call.result(call.op, *call.inputs, **call.attrs)


@upgrades("OneHot", 9)
def one_hot(call: Call) -> Sequence[Value]:
    """A negative index was out of range, not counted from the end: it is made ``depth``, which is out of range too."""
    indices, depth, values = (call.required(i) for i in range(3))
    zero = call.emit("CastLike", call.constant(np.array(0, np.int64), "zero"), indices)
    beyond = call.emit("CastLike", call.emit("Reshape", depth, call.integers([], "scalar")), indices)
    kept = call.emit("Where", call.emit("Less", indices, zero), beyond, indices)
    return call.result("OneHot", kept, depth, values, **call.attrs)
