"""ONNX's numbers for element types (TensorProto.DataType), as attributes like Cast's ``to`` hold them."""

from engine_format.dtypes import DType
from miniinfer_cli.errors import ModelError

_BY_CODE: dict[int, DType] = {
    1: DType.F32, 2: DType.U8, 3: DType.I8, 4: DType.U16, 5: DType.I16, 6: DType.I32, 7: DType.I64, 8: DType.STR,
    9: DType.BOOL, 10: DType.F16, 11: DType.F64, 12: DType.U32, 13: DType.U64, 14: DType.C64, 15: DType.C128,
    16: DType.BF16, 17: DType.F8E4M3FN, 18: DType.F8E4M3FNUZ, 19: DType.F8E5M2, 20: DType.F8E5M2FNUZ, 21: DType.U4,
    22: DType.I4, 23: DType.F4E2M1, 24: DType.F8E8M0, 25: DType.U2, 26: DType.I2,
}  # fmt: skip
_BY_DTYPE = {dtype: code for code, dtype in _BY_CODE.items()}


def dtype_of_code(code: int) -> DType:
    """The element type with ONNX's number ``code``. Raises ModelError for a number that has none here."""
    found = _BY_CODE.get(code)
    if found is None:
        raise ModelError(f"element type number {code} is not supported")
    return found


def float_of_code(op: str, attribute: str, code: int) -> DType:
    """The same of an ``attribute`` of ``op`` that names a type to compute in: a floating-point one, else it raises ModelError."""
    found = dtype_of_code(code)
    if not found.is_float:
        raise ModelError(
            f"{op} {attribute} is {found}, expected a floating-point type",
            hint=f"set {attribute} to 1, which is f32, or to the number of another floating-point type",
        )
    return found


def code_of_dtype(dtype: DType) -> int:
    """ONNX's number for ``dtype``."""
    return _BY_DTYPE[dtype]
