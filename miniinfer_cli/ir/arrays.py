"""Element types as numpy sees them: the dtype of each, and arrays from and to densely packed bytes."""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from engine_format.dtypes import DType

Array = npt.NDArray[Any]

_NATIVE: dict[DType, np.dtype[Any]] = {
    DType.F64: np.dtype("float64"), DType.F32: np.dtype("float32"), DType.F16: np.dtype("float16"),
    DType.I64: np.dtype("int64"), DType.I32: np.dtype("int32"), DType.I16: np.dtype("int16"), DType.I8: np.dtype("int8"),
    DType.U64: np.dtype("uint64"), DType.U32: np.dtype("uint32"), DType.U16: np.dtype("uint16"), DType.U8: np.dtype("uint8"),
    DType.BOOL: np.dtype("bool"), DType.C64: np.dtype("complex64"), DType.C128: np.dtype("complex128"),
    DType.STR: np.dtype("object"),
}  # fmt: skip
_ML_NAMES: dict[DType, str] = {
    DType.BF16: "bfloat16", DType.F8E4M3FN: "float8_e4m3fn", DType.F8E4M3FNUZ: "float8_e4m3fnuz",
    DType.F8E5M2: "float8_e5m2", DType.F8E5M2FNUZ: "float8_e5m2fnuz", DType.F8E8M0: "float8_e8m0fnu",
    DType.F4E2M1: "float4_e2m1fn", DType.I4: "int4", DType.U4: "uint4", DType.I2: "int2", DType.U2: "uint2",
}  # fmt: skip
_FROM_NAME: dict[str, DType] = {str(n): d for d, n in _NATIVE.items() if d is not DType.STR} | {
    n: d for d, n in _ML_NAMES.items()
}


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """The numpy dtype of ``dtype``: numpy's own, ml_dtypes' (imported at first need), or object for ``str``."""
    native = _NATIVE.get(dtype)
    if native is not None:
        return native
    import ml_dtypes  # late: most models have no such type, and the import costs start-up time

    result: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_NAMES[dtype]))
    return result


def dtype_of(array: Array) -> DType:
    """The element type of an array. numpy strings and objects count as ``str``. Raises ValueError for a type ONNX lacks."""
    found = _element_type(array.dtype)
    if found is None:
        raise ValueError(f"element type {array.dtype} has no ONNX counterpart")
    return found


@functools.lru_cache(256)  # numpy takes several microseconds to put a type's name together
def _element_type(dtype: "np.dtype[Any]") -> DType | None:
    return DType.STR if dtype.kind in "OUST" else _FROM_NAME.get(dtype.name)


def unpack(data: Any, dtype: DType, shape: tuple[int, ...]) -> Array:
    """An array over densely packed little-endian bytes: a read-only view for types of whole bytes, a copy below 8 bits."""
    count = int(np.prod(shape, dtype=np.int64))
    if dtype.bits >= 8:
        return np.frombuffer(data, numpy_dtype(dtype), count).reshape(shape)
    per_byte = 8 // dtype.bits
    raw = np.frombuffer(data, np.uint8, dtype.nbytes(count))
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(dtype.bits)
    fields = ((raw[:, None] >> shifts) & np.uint8((1 << dtype.bits) - 1)).reshape(-1)[:count]
    if dtype in (DType.I4, DType.I2):  # sign-extend the field
        sign = np.uint8(1 << (dtype.bits - 1))
        return ((fields ^ sign).astype(np.int8) - np.int8(sign)).astype(numpy_dtype(dtype)).reshape(shape)
    if dtype is DType.F4E2M1:
        return fields.view(numpy_dtype(dtype)).reshape(shape)
    return fields.astype(numpy_dtype(dtype)).reshape(shape)


def pack(array: Array, dtype: DType) -> bytes:
    """The densely packed little-endian bytes of ``array``; the inverse of ``unpack``."""
    array = np.ascontiguousarray(array, numpy_dtype(dtype))
    if dtype.bits >= 8:
        return array.tobytes()
    per_byte = 8 // dtype.bits
    fields = array.reshape(-1).view(np.uint8) & np.uint8((1 << dtype.bits) - 1)
    padded = np.zeros(-(-fields.size // per_byte) * per_byte, np.uint8)
    padded[: fields.size] = fields
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(dtype.bits)
    result: bytes = np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1).astype(np.uint8).tobytes()
    return result
