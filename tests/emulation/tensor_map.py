"""Tensor maps of the emulated device: 128 bytes that a kernel of a test, or a header for the processor, can read."""

import struct
from typing import Any

from miniinfer_cli.backends.cuda.contract.parameters import Encoded
from miniinfer_cli.backends.cuda.contract.tensor_map import Im2col, MapElement, Swizzle, TensorMap, map_fault

STRUCT = """
struct alignas(64) TensorMap {
  unsigned long long address, dims[5], strides[4];  // strides of dimensions 1 and up, in bytes
  unsigned short box[5];
  short lower[3], upper[3];
  unsigned short channels, pixels;  // 0 where it is no im2col map
  unsigned char element, element_nbytes, rank, swizzle, nan_outside, steps[5];
};
static_assert(sizeof(TensorMap) == 128);
"""
"""What the bytes are, in C++; ``element`` is the number of a ``MapElement``, ``swizzle`` its bytes."""
_FORMAT = "<Q5Q4Q5H3h3hHHBBBBB5B"
_NBYTES = 128


def encode_readable(tensor: TensorMap[Any], address: int) -> Encoded:
    """The map of the tensor at ``address``. Raises AssertionError for what no device can have."""
    why = map_fault(tensor, address)
    assert why is None, why
    columns = tensor.im2col
    values = (
        address,
        *_filled(tensor.dims, 5),
        *_filled(tensor.strides, 4),
        *_filled(tensor.box, 5),
        *_filled(columns.lower if columns else (), 3),
        *_filled(columns.upper if columns else (), 3),
        columns.channels if columns else 0,
        columns.pixels if columns else 0,
        list(MapElement).index(tensor.element),
        tensor.element.nbytes,
        len(tensor.dims),
        int(tensor.swizzle),
        tensor.nan_outside,
        *_filled(tensor.every, 5),
    )
    return Encoded(struct.pack(_FORMAT, *values).ljust(_NBYTES, b"\0"))


def decode_readable(encoded: Encoded) -> TensorMap[int]:
    """The map again, over its address."""
    address, *rest = struct.unpack_from(_FORMAT, encoded.contents)
    dims, strides, box, lower, upper = rest[:5], rest[5:9], rest[9:14], rest[14:17], rest[17:20]
    channels, pixels, element, _, rank, swizzle, nan_outside, *steps = rest[20:]
    columns = Im2col(tuple(lower[: rank - 2]), tuple(upper[: rank - 2]), channels, pixels) if pixels else None
    return TensorMap(
        address,
        list(MapElement)[element],
        tuple(dims[:rank]),
        tuple(strides[: rank - 1]),
        () if columns else tuple(box[:rank]),
        Swizzle(swizzle),
        columns,
        tuple(steps[:rank]),
        bool(nan_outside),
    )


def _filled(values: tuple[int, ...], count: int) -> tuple[int, ...]:
    return (*values, *[0] * count)[:count]
