"""Recurrent layers of com.microsoft."""

from collections.abc import Sequence

import numpy as np
import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import FLOAT, FLOATS, INT, STRING, STRINGS, contributed

_LSTM = {
    "activation_alpha": FLOATS, "activation_beta": FLOATS, "activations": STRINGS, "clip": FLOAT, "direction": STRING,
    "hidden_size": INT, "input_forget": INT,
}  # fmt: skip


@contributed("DynamicQuantizeLSTM", _LSTM, (12, 12), (0, 3))
def dynamic_quantize_lstm(call: Call) -> Sequence[Value]:
    """LSTM by the weights that the 8-bit ones stand for, with a scale and a zero point for each direction, or column.

    Weights are [directions, inputs, 4*hidden].
    ONNX Runtime rounds inputs and hidden states to 8 bits as well, to multiply integers; here they stay as they are.
    """
    turned = [_turned(call, 1, 8), _turned(call, 2, 10)]
    rest = [call.input(i) for i in range(3, 8)]
    return call.result("LSTM", call.required(0), *turned, *rest, domain="", **call.attrs)


def _turned(call: Call, weight: int, scale: int) -> Value:
    """The weights in f32, as LSTM has them: [directions, 4*hidden, inputs]. Constants stay 8 bits wide in front of it.

    Raises ModelError for scales and zero points of other ranks than 1 and 2.
    """
    operands = [call.required(i) for i in (weight, scale, scale + 1)]
    for number, value in zip((scale, scale + 1), operands[1:], strict=True):
        if call.rank(value) not in (1, 2):
            raise ModelError(f"input {number} of DynamicQuantizeLSTM has rank {call.rank(value)}; expected 1 or 2")
    handles = [value.constant for value in operands]
    if all(handle is not None for handle in handles):
        stored, factors, zeros = (handle for handle in handles if handle is not None)
        if len(stored.shape) != 3 or any(h.shape not in (stored.shape[:1], stored.shape[::2]) for h in (factors, zeros)):
            found = " and ".join(str(v.type) for v in operands[1:])
            raise ModelError(
                f"{call.op}: {found} do not lie on the weights {operands[0].type}: one for each direction, or column"
            )
        directions, inputs, columns = stored.shape
        shape = (directions, 1, columns)
        spread = [np.broadcast_to(_spread(h.array()), shape).copy() for h in (factors, zeros)]
        points = (call.constant(a, "scales") for a in spread)
        wide = call.emit("DequantizeLinear", operands[0], *points, axis=1, block_size=inputs)
        return call.emit("Transpose", wide, perm=(0, 2, 1))

    def each(value: Value) -> Value:
        axes = [1, 2] if call.rank(value) == 1 else [1]
        return call.emit("Unsqueeze", call.emit("Cast", value, to=onnx.TensorProto.FLOAT), call.integers(axes, "axes"))

    stored_f32 = call.emit("Cast", operands[0], to=onnx.TensorProto.FLOAT)
    return call.emit(
        "Transpose", call.emit("Mul", call.emit("Sub", stored_f32, each(operands[2])), each(operands[1])), perm=(0, 2, 1)
    )


def _spread(values: Array) -> Array:
    """A number for each direction, or for each of its columns, as it meets [directions, inputs, columns]."""
    return values[:, None, None] if values.ndim == 1 else values[:, None]
