"""Element types as onnxruntime spells them: ``tensor(float)``, ONNX's numbers, numpy's types."""

from typing import Any

import numpy as np

from miniinfer_cli.ir import DType, MapType, OptionalType, SequenceType, TensorType, Type, dtype_of, numpy_dtype

_FORMS: dict[DType, tuple[str, int]] = {
    DType.F32: ("float", 1), DType.U8: ("uint8", 2), DType.I8: ("int8", 3), DType.U16: ("uint16", 4), DType.I16: ("int16", 5),
    DType.I32: ("int32", 6), DType.I64: ("int64", 7), DType.STR: ("string", 8), DType.BOOL: ("bool", 9),
    DType.F16: ("float16", 10), DType.F64: ("double", 11), DType.U32: ("uint32", 12), DType.U64: ("uint64", 13),
    DType.C64: ("complex64", 14), DType.C128: ("complex128", 15), DType.BF16: ("bfloat16", 16),
    DType.F8E4M3FN: ("float8e4m3fn", 17), DType.F8E4M3FNUZ: ("float8e4m3fnuz", 18), DType.F8E5M2: ("float8e5m2", 19),
    DType.F8E5M2FNUZ: ("float8e5m2fnuz", 20), DType.U4: ("uint4", 21), DType.I4: ("int4", 22),
    DType.F4E2M1: ("float4e2m1", 23), DType.F8E8M0: ("float8e8m0", 24), DType.U2: ("uint2", 25), DType.I2: ("int2", 26),
}  # fmt: skip
_BY_NUMBER = {number: dtype for dtype, (_, number) in _FORMS.items()}


def type_text(type: Type | None) -> str:
    """``tensor(float)``, ``seq(tensor(int64))`` ...; empty where the type is not known."""
    match type:
        case TensorType():
            return f"tensor({_FORMS[type.dtype][0]})"
        case SequenceType():
            return f"seq({type_text(type.element)})"
        case OptionalType():
            return f"optional({type_text(type.element)})"
        case MapType():
            return f"map({_FORMS[type.key][0]},{type_text(type.element)})"
        case _:
            return ""


def array_type_text(array: Any) -> str:
    """The same of an array."""
    return f"tensor({_FORMS[_dtype_of(array)][0]})"


def array_type_number(array: Any) -> int:
    """ONNX's number of an array's element type."""
    return _FORMS[_dtype_of(array)][1]


def numpy_type(element_type: Any) -> "np.dtype[Any]":
    """numpy's type of an element type given as numpy's, or by ONNX's number. Raises TypeError for others."""
    if isinstance(element_type, int):
        if element_type not in _BY_NUMBER:
            raise TypeError(f"element type: ONNX has no number {element_type}")
        return numpy_dtype(_BY_NUMBER[element_type])
    found: np.dtype[Any] = np.dtype(element_type)
    return found


def _dtype_of(array: Any) -> DType:
    if isinstance(array, np.ndarray) and array.dtype.kind in "OSU":
        return DType.STR
    return dtype_of(np.empty(0, array.dtype))
