"""Heads of attention: apart and together, and masks as what is added to the scores."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Dim, DType, Value, numpy_dtype
from miniinfer_cli.onnx_import.call import Call

MASKED = -10000.0
"""What is added to the score of a key that a mask hides, where no other number is given."""


def apart(call: Call, x: Value, heads: int) -> Value:
    """[batch, length, heads * size] as [batch, heads, length, size]."""
    return call.emit("Transpose", call.emit("Reshape", x, call.integers([0, 0, heads, -1], "heads")), perm=[0, 2, 1, 3])


def together(call: Call, x: Value) -> Value:
    """The first output: [batch, heads, length, size] as [batch, length, heads * size]."""
    return call.first("Reshape", call.emit("Transpose", x, perm=[0, 2, 1, 3]), call.integers([0, 0, -1], "hidden"))


def scale_of(call: Call) -> dict[str, float]:
    """The attribute that Attention takes, none where it is 0 or left out: the root of the head size then."""
    scale = call.attrs.get("scale", 0.0)
    return {"scale": scale} if scale else {}


def size_of(call: Call, value: Value, axis: int) -> Value:
    """The size of an axis as an i64 vector of one element."""
    return call.emit("Shape", value, start=axis, end=axis + 1)


def positions(call: Call, count: Value, role: str) -> Value:
    """0, 1, ... short of ``count`` (an i64 vector of one element)."""
    zero, one = (call.constant(np.array(v, np.int64), role) for v in (0, 1))
    return call.emit("Range", zero, call.emit("Squeeze", count, call.integers([0], "axis")), one)


def padding(call: Call, mask: Value, batch: Dim | None, keys: Value, dtype: DType) -> Value:
    """What the padding of keys adds to scores [batch, heads, queries, keys]: 0, or ``mask_filter_value`` where it hides one.

    ``mask``: integers, 1 for keys that are seen, [batch, keys] or [batch, queries, keys]; or the lengths of rows padded on the
    right, [batch]; or the ends and the starts of rows padded on the left, [2 * batch]. ``keys``: their number.
    Raises ModelError for other forms.
    """
    shape = call.shape(mask)
    if shape is None or len(shape) not in (1, 2, 3):
        raise ModelError(f"{call.op} with a mask {mask.type} is not supported, only of rank 1, 2 and 3")
    if len(shape) > 1:
        zero = call.constant(np.zeros((), numpy_dtype(call.dtype(mask))), "zero")
        seen = call.emit("Greater", mask, zero)
        seen = call.emit("Unsqueeze", seen, call.integers([1] if len(shape) == 3 else [1, 2], "axes"))
    else:
        place = positions(call, keys, "keys")
        (length,) = shape
        ends, starts = mask, None
        if batch is not None and length == 2 * batch and length != batch:
            ends, starts = call.emits("Split", 2, mask, axis=0, num_outputs=2)
        elif batch is None or length != batch:
            raise ModelError(
                f"{call.op} with a mask {mask.type} for a batch of {batch} is not supported, only of [batch] and [2*batch]"
            )
        axes = call.integers([1, 2, 3], "axes")
        column = call.emit("Unsqueeze", call.cast(ends, DType.I64), axes)
        seen = call.emit("Less", place, column)
        if starts is not None:
            first = call.emit("Unsqueeze", call.cast(starts, DType.I64), axes)
            seen = call.emit("And", seen, call.emit("GreaterOrEqual", place, first))
    hidden = call.attrs.get("mask_filter_value", MASKED)
    values = [call.constant(np.array(v, np.float32).astype(numpy_dtype(dtype)), "mask") for v in (0.0, hidden)]
    return call.emit("Where", seen, *values)


def summed(call: Call, parts: Sequence[Value | None]) -> Value | None:
    """The sum of what is there; None where nothing is."""
    total: Value | None = None
    for part in parts:
        total = part if total is None else total if part is None else call.emit("Add", total, part)
    return total


def batch_of(call: Call, value: Value) -> Dim | None:
    """The first size, None where it is not known."""
    shape = call.shape(value)
    return shape[0] if shape else None
