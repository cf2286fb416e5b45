"""Copies between host and device outside of inferences: constants, tables, arrays that decide shapes."""

import threading

import numpy as np

from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.backends.cuda.contract.protocols import Device, Stream
from miniinfer_cli.ir import Array


class Transfers:
    """Copies that are waited for, on a stream made at first need. Thread-safe: they take turns."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._stream: Stream | None = None

    def send(self, address: int, array: Array) -> None:
        """Copies an array of the host to the device."""
        contiguous = np.ascontiguousarray(array)
        with self._lock:
            stream = self._ready()
            stream.copy_to_device(address, contiguous.ctypes.data, contiguous.nbytes)
            stream.synchronize()

    def fetch(self, value: DeviceArray) -> Array:
        """The contents of an array on the device, once whoever still writes it has done so."""
        array = np.empty(value.shape, value.dtype)
        with self._lock:
            stream = self._ready()
            value.wait_on(stream)
            stream.copy_to_host(array.ctypes.data, value.address, array.nbytes)
            stream.synchronize()
        return array

    def copy(self, address: int, source: DeviceArray) -> None:
        """Copies an array on the device to ``address`` there, once whoever still writes it has done so."""
        with self._lock:
            stream = self._ready()
            source.wait_on(stream)
            stream.copy_on_device(address, source.address, source.nbytes)
            stream.synchronize()

    def close(self) -> None:
        """Gives the stream back; may be called twice."""
        with self._lock:
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def _ready(self) -> Stream:
        self._device.make_current()
        if self._stream is None:
            self._stream = self._device.create_stream()
        return self._stream
