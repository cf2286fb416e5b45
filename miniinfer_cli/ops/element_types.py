"""The sets of element types that operations take, and the checks on operands."""

from engine_format.dtypes import DType
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import TensorType
from miniinfer_cli.ir.quantization import FP8_LARGEST

FLOATS = frozenset({DType.F64, DType.F32, DType.F16, DType.BF16})
INTEGERS = frozenset({DType.I64, DType.I32, DType.I16, DType.I8, DType.U64, DType.U32, DType.U16, DType.U8})
FP8 = frozenset(FP8_LARGEST)
SUB_BYTE_INTEGERS = frozenset({DType.I4, DType.U4, DType.I2, DType.U2})
NUMBERS = FLOATS | INTEGERS
BOOL = frozenset({DType.BOOL})
ANY = frozenset(DType)
# Any numbers and truths: what arithmetic of the references takes, though ONNX may list fewer.
REAL = ANY - {DType.STR, DType.C64, DType.C128}
INDICES = INTEGERS | SUB_BYTE_INTEGERS | BOOL


def expect_dtype(op: str, x: TensorType | None, allowed: frozenset[DType]) -> None:
    """Raises ModelError unless ``x`` is absent or of one of the element types ``allowed``."""
    if x is not None and x.dtype not in allowed:
        raise ModelError(f"{op} does not take an input {x}, its element type must be one of {dtype_names(allowed)}")


def same_dtype(op: str, *operands: TensorType | None) -> DType:
    """The element type that all operands share. Raises ModelError when they differ; absent ones do not count."""
    present = [x for x in operands if x is not None]
    if len({x.dtype for x in present}) != 1:
        raise ModelError(
            f"{op} needs operands of one element type, got {' and '.join(map(str, present))}",
            hint="put a Cast before one of them",
        )
    return present[0].dtype


def dtype_names(dtypes: frozenset[DType]) -> str:
    """The names of ``dtypes``, widest first, for a message."""
    return " ".join(d for d in DType if d in dtypes)
