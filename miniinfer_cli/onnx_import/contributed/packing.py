"""Integers of 2 and 4 bits that ONNX Runtime packs into bytes, the first in the lowest bits."""

from collections.abc import Callable, Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Constant, DType, Value, numpy_dtype
from miniinfer_cli.ir.constants import Mapped, Sliced, reinterpreted
from miniinfer_cli.onnx_import.call import Call

_UNSIGNED = {2: DType.U2, 4: DType.U4, 8: DType.U8}
_SIGNED = {DType.U2: DType.I2, DType.U4: DType.I4, DType.U8: DType.I8}


def unpacked(call: Call, packed: Value, bits: int, shape: Sequence[int]) -> Value:
    """The first elements of each row of ``packed`` (u8, rows along its last axis), as integers of ``bits`` of this ``shape``.

    A constant stays as small as it is. What is none is taken apart at each run, and is u8 then. Raises ModelError where it does
    not hold so many, and for other widths than 2, 4 and 8.
    """
    expect_bits(call, bits)
    if call.dtype(packed) is not DType.U8:
        raise ModelError(f"{call.op}: {packed.name!r} is of {call.dtype(packed)}, expected u8")
    *rows, count = shape
    per_byte = 8 // bits
    if packed.constant is not None:
        source = packed.constant
        row = source.size * per_byte // max(int(np.prod(rows)), 1)
        if row < count or source.size * per_byte != row * int(np.prod(rows)):
            raise ModelError(f"{call.op}: {packed.name!r} is {packed.type}, which does not hold {list(shape)} of {bits} bits")
        whole = reinterpreted(source, _UNSIGNED[bits], (*rows, row))
        return call.constant(whole if row == count else first_columns(whole, count), "unpacked")
    if per_byte > 1:
        packed = _apart(call, packed, bits)
    flat = call.emit("Reshape", packed, call.integers([*rows, -1], "shape"))
    ends = (call.integers([v], "bound") for v in (0, count, -1))
    return call.emit("Slice", flat, *ends)


def expect_bits(call: Call, bits: int) -> None:
    """Raises ModelError unless integers of ``bits`` can be unpacked."""
    if bits not in _UNSIGNED:
        raise ModelError(f"{call.op} of {bits} bits is not supported, only of {', '.join(map(str, _UNSIGNED))}")


def first_columns(source: Constant, count: int) -> Constant:
    """The first ``count`` of each row."""
    shape = (*source.shape[:-1], count)
    return Sliced(source.dtype, shape, source, (0,) * len(shape))


def without_middle(call: Call, integers: Value, bits: int) -> Value:
    """Unsigned integers of ``bits`` less the middle of their range: ONNX Runtime's zero point where none is given.

    Constants are signed integers of as many bits; others come in f32.
    """
    dtype = call.dtype(integers)
    if integers.constant is None:
        return call.emit("Sub", call.cast(integers, DType.F32), call.number(1 << (bits - 1), DType.F32, "middle"))
    source = integers.constant
    signed = _SIGNED[dtype]
    return call.constant(Mapped(signed, source.shape, (source,), _below_middle(dtype, signed), "less the middle"), "signed")


def _below_middle(dtype: DType, signed: DType) -> Callable[[Array], Array]:
    middle, target = np.int16(1 << (dtype.bits - 1)), numpy_dtype(signed)

    def moved(block: Array) -> Array:
        return (block.astype(np.int16) - middle).astype(np.int8).astype(target)

    return moved


def _apart(call: Call, packed: Value, bits: int) -> Value:
    """Bytes as elements of u8, one behind the other."""
    rank = call.rank(packed)
    mask = call.constant(np.array((1 << bits) - 1, np.uint8), "mask")
    fields = []
    for shift in range(0, 8, bits):
        moved = call.emit("BitShift", packed, call.constant(np.array(shift, np.uint8), "shift"), direction="RIGHT")
        fields.append(call.emit("Unsqueeze", call.emit("BitwiseAnd", moved, mask), call.integers([rank], "axis")))
    columns = call.emit("Concat", *fields, axis=rank)
    return call.emit("Reshape", columns, call.integers([*[0] * (rank - 1), -1], "shape"))
