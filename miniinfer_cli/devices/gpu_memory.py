"""Memory of a GPU that belongs to no engine: arrays sent there, fetched, and copied, for callers that hold addresses."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends import dlpack
from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.backends.cuda.arrays.transfers import Transfers
from miniinfer_cli.backends.cuda.contract.protocols import Device
from miniinfer_cli.ir import Array

__all__ = ["DeviceArray", "GpuMemory", "gpu_memory"]


class GpuMemory:
    """What can be done with the memory of one GPU. Every copy is waited for. Thread-safe."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._transfers = Transfers(device)

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """A new array; its memory goes with it. Raises OutOfMemoryError."""
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        memory = self._device.allocate(nbytes, "an array")
        return DeviceArray(memory.address, tuple(shape), kind, self._device.ordinal, owner=memory)

    def at(self, address: int, shape: Sequence[int], dtype: Any, *, owner: Any = None) -> DeviceArray:
        """What lies at ``address``, the caller's or ``owner``'s; what the default stream still does to it is waited for."""
        kind, stream = np.dtype(dtype), dlpack.LEGACY_STREAM
        return DeviceArray(address, tuple(shape), kind, self._device.ordinal, owner=owner, stream=stream)

    def send(self, array: Array) -> DeviceArray:
        """A copy of ``array`` on the GPU."""
        made = self.empty(array.shape, array.dtype)
        self._transfers.send(made.address, array)
        return made

    def fetch(self, array: DeviceArray) -> Array:
        """A copy of ``array`` on the host."""
        return self._transfers.fetch(array)

    def copy(self, target: DeviceArray, source: "DeviceArray | Array") -> None:
        """Copies ``source``, on this GPU or on the host, to ``target``, which is as large."""
        if isinstance(source, DeviceArray):
            self._transfers.copy(target.address, source)
        else:
            self._transfers.send(target.address, source)


@functools.cache  # of a GPU, as its driver is there once: arrays outlive whoever made them
def gpu_memory(ordinal: int) -> GpuMemory:
    """The memory of ``cuda:ordinal``. Raises DeviceError where it cannot be used."""
    from miniinfer_cli.backends.cuda.driver.device import open_device  # late: brings CUDA

    return GpuMemory(open_device(ordinal))
