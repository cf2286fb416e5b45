"""Weights in blocks of a few bits: MatMulNBits, GatherBlockQuantized, MatMulBnb4."""

import math
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Value, numpy_dtype
from miniinfer_cli.ir.constants import Mapped, reinterpreted
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.packing import expect_bits, first_columns, unpacked, without_middle
from miniinfer_cli.onnx_import.registry import INT, contributed
from miniinfer_cli.ops.element_types import SUB_BYTE_INTEGERS

_NBITS = {"K": INT, "N": INT, "accuracy_level": INT, "bits": INT, "block_size": INT, "weight_prepacked": INT}
_BNB4 = {"K": INT, "N": INT, "block_size": INT, "quant_type": INT, "training_mode": INT, "transB": INT}


@contributed(
    "MatMulNBits",
    _NBITS,
    (3, 6),
    required=("K", "N", "block_size"),
    fixed={"weight_prepacked": 0},
    ignored=("accuracy_level",),
    absent={4: "g_idx"},
)
def matmul_nbits(call: Call) -> Sequence[Value]:
    """MatMul by the transposed DequantizeLinear of B, in blocks along K; constant weights keep 2, 4 or 8 bits. Plus bias."""
    a, bits, size = call.required(0), call.attrs.get("bits", 4), _block_size(call)
    k, n = call.count("K"), call.count("N")
    blocks = -(-k // size)
    stored = unpacked(call, call.required(1), bits, (n, k))
    scales = call.emit("Reshape", call.required(2), call.integers([n, blocks], "shape"))
    weights = _dequantized(call, stored, scales, call.input(3), bits, size)
    turned = call.emit("Transpose", weights, perm=[1, 0])
    if (bias := call.input(5)) is None:
        return call.result("MatMul", a, turned, domain="")
    return call.result("Add", call.emit("MatMul", a, turned), bias, domain="")


def _dequantized(call: Call, stored: Value, scales: Value, zeros: Value | None, bits: int, size: int) -> Value:
    """[N,K] as floats, from integers with ``scales`` [N,blocks] and zero points: packed, floats, or none for the middle."""
    n, blocks = call.sizes(scales)
    if zeros is None:
        return _scaled(call, without_middle(call, stored, bits), scales, None, size)
    if call.dtype(zeros) is DType.U8:
        return _scaled(call, stored, scales, unpacked(call, zeros, bits, (n, blocks)), size)
    if (whole := _whole(call, zeros, (n, blocks), call.dtype(stored))) is not None:
        return _scaled(call, stored, scales, whole, size)
    points = call.cast(call.emit("Reshape", zeros, call.integers([n, blocks], "shape")), call.dtype(scales))
    _, k = call.sizes(stored)
    difference = call.emit("Sub", call.cast(stored, call.dtype(scales)), _spread(call, points, size, k))
    return call.emit("Mul", difference, _spread(call, scales, size, k))


def _whole(call: Call, zeros: Value, shape: tuple[int, ...], dtype: DType) -> Value | None:
    """Zero points in floats as integers of ``dtype``, where they are constants and such numbers."""
    if zeros.constant is None or zeros.constant.size != math.prod(shape):
        return None
    found = zeros.constant.array().astype(np.float64).reshape(shape)
    if ((found != np.rint(found)) | (found < 0) | (found >= 1 << dtype.bits)).any():
        return None
    return call.constant(found.astype(np.uint8).astype(numpy_dtype(dtype)), "zero points")


def _scaled(call: Call, stored: Value, scales: Value, zeros: Value | None, size: int) -> Value:
    if call.dtype(stored) is DType.F32 or (zeros is not None and call.dtype(zeros) is not call.dtype(stored)):
        _, k = call.sizes(stored)
        wide = call.cast(stored, DType.F32)
        if zeros is not None:
            wide = call.emit("Sub", wide, _spread(call, call.cast(zeros, DType.F32), size, k))
        product = call.emit("Mul", wide, _spread(call, call.cast(scales, DType.F32), size, k))
        return call.cast(product, call.dtype(scales))
    return call.emit("DequantizeLinear", stored, scales, zeros, axis=1, block_size=size)


def _spread(call: Call, blocks: Value, size: int, k: int) -> Value:
    """One number for each block, [N,blocks], as one for each element, [N,K]."""
    n, count = call.sizes(blocks)
    column = call.emit("Unsqueeze", blocks, call.integers([2], "axis"))
    wide = call.emit("Expand", column, call.integers([n, count, size], "shape"))
    flat = call.emit("Reshape", wide, call.integers([n, count * size], "shape"))
    return call.emit("Slice", flat, *(call.integers([v], "bound") for v in (0, k, 1)))


@contributed("GatherBlockQuantized", {"bits": INT, "block_size": INT, "gather_axis": INT, "quantize_axis": INT}, (3, 4))
def gather_block_quantized(call: Call) -> Sequence[Value]:
    """Gather of the narrow integers, of their scales and zero points, and DequantizeLinear of what was read.

    An index outside is an error, where ONNX Runtime gives zeros.
    """
    data, ids, scales, zeros = call.required(0), call.required(1), call.required(2), call.input(3)
    bits, size, rank = call.attrs.get("bits", 4), _block_size(call, 128), call.rank(data)
    gathered, quantized = (_axis(call, name, default, rank) for name, default in (("gather_axis", 0), ("quantize_axis", 1)))
    if gathered == quantized:
        raise ModelError(f"{call.op} gather_axis and quantize_axis are both {gathered}; expected two axes")
    if call.dtype(data) is DType.U8:
        expect_bits(call, bits)
        *rows, last = call.sizes(data)
        data = unpacked(call, data, bits, (*rows, last * 8 // bits))
        if zeros is not None:
            *rows, last = call.sizes(scales)
            zeros = unpacked(call, zeros, bits, (*rows, last))
        else:
            data = without_middle(call, data, bits)
    elif call.dtype(data) not in SUB_BYTE_INTEGERS:
        raise ModelError(f"{call.op} of {call.dtype(data)} is not supported, only of integers of 2, 4 and 8 bits")
    stored, factors, *points = (
        call.emit("Gather", v, ids, axis=gathered) for v in (data, scales, *([] if zeros is None else [zeros]))
    )
    axis = quantized + (call.rank(ids) - 1 if quantized > gathered else 0)
    if call.dtype(stored) is DType.F32 or (points and call.dtype(points[0]) is not call.dtype(stored)):
        raise ModelError(f"{call.op} needs constant data and zero points")
    return call.result("DequantizeLinear", stored, factors, *points, domain="", axis=axis, block_size=size)


@contributed("MatMulBnb4", _BNB4, (3, 3), required=("K", "N", "block_size", "quant_type"), fixed={"training_mode": 0})
def matmul_bnb4(call: Call) -> Sequence[Value]:
    """MatMul by a table of 16 floats (FP4 or NF4) at the indices that B holds, times the largest of each block, transposed."""
    k, n, size = call.attrs["K"], call.attrs["N"], _block_size(call)
    table = _TABLES.get(call.attrs["quant_type"])
    if table is None:
        raise ModelError(f"{call.op} quant_type is {call.attrs['quant_type']}, expected 0 (FP4) or 1 (NF4)")
    source, a = call.required(1).constant, call.required(0)
    if source is None or source.dtype is not DType.U8 or source.size != -(-n * k // 2):
        raise ModelError(f"{call.op} needs constant weights of {n * k} elements in u8, got {call.required(1).type}")
    swapped = Mapped(DType.U8, source.shape, (source,), _halves_swapped, "halves swapped")
    indices = first_columns(reinterpreted(swapped, DType.U4, (2 * source.size,)), n * k)
    codes = call.constant(np.array(table, np.float32).astype(numpy_dtype(call.dtype(a))), "table")
    count = -(-n * k // size)
    largest = call.emit("Unsqueeze", call.required(2), call.integers([1], "axis"))
    factors = call.emit("Expand", largest, call.integers([count, size], "shape"))
    factors = call.emit("Reshape", factors, call.integers([-1], "flat"))
    factors = call.emit("Slice", factors, *(call.integers([v], "bound") for v in (0, n * k)))
    weights = call.emit("Mul", call.emit("Gather", codes, call.constant(indices, "indices")), factors)
    if call.attrs.get("transB", 1):
        square = call.emit("Transpose", call.emit("Reshape", weights, call.integers([n, k], "shape")), perm=[1, 0])
    else:
        square = call.emit("Reshape", weights, call.integers([k, n], "shape"))
    return call.result("MatMul", a, square, domain="")


def _halves_swapped(block: Array) -> Array:
    """bitsandbytes has the first of two in the upper half of a byte."""
    return (block >> 4) | (block << 4)


def _block_size(call: Call, default: int | None = None) -> int:
    size = int(call.attrs.get("block_size", default) or 0)
    if size < 16 or size & (size - 1):
        raise ModelError(f"{call.op} block_size is {size}, expected a power of 2 from 16 on")
    return size


def _axis(call: Call, name: str, default: int, rank: int) -> int:
    axis: int = call.attrs.get(name, default)
    if not -rank <= axis < rank:
        raise ModelError(f"{call.op} {name} is {axis}, outside of rank {rank}")
    return axis % rank


# Source: bitsandbytes, Dettmers and others: QLoRA (arXiv 2305.14314), appendix E, for NF4.
_TABLES = {
    0: (
        0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25,
        -0.0, -5.208333333e-03, -0.66666667, -1.0, -0.33333333, -0.5, -0.16666667, -0.25,
    ),
    1: (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
        -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
}  # fmt: skip
