"""Older forms of Softmax and its kin, BatchNormalization and GroupNormalization."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import TensorType, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import upgrades


@upgrades("Softmax", 1, 11)
@upgrades("LogSoftmax", 1, 11)
@upgrades("Hardmax", 1, 11)
def flattening_softmax(call: Call) -> Sequence[Value]:
    """Over all axes from ``axis`` on, as if they were one; the same as today when ``axis`` is the last."""
    x = call.required(0)
    axis = call.attrs.get("axis", 1)
    rank = x.type.rank if isinstance(x.type, TensorType) else None
    if rank is None:
        return call.result(call.op, x, axis=-1) if axis == -1 else _flattened(call, x, axis)
    if not -max(rank, 1) <= axis < max(rank, 1):
        raise ModelError(
            f"{call.op} axis {axis} is outside [{-rank}, {rank - 1}] for input {x.type}",
            hint="opset 12 and older flatten the input first; re-export with opset 13 or later",
        )
    if axis in (-1, rank - 1):
        return call.result(call.op, x, axis=-1)
    return _flattened(call, x, axis)


def _flattened(call: Call, x: Value, axis: int) -> Sequence[Value]:
    flat = call.emit(call.op, call.emit("Flatten", x, axis=axis), axis=-1)
    return call.result("Reshape", flat, call.emit("Shape", x), allowzero=1)


@upgrades("LayerNormalization", 17)
@upgrades("RMSNormalization", 23)
@upgrades("GroupNormalization", 21)
def stashing_normalization(call: Call) -> Sequence[Value]:
    """The node as it stands; a ``stash_type`` of 0, which is no element type, says nothing."""
    without_stash_of_none(call)
    return call.result(call.op, *call.inputs, **call.attrs)


def without_stash_of_none(call: Call) -> None:
    """Takes a ``stash_type`` of 0 away: f32, the default, is meant. It is noted."""
    if call.attrs.get("stash_type") == 0:
        del call.attrs["stash_type"]
        call.notes.add(f"stash_type 0 of {call.op} is no element type: it is taken as f32, the default", call.name)


@upgrades("BatchNormalization", 6, 7, 9)
def batch_normalization(call: Call) -> Sequence[Value]:
    """The inference form; ``spatial=0`` has statistics for every element of a sample rather than every channel."""
    if len(call.outputs) > 1:
        raise ModelError(
            f"BatchNormalization-{call.version} with {len(call.outputs)} outputs is its training form",
            hint="export the model in evaluation mode",
        )
    epsilon = call.attrs.get("epsilon", 1e-5)
    x, scale, bias, mean, variance = (call.required(i) for i in range(5))
    if call.attrs.get("spatial", 1):
        return call.result("BatchNormalization", x, scale, bias, mean, variance, epsilon=epsilon)
    floor = call.constant(np.array(epsilon, np.float32), "epsilon")
    deviation = call.emit("Sqrt", call.emit("Add", variance, call.emit("CastLike", floor, variance)))
    normal = call.emit("Div", call.emit("Sub", x, mean), deviation)
    return call.result("Add", call.emit("Mul", normal, scale), bias)


@upgrades("GroupNormalization", 18)
def group_normalization(call: Call) -> Sequence[Value]:
    """Scale and bias per group, spread over the channels of each."""
    without_stash_of_none(call)
    x, groups = call.required(0), call.attrs["num_groups"]
    channels = call.emit("Shape", x, start=1, end=2)
    per_group = call.emit("Div", channels, call.integers([groups], "groups"))
    spread = call.emit("Concat", call.integers([groups], "groups"), per_group, axis=0)
    operands = []
    for index in (1, 2):
        column = call.emit("Unsqueeze", call.required(index), call.integers([1], "axes"))
        operands.append(call.emit("Reshape", call.emit("Expand", column, spread), channels))
    return call.result("GroupNormalization", x, *operands, **call.attrs)
