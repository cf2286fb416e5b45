"""Element types as kernels spell them."""

from miniinfer_cli.ir import DType, numpy_dtype

_BITS = {1: "u8", 2: "u16", 4: "u32", 8: "u64", 16: "Pack<u64, 2>"}
HOST_ONLY = frozenset({DType.STR, DType.C64, DType.C128})
"""Types that no kernel takes."""


class HostOnly(ValueError):
    """A lowering asked for a type that no kernel takes: the node then goes to the host."""


def c_type(dtype: DType) -> str:
    """The type in types.cuh: ``f32``, ``bf16``, ``i64``, ``bool`` ... Raises HostOnly for strings and complex numbers."""
    if dtype in HOST_ONLY:
        raise HostOnly(f"no kernel takes {dtype}")
    return dtype.value


def bits_type(dtype: DType) -> str:
    """An unsigned type of the element's size, for kernels that only move elements (complex numbers too)."""
    return unit_type(element_nbytes(dtype))


def unit_type(nbytes: int) -> str:
    """A type that moves so many bytes at once: 1, 2, 4, 8 or 16."""
    return _BITS[nbytes]


def element_nbytes(dtype: DType) -> int:
    """Bytes of an element on the device, where types under 8 bits take a whole byte."""
    return numpy_dtype(dtype).itemsize


def computed_type(dtype: DType) -> str:
    """The C type that arithmetic is done in: ``f32`` for the narrow floats, ``i32`` for integers under 8 bits, else its own."""
    if dtype.is_half:
        return "f32"
    return "i32" if dtype.is_integer and dtype.bits < 8 else c_type(dtype)
