"""Tensor maps: how the bulk copies of sm_90 and newer see a tensor in global memory, and what they can see. Plain data.

Rules: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TENSOR__MEMORY.html. The manual also says that each stride is a
multiple of the one before it and covers what lies below; neither is asked for here, since the copies do without: rows that
overlap make one map of a convolution's stem. What it does not say, and an H200 does: a copy whose corner lies between multiples
of 16 bytes of the innermost dimension ends in an illegal instruction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Generic, TypeVar

At = TypeVar("At")
To = TypeVar("To")

MAP_ARCH = 90
"""The first architecture (90 for sm_90) that has tensor maps."""
ALIGNMENT = 16
"""Bytes that addresses, strides and the inner dimension of a box are multiples of."""
_MOST_RANK = 5
_MOST_DIM = 1 << 32
_MOST_STRIDE = 1 << 40  # bytes; just below it is allowed
_MOST_BOX = 256  # elements of a dimension, channels of a pixel too
_MOST_PIXELS = 1024
_MOST_STEP = 8
# Offsets of a corner by rank: a rank of 5 has 5 bits for each.
_CORNERS = {3: range(-(1 << 15), 1 << 15), 4: range(-128, 128), 5: range(-16, 16)}


class MapElement(StrEnum):
    """An element as the copy sees it. ``TF32`` is f32 in memory, and rounded to nearest on the way; ``F32`` is left as it is."""

    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    I32 = "i32"
    U64 = "u64"
    I64 = "i64"
    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    TF32 = "tf32"
    F64 = "f64"

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return 4 if self is MapElement.TF32 else 2 if self is MapElement.BF16 else int(self.value[1:]) // 8

    @property
    def is_float(self) -> bool:
        """True for what has a NaN."""
        return "f" in self.value


class Swizzle(IntEnum):
    """Over how many bytes of shared memory 16-byte pieces are exchanged, so that a column of rows lies in all banks."""

    NONE = 0
    B32 = 32
    B64 = 64
    B128 = 128


@dataclass(frozen=True, slots=True)
class Im2col:
    """Instead of a box: ``pixels`` places of a filter's corner one after the other, ``channels`` elements of each.

    Dims are (channels, width, height, depth, batch), without those that a rank below 5 lacks. ``lower`` and ``upper`` bound the
    corner's places, width first: from ``lower`` to the size plus ``upper``, that one excluded; with padding p and dilation d,
    -p and p - d * (filter - 1).
    """

    lower: tuple[int, ...]
    upper: tuple[int, ...]
    channels: int
    pixels: int


@dataclass(frozen=True, slots=True)
class TensorMap(Generic[At]):
    """An argument of a launch: ``const __grid_constant__`` in the kernel, 128 bytes, encoded when the program is bound.

    ``operand`` is where the tensor begins. ``dims`` are elements, innermost first; ``strides`` bytes, of dimension 1 and those
    behind it; ``box`` the elements of each dimension that one copy moves, empty with ``im2col``. ``steps`` says that only every
    n-th element of a dimension is taken (a box's size counts those between, too); empty for all. What lies outside ``dims`` reads
    as zeros, or as NaN with ``nan_outside``. ``l2_nbytes``: of which more is fetched into the L2 cache at once; 0, 64, 128, 256.
    """

    operand: At
    element: MapElement
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...] = ()
    swizzle: Swizzle = Swizzle.NONE
    im2col: Im2col | None = None
    steps: tuple[int, ...] = ()
    nan_outside: bool = False
    l2_nbytes: int = 0

    @property
    def every(self) -> tuple[int, ...]:
        """``steps`` of every dimension."""
        return self.steps or (1,) * len(self.dims)

    def over(self, operand: To) -> "TensorMap[To]":
        """The same map of another operand."""
        return TensorMap(
            operand,
            self.element,
            self.dims,
            self.strides,
            self.box,
            self.swizzle,
            self.im2col,
            self.steps,
            self.nan_outside,
            self.l2_nbytes,
        )


def map_fault(tensor: TensorMap[At], offset: int = 0) -> str | None:
    """Why no device can have the map; None when one of sm_90 or newer can.

    ``offset`` is that of the operand within its buffer, which begins at a multiple of 256; or the address itself.
    """
    return next(_faults(tensor, offset), None)


def _faults(tensor: TensorMap[At], offset: int) -> Iterator[str]:
    rank, strides, size = len(tensor.dims), tensor.strides, tensor.element.nbytes
    if not 1 <= rank <= _MOST_RANK:
        yield f"a tensor map has 1 to {_MOST_RANK} dimensions, not {rank}"
    if len(strides) != max(rank - 1, 0):
        yield f"{rank} dimensions have {max(rank - 1, 0)} strides, and {len(strides)} are given"
    if not all(1 <= n <= _MOST_DIM for n in tensor.dims):
        yield f"dimensions are from 1 to 2^32: {tensor.dims}"
    if offset % ALIGNMENT:
        yield f"the tensor begins {offset % ALIGNMENT} bytes behind a multiple of {ALIGNMENT}"
    if any(s % ALIGNMENT or not 0 <= s < _MOST_STRIDE for s in strides):
        yield f"strides are multiples of {ALIGNMENT} bytes below 2^40: {strides}"
    if len(tensor.every) != rank or not all(1 <= n <= _MOST_STEP for n in tensor.every):
        yield f"each dimension has a step from 1 to {_MOST_STEP}: {tensor.steps}"
    if tensor.nan_outside and not tensor.element.is_float:
        yield f"{tensor.element} has no NaN to fill with"
    if tensor.l2_nbytes not in (0, 64, 128, 256):
        yield f"the L2 cache fetches 0, 64, 128 or 256 bytes more, not {tensor.l2_nbytes}"
    if tensor.im2col is None:
        if len(tensor.box) != rank or not all(1 <= n <= _MOST_BOX for n in tensor.box):
            yield f"a box has {rank} sizes from 1 to {_MOST_BOX}: {tensor.box}"
        inner = tensor.box[0]
    else:
        yield from _im2col_faults(tensor, tensor.im2col)
        inner = tensor.im2col.channels
    if inner * size % ALIGNMENT:
        yield f"the inner dimension of a copy is a multiple of {ALIGNMENT} bytes, not {inner * size}"
    if tensor.swizzle and inner * size > tensor.swizzle:
        yield f"the inner dimension of a copy is {tensor.swizzle.value} bytes at most with that swizzle, not {inner * size}"


def _im2col_faults(tensor: TensorMap[At], im2col: Im2col) -> Iterator[str]:
    rank = len(tensor.dims)
    if tensor.box:
        yield "a map has a box or is im2col"
    if rank not in _CORNERS:
        yield f"im2col has 3 to {_MOST_RANK} dimensions, not {rank}"
    allowed = _CORNERS[rank]
    for name, corner in (("lower", im2col.lower), ("upper", im2col.upper)):
        if len(corner) != rank - 2 or not all(n in allowed for n in corner):
            told = f"{rank - 2} offsets from {allowed.start} to {allowed.stop - 1}"
            yield f"the {name} corner of rank {rank} has {told}: {corner}"
    if any(n + high <= low for n, low, high in zip(tensor.dims[1:-1], im2col.lower, im2col.upper, strict=True)):
        yield f"no pixel lies between the corners {im2col.lower} and {im2col.upper}"
    if not 1 <= im2col.channels <= _MOST_BOX:
        yield f"a copy takes 1 to {_MOST_BOX} channels of a pixel, not {im2col.channels}"
    if not 1 <= im2col.pixels <= _MOST_PIXELS:
        yield f"a copy takes 1 to {_MOST_PIXELS} pixels, not {im2col.pixels}"
