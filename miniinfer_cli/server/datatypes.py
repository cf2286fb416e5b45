"""Types of tensors as the Open Inference Protocol names them, and their bytes as its binary extension lays them out."""

import struct
from typing import Any

import numpy as np

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Array, DType, TensorType
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.wording import Wording

NAMES = {
    DType.BOOL: "BOOL",
    DType.U8: "UINT8",
    DType.U16: "UINT16",
    DType.U32: "UINT32",
    DType.U64: "UINT64",
    DType.I8: "INT8",
    DType.I16: "INT16",
    DType.I32: "INT32",
    DType.I64: "INT64",
    DType.F16: "FP16",
    DType.BF16: "BF16",
    DType.F32: "FP32",
    DType.F64: "FP64",
    DType.STR: "BYTES",
}
"""The protocol's name of each type that it has; BF16 is the binary extension's."""
_LENGTH = struct.Struct("<I")


def datatype(what: str, binding: Binding) -> str:
    """The protocol's name of the type of ``what`` (input or output) ``binding``. Raises UsageError where it has none."""
    kind = binding.type
    if not isinstance(kind, TensorType) or kind.shape is None or kind.dtype not in NAMES:
        raise UsageError(
            f"{what} {binding} cannot be served: the Open Inference Protocol has no such type",
            hint=Wording(
                "build(model, plan, io_dtype='f32') has another type at inputs and outputs",
                flags="build the plan with another type at its inputs and outputs (--io-dtype), or run it by miniinfer run",
            ),
        )
    return NAMES[kind.dtype]


def read_texts(data: memoryview, name: str) -> list[str]:
    """The elements of a BYTES tensor: each is its length in 4 bytes, little-endian, and so many bytes of UTF-8."""
    texts: list[str] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise UsageError(f"input {name!r}: {len(data) - at} bytes behind element {len(texts)}, and a length has 4")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            raise UsageError(f"input {name!r}: element {len(texts)} has {length} bytes, of which {len(data) - at} are there")
        try:
            texts.append(str(data[at : at + length], "utf-8"))
        except UnicodeDecodeError as error:
            raise UsageError(f"input {name!r}: element {len(texts)} is no UTF-8: {error.reason}") from None
        at += length
    return texts


def write_texts(texts: Array) -> bytes:
    """The bytes of a BYTES tensor; see ``read_texts``."""
    parts: list[bytes] = []
    for text in texts.reshape(-1):
        encoded = text.encode() if isinstance(text, str) else bytes(text)
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def tensor_bytes(array: Array) -> Any:
    """The bytes of a tensor, row by row, little-endian: without a copy where it lies like that."""
    if array.dtype.hasobject:
        return write_texts(array)
    dense = np.ascontiguousarray(array)
    return dense.reshape(-1).view(np.uint8).data if dense.size else b""
