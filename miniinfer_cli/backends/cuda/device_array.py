"""Arrays that are on a GPU already: a caller's own, or an engine's outputs and input buffers."""

from typing import Any

import numpy as np

from miniinfer_cli.errors import UsageError

_DLPACK_CUDA = 2  # kDLCUDA


class DeviceArray:
    """A dense row-major array at ``address`` on ``cuda:ordinal``; what keeps the memory alive is ``owner``.

    Other libraries take it by ``__cuda_array_interface__`` (cupy, numba, torch.as_tensor).
    """

    def __init__(self, address: int, shape: tuple[int, ...], dtype: "np.dtype[Any]", ordinal: int, *, owner: Any = None) -> None:
        self.address = address
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.ordinal = ordinal
        self._owner = owner
        self._stream: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; no stream, since whoever gave this array waited for it."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }

    def wait_on(self, stream: Any) -> None:
        """Lets ``stream`` wait for whatever still writes the array."""
        if self._stream is not None:
            stream.wait_for_foreign(self._stream)


def from_object(name: str, value: Any, ordinal: int) -> DeviceArray | None:
    """A caller's array on the GPU as a DeviceArray; None for what is no device array.

    Raises UsageError for one on another device, and for one that is not dense.
    """
    if isinstance(value, DeviceArray):
        found = value
    elif hasattr(value, "__cuda_array_interface__"):
        found = _from_interface(name, value, ordinal)
    else:
        return None
    if found.ordinal != ordinal:
        raise UsageError(
            f"input {name!r}: the array is on cuda:{found.ordinal}, the engine on cuda:{ordinal}",
            hint=f"copy it to cuda:{ordinal} first",
        )
    return found


def _from_interface(name: str, value: Any, ordinal: int) -> DeviceArray:
    described = value.__cuda_array_interface__
    shape = tuple(described["shape"])
    dtype = np.dtype(described["typestr"])
    strides = described.get("strides")
    if strides is not None and not _is_dense(shape, tuple(strides), dtype.itemsize):
        raise UsageError(
            f"input {name!r}: the device array is not dense", hint="give a contiguous copy: .contiguous() or ascontiguousarray"
        )
    device = getattr(value, "device", None)
    index = getattr(device, "index", None)
    index = getattr(device, "id", ordinal) if index is None else index
    array = DeviceArray(int(described["data"][0]), shape, dtype, int(index), owner=value)
    array._stream = described.get("stream")
    return array


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
