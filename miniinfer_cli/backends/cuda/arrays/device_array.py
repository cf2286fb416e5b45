"""Arrays that are on a GPU already: a caller's own, or an engine's outputs and input buffers."""

from typing import Any

import numpy as np

from miniinfer_cli.backends import dlpack
from miniinfer_cli.backends.cuda.contract.protocols import Stream
from miniinfer_cli.backends.interface import OnDevice
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, dtype_of

_DENSE_HINT = "give a contiguous copy: .contiguous() or ascontiguousarray"


class DeviceArray(OnDevice):
    """A dense row-major array at ``address`` on ``cuda:ordinal``; what keeps the memory alive is ``owner``.

    Other libraries take it by DLPack (``torch.from_dlpack``) or ``__cuda_array_interface__`` (cupy, numba, torch.as_tensor).
    ``stream``: the handle of a foreign stream that may still write it; 1 is the legacy default stream.
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: "np.dtype[Any]",
        ordinal: int,
        *,
        owner: Any = None,
        stream: int | None = None,
    ) -> None:
        self.address = address
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.ordinal = ordinal
        self._owner = owner
        self._stream = stream

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def element_type(self) -> DType:
        """The element type."""
        return dtype_of(np.empty(0, self.dtype))

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def item(self, index: int) -> "DeviceArray":
        """Element ``index`` along the first axis, where it lies."""
        inner = self.shape[1:]
        step = int(np.prod(inner, dtype=np.int64)) * self.dtype.itemsize
        address = self.address + index * step
        return DeviceArray(address, inner, self.dtype, self.ordinal, owner=self._owner, stream=self._stream)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; no stream, since whoever gave this array waited for it. Absent for types that it cannot spell (bf16)."""
        if np.dtype(self.dtype.str) != self.dtype:
            raise AttributeError(f"__cuda_array_interface__ has no name for {self.dtype}; use DLPack")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None) -> Any:
        """A capsule for another library; what it gives there keeps this array's memory. Raises BufferError for a copy.

        ``stream`` has nothing to wait for: whoever gave this array waited for it.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError(f"the array stays where it is, on cuda:{self.ordinal}")
        return dlpack.give(self.address, self.shape, self.dtype, self.ordinal, self)

    def __dlpack_device__(self) -> tuple[int, int]:
        """kDLCUDA and the GPU's number."""
        return dlpack.CUDA, self.ordinal

    def wait_on(self, stream: Stream) -> None:
        """Lets ``stream`` wait for whatever still writes the array."""
        if self._stream is not None:
            stream.wait_for_foreign(self._stream)


def from_object(name: str, value: Any, ordinal: int) -> DeviceArray | None:
    """A caller's array on the GPU as a DeviceArray; None for what is no device array.

    Raises UsageError for one on another device, for one that is not dense, and for one that its owner does not give.
    """
    if isinstance(value, np.ndarray):
        return None
    if isinstance(value, DeviceArray):
        found = value
    elif dlpack.is_on_gpu(value):
        found = _from_dlpack(name, value)
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


def _from_dlpack(name: str, value: Any) -> DeviceArray:
    """The producer lets the legacy default stream wait for its own work, and we let ours wait for that, when it is known."""
    try:
        taken = dlpack.take(value.__dlpack__(stream=dlpack.LEGACY_STREAM))
    except (BufferError, RuntimeError, TypeError, ValueError) as error:  # what producers refuse with: it needs a gradient ...
        raise UsageError(f"input {name!r}: {error}", hint="give a plain dense array: .detach().contiguous()") from None
    itemsize = taken.dtype.itemsize
    if taken.strides is not None and not _is_dense(taken.shape, tuple(s * itemsize for s in taken.strides), itemsize):
        raise UsageError(f"input {name!r}: the device array is not dense", hint=_DENSE_HINT)
    return DeviceArray(
        taken.address, taken.shape, taken.dtype, taken.ordinal, owner=(taken.owner, value), stream=dlpack.LEGACY_STREAM
    )


def _from_interface(name: str, value: Any, ordinal: int) -> DeviceArray:
    described = value.__cuda_array_interface__
    shape = tuple(described["shape"])
    dtype = np.dtype(described["typestr"])
    strides = described.get("strides")
    if described.get("mask") is not None:
        raise UsageError(f"input {name!r}: the device array has a mask", hint="fill in what is masked first")
    if strides is not None and not _is_dense(shape, tuple(strides), dtype.itemsize):
        raise UsageError(f"input {name!r}: the device array is not dense", hint=_DENSE_HINT)
    device = getattr(value, "device", None)  # torch's has an index, cupy's an id, others none
    number = next((int(n) for n in (getattr(device, "index", None), getattr(device, "id", None)) if isinstance(n, int)), ordinal)
    return DeviceArray(int(described["data"][0]), shape, dtype, number, owner=value, stream=described.get("stream"))


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    if 0 in shape:
        return True
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
