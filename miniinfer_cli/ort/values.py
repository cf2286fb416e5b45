"""OrtValue: an array on the host or on a GPU, or a list of arrays, that sessions take and give without copies."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from miniinfer_cli.backends import dlpack
from miniinfer_cli.backends.interface import OnDevice
from miniinfer_cli.ort.faults import InvalidArgument, Unsupported, told_as
from miniinfer_cli.ort.lacking import refuse_member
from miniinfer_cli.ort.options import OrtDeviceVendorId
from miniinfer_cli.ort.types import array_type_number, array_type_text, numpy_type

if TYPE_CHECKING:
    from miniinfer_cli.devices.gpu_memory import DeviceArray, GpuMemory


def is_on_gpu(value: Any) -> "TypeGuard[DeviceArray]":
    """True for an array of ours that lies on a GPU."""
    return isinstance(value, OnDevice)


def gpu_memory(ordinal: int) -> "GpuMemory":
    """The memory of a GPU, see ``devices.gpu_memory``. Raises DeviceError where there is no such GPU."""
    from miniinfer_cli.devices import gpu_memory as memory  # late: sessions on a CPU pay for none of it

    return memory.gpu_memory(ordinal)


_DEVICES = {"cpu": 0, "cuda": 1, "gpu": 1}


class OrtDevice:
    """A device by kind and number: ``OrtDevice.make("cuda", 0)``."""

    def __init__(self, name: str, ordinal: int) -> None:
        self._name, self._ordinal = expect_device(name), int(ordinal)

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int = -1) -> "OrtDevice":
        """The device of this name and number; there is one maker of each."""
        return OrtDevice(ort_device_name, device_id)

    @staticmethod
    def cpu() -> int:
        """The kind of the host."""
        return 0

    @staticmethod
    def cuda() -> int:
        """The kind of NVIDIA's GPUs."""
        return 1

    def device_type(self) -> int:
        """Its kind."""
        return _DEVICES[self._name]

    def device_id(self) -> int:
        """Its number."""
        return self._ordinal

    def device_mem_type(self) -> int:
        """0: its own memory."""
        return 0

    def device_vendor_id(self) -> int:
        """The maker's number on the PCI bus; 0 for the host."""
        return int(OrtDeviceVendorId.NVIDIA if self._name == "cuda" else OrtDeviceVendorId.NONE)


def expect_device(name: str) -> str:
    """``cpu`` or ``cuda``. Raises onnxruntime's NotImplemented for other devices."""
    if name not in _DEVICES:
        raise Unsupported(f"device {name!r}: arrays lie on cpu or cuda\n  hint: give device_type='cpu' or 'cuda'")
    return "cuda" if name == "gpu" else name


class OrtValue:
    """What a session takes or gives: an array, a list of arrays, or None for an optional without a value."""

    def __init__(self, contents: Any) -> None:
        """Use one of the functions that make values."""
        self._contents = contents

    @staticmethod
    def ortvalue_from_numpy(numpy_obj: Any, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1) -> "OrtValue":
        """Over the array's own memory on the host, as a copy of it on a GPU."""
        array = np.asarray(numpy_obj)
        if expect_device(device_type) == "cpu":
            return OrtValue(np.ascontiguousarray(array).reshape(array.shape))
        with told_as(InvalidArgument):
            return OrtValue(gpu_memory(device_id).send(array))

    @staticmethod
    def ortvalue_from_numpy_with_onnx_type(data: Any, onnx_element_type: int) -> "OrtValue":
        """Over the array's memory, whose elements are bits of ONNX's type of this number and as wide."""
        kind = numpy_type(int(onnx_element_type))
        if kind.itemsize != data.dtype.itemsize:
            raise InvalidArgument(f"elements of {data.dtype} are not as wide as {kind}")
        return OrtValue(np.ascontiguousarray(data).view(kind).reshape(data.shape))

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> "OrtValue":
        """A new array, for a session to write. ``element_type`` is numpy's type or ONNX's number."""
        kind = numpy_type(element_type)
        if expect_device(device_type) == "cpu":
            return OrtValue(np.zeros(tuple(shape), kind))
        with told_as(InvalidArgument):
            return OrtValue(gpu_memory(device_id).empty(shape, kind))

    @staticmethod
    def from_dlpack(data: Any, is_bool_tensor: bool = False) -> "OrtValue":
        """Over the memory of another library's array, or of a capsule. ``is_bool_tensor``: its bytes are truth values."""
        capsule = data
        if hasattr(data, "__dlpack__"):
            on_gpu = dlpack.is_on_gpu(data)
            capsule = data.__dlpack__(stream=dlpack.LEGACY_STREAM) if on_gpu else data.__dlpack__()
        try:
            taken = dlpack.take(capsule)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None
        if taken.kind in (dlpack.CPU, dlpack.PINNED):
            array = np.ascontiguousarray(dlpack.host_view(taken)).reshape(taken.shape)
            return OrtValue(array.view(np.bool_) if is_bool_tensor and array.dtype == np.uint8 else array)
        if taken.kind not in (dlpack.CUDA, dlpack.MANAGED):
            raise Unsupported(f"DLPack's device {taken.kind} is none of ours\n  hint: copy it to the host")
        if taken.strides is not None and taken.strides != dlpack.dense_strides(taken.shape):
            raise InvalidArgument("the device array is not dense\n  hint: give a contiguous copy")
        kind = np.dtype(np.bool_) if is_bool_tensor and taken.dtype == np.uint8 else taken.dtype
        return OrtValue(gpu_memory(taken.ordinal).at(taken.address, taken.shape, kind, owner=(taken.owner, data)))

    @property
    def _ortvalue(self) -> "OrtValue":
        """The value itself, where onnxruntime keeps its own within."""
        return self

    def numpy(self) -> Any:
        """The array, not copied; a copy of one that is on a GPU. Raises RuntimeError for what is no tensor."""
        if is_on_gpu(self._contents):
            return gpu_memory(self._contents.ordinal).fetch(self._contents)
        return self._tensor()

    def update_inplace(self, np_arr: Any) -> None:
        """Copies ``np_arr``, as large as this, into this. Raises RuntimeError for other sizes and types."""
        target = self._tensor()
        array = np.asarray(np_arr)
        if array.dtype != target.dtype or array.size != int(np.prod(target.shape, dtype=np.int64)):
            raise RuntimeError(f"{array.dtype}{list(array.shape)} does not fit {target.dtype}{list(target.shape)}")
        write_into(target, array)

    def shape(self) -> list[int]:
        """The sizes."""
        return list(self._tensor().shape)

    def data_type(self) -> str:
        """``tensor(float)`` ..."""
        if isinstance(self._contents, list):
            return f"seq({array_type_text(self._contents[0]) if self._contents else ''})"
        return array_type_text(self._tensor())

    def element_type(self) -> int:
        """ONNX's number of the element type."""
        return array_type_number(self._tensor())

    def tensor_size_in_bytes(self) -> int:
        """Bytes of all elements."""
        return int(self._tensor().nbytes)

    def device_name(self) -> str:
        """``cpu`` or ``cuda``."""
        return "cuda" if is_on_gpu(self._contents) else "cpu"

    def data_ptr(self) -> int:
        """The address of the first element."""
        tensor = self._tensor()
        return int(tensor.address if is_on_gpu(tensor) else tensor.ctypes.data)

    def has_value(self) -> bool:
        """False for an optional that has none."""
        return self._contents is not None

    def is_tensor(self) -> bool:
        """True for an array."""
        return isinstance(self._contents, np.ndarray) or is_on_gpu(self._contents)

    def is_tensor_sequence(self) -> bool:
        """True for a list."""
        return isinstance(self._contents, list)

    def is_sparse_tensor(self) -> bool:
        """False: there are none."""
        return False

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None) -> Any:
        """A capsule over this memory. Raises BufferError for a copy, for another device, and for types that DLPack lacks."""
        tensor = self._tensor()
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("the array stays where it is")
        if is_on_gpu(tensor):
            return tensor.__dlpack__(stream=stream)
        return dlpack.give(tensor.ctypes.data, tensor.shape, tensor.dtype, 0, tensor, kind=dlpack.CPU)

    def to_dlpack(self) -> Any:
        """The capsule of ``__dlpack__``."""
        return self.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's number of the device, and which of these it is."""
        tensor = self._tensor()
        return tensor.__dlpack_device__() if is_on_gpu(tensor) else (dlpack.CPU, 0)

    def __getattr__(self, name: str) -> Any:
        refuse_member(self, name)

    def _tensor(self) -> Any:
        if not self.is_tensor():
            raise RuntimeError(f"the value is no tensor, but {type(self._contents).__name__}")
        return self._contents


def contents_of(value: Any) -> Any:
    """What an engine takes: the contents of an OrtValue, anything else as it is."""
    return value._contents if isinstance(value, OrtValue) else value


def write_into(target: Any, source: Any) -> None:
    """Copies an array into another of as many elements, on the host or on a GPU."""
    if is_on_gpu(target):
        elsewhere = is_on_gpu(source) and source.ordinal != target.ordinal
        gpu_memory(target.ordinal).copy(target, gpu_memory(source.ordinal).fetch(source) if elsewhere else source)
    elif is_on_gpu(source):
        target[...] = gpu_memory(source.ordinal).fetch(source).reshape(target.shape)
    else:
        np.copyto(target, source.reshape(target.shape))
