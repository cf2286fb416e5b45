"""The parameters of a kernel's launch, packed as the driver reads them. Plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_PARAMETERS = 32764  # bytes, from sm_70 on
ENCODED_ALIGNMENT = 64
"""What an encoded parameter begins at a multiple of."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A parameter that only the device reads: a tensor map."""

    contents: bytes


class Parameters:
    """The values of a launch, as ``cuLaunchKernel`` reads them; may serve any number of launches.

    ``buffer`` has the values, each at ``offsets`` as a C struct of them would; ``address`` is that of the table of pointers
    to them, 0 when there are none.
    """

    __slots__ = ("_table", "address", "buffer", "nbytes", "offsets")

    def __init__(self, buffer: npt.NDArray[np.uint8], offsets: tuple[int, ...], nbytes: int) -> None:
        """Use ``pack_parameters``. ``buffer`` starts at a multiple of 64."""
        self.buffer = buffer
        self.offsets = offsets
        self.nbytes = nbytes
        self._table = np.array([buffer.ctypes.data + offset for offset in offsets], np.uint64)
        self.address = int(self._table.ctypes.data) if offsets else 0

    def replaced(self, values: Mapping[int, "np.generic[Any]"]) -> "Parameters":
        """The same with other values, of the same types, for the parameters of these numbers."""
        raw, start = _aligned(self.nbytes)
        raw[start : start + self.nbytes] = self.buffer
        for number, value in values.items():
            at = start + self.offsets[number]
            raw[at : at + value.nbytes] = np.frombuffer(value.tobytes(), np.uint8)
        return Parameters(raw[start : start + self.nbytes], self.offsets, self.nbytes)


def pack_parameters(values: Sequence["np.generic[Any] | npt.NDArray[Any] | Encoded"]) -> Parameters:
    """The parameters of a launch: numpy scalars of the parameters' exact types, one-dimensional arrays as structs, tensor maps.

    An address is an ``np.uint64``; ``np.array([n, m], np.int32)`` fills a ``struct { int d[2]; }``. A Python number is a
    TypeError, since its size is anyone's guess; a value with more dimensions, an empty array, or more than 32764 bytes in
    all is a ValueError.
    """
    arrays = [_as_array(number, value) for number, value in enumerate(values)]
    offsets: list[int] = []
    end = 0
    for value, array in zip(values, arrays, strict=True):
        start = end + -end % (ENCODED_ALIGNMENT if isinstance(value, Encoded) else _alignment(array.dtype))
        offsets.append(start)
        end = start + array.nbytes
    if end > _MOST_PARAMETERS:
        raise ValueError(f"the parameters take {end} bytes; a kernel can have {_MOST_PARAMETERS}")
    raw, skip = _aligned(end)
    buffer = raw[skip : skip + end]
    for start, array in zip(offsets, arrays, strict=True):
        buffer[start : start + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
    return Parameters(buffer, tuple(offsets), end)


def _aligned(nbytes: int) -> tuple[npt.NDArray[np.uint8], int]:
    """Zeros, and where in them ``nbytes`` begin at a multiple of 64."""
    raw = np.zeros(nbytes + ENCODED_ALIGNMENT, np.uint8)
    return raw, -raw.ctypes.data % ENCODED_ALIGNMENT


def _as_array(number: int, value: object) -> npt.NDArray[Any]:
    if isinstance(value, Encoded):
        return np.frombuffer(value.contents, np.uint8)
    if not isinstance(value, (np.generic, np.ndarray)):
        raise TypeError(f"parameter {number}: expected a numpy scalar or array, got {type(value).__name__}")
    array = np.asarray(value)
    # ml_dtypes' bfloat16 and fp8 are of kind V, and registered (2); bytes without a meaning are not.
    if array.dtype.kind not in "biufcV" or (array.dtype.kind == "V" and array.dtype.isbuiltin != 2) or array.dtype.itemsize > 16:
        raise TypeError(f"parameter {number}: a kernel has no parameters of type {array.dtype}")
    if array.ndim > 1 or (isinstance(value, np.ndarray) and array.ndim != 1) or not array.size:
        raise ValueError(f"parameter {number}: expected one dimension and at least one item, got shape {array.shape}")
    return array


def _alignment(dtype: "np.dtype[Any]") -> int:
    # CUDA's complex types are vectors, aligned to their size; numpy's to that of their parts.
    return dtype.itemsize if dtype.kind == "c" else dtype.alignment
