"""Element types: their names, the one spelling used in plan files, graph text and messages, and their widths."""

import enum


class DType(enum.StrEnum):
    """An element type. The value is its spelling everywhere a person or a file sees it: ``f32``, ``i64``, ``bf16``."""

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    F8E4M3FN = "f8e4m3fn"
    F8E4M3FNUZ = "f8e4m3fnuz"
    F8E5M2 = "f8e5m2"
    F8E5M2FNUZ = "f8e5m2fnuz"
    F8E8M0 = "f8e8m0"
    F4E2M1 = "f4e2m1"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    I4 = "i4"
    I2 = "i2"
    U64 = "u64"
    U32 = "u32"
    U16 = "u16"
    U8 = "u8"
    U4 = "u4"
    U2 = "u2"
    BOOL = "bool"
    C64 = "c64"
    C128 = "c128"
    STR = "str"

    @property
    def bits(self) -> int:
        """Bits one element takes in a plan file; 0 for ``str``, which has no fixed width."""
        return _BITS[self]

    def nbytes(self, count: int) -> int:
        """Bytes that ``count`` densely packed elements take in a plan file (types under 8 bits share bytes)."""
        return (self.bits * count + 7) // 8

    @property
    def is_float(self) -> bool:
        """True for every real floating-point type, fp8 and fp4 included."""
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers of every width; false for bool."""
        return self.value[0] in "iu"

    @property
    def is_half(self) -> bool:
        """True for the floating-point types narrower than 32 bits: arithmetic on them is done in f32."""
        return self in _FLOATS and self.bits < 32


_BITS: dict[DType, int] = {
    DType.F64: 64, DType.F32: 32, DType.F16: 16, DType.BF16: 16,
    DType.F8E4M3FN: 8, DType.F8E4M3FNUZ: 8, DType.F8E5M2: 8, DType.F8E5M2FNUZ: 8, DType.F8E8M0: 8, DType.F4E2M1: 4,
    DType.I64: 64, DType.I32: 32, DType.I16: 16, DType.I8: 8, DType.I4: 4, DType.I2: 2,
    DType.U64: 64, DType.U32: 32, DType.U16: 16, DType.U8: 8, DType.U4: 4, DType.U2: 2,
    DType.BOOL: 8, DType.C64: 64, DType.C128: 128, DType.STR: 0,
}  # fmt: skip
_FLOATS = frozenset(d for d in DType if d.value.startswith(("f", "bf")))
