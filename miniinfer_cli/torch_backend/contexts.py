"""Runs of an engine on tensors: inputs are read where they lie, outputs are tensors over the engine's own memory."""

import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from miniinfer_cli.backends import dlpack
from miniinfer_cli.devices.models import gpu_of
from miniinfer_cli.ir import Array
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.engine import Engine


class Runner:
    """Runs an engine. Thread-safe. On a GPU a context serves again when the tensors that it gave before are gone.

    On a GPU nobody waits: the engine waits for PyTorch's current stream, which has its inputs, and that stream for the engine.

    What a context leaves on a GPU is its own again at the second call from there.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._gpu = gpu_of(engine.device)
        self._lock = threading.Lock()
        self._free: list[_Lending] = []

    def run(self, feeds: Mapping[str, Any]) -> list[torch.Tensor]:
        """The outputs as tensors, in order. Raises MiniinferError."""
        lending = self._take()
        try:
            if self._gpu is None:
                return [_tensor(output) for output in lending.context.run(feeds).values()]
            current = torch.cuda.current_stream(self._gpu)
            stream = current.cuda_stream
            given = {name: _given(tensor, stream) for name, tensor in feeds.items()}
            if not given:  # nothing makes the engine wait for those who still read what the context gave before
                current.synchronize()
            arrays = list(lending.context.enqueue(given, on_device=True).on_stream(stream).values())
            lending.lend(arrays)
            return [torch.from_dlpack(a) if not isinstance(a, np.ndarray) else _tensor(a).to(self.engine.device) for a in arrays]
        finally:
            with self._lock:
                self._free.append(lending)

    def _take(self) -> "_Lending":
        with self._lock:
            for number, lending in enumerate(self._free):
                if lending.is_free():
                    return self._free.pop(number)
        return _Lending(self.engine.create_context())


class _Lending:
    """A context, and the arrays that it lent in its last two calls."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._lent: deque[list[weakref.ref[Any]]] = deque(maxlen=2)

    def is_free(self) -> bool:
        """True where the next call overwrites nothing that somebody still holds."""
        return len(self._lent) < 2 or all(ref() is None for ref in self._lent[0])

    def lend(self, arrays: Sequence[Any]) -> None:
        self._lent.append([weakref.ref(a) for a in arrays if not isinstance(a, np.ndarray)])


class _OnGpu:
    """A dense tensor on a GPU to engines, in a tenth of the time that DLPack takes. ``stream`` may still write it."""

    def __init__(self, tensor: torch.Tensor, typestr: str, stream: int) -> None:
        self._tensor = tensor
        self.device = tensor.device
        self.__cuda_array_interface__ = {
            "shape": tuple(tensor.shape),
            "typestr": typestr,
            "data": (tensor.data_ptr(), False),
            "version": 3,
            "stream": stream or dlpack.LEGACY_STREAM,
        }


def _given(tensor: torch.Tensor, stream: int) -> Any:
    typestr = _TYPESTRS.get(tensor.dtype)
    return tensor if typestr is None or not tensor.is_cuda or not tensor.is_contiguous() else _OnGpu(tensor, typestr, stream)


_TYPESTRS = {
    torch.float16: "<f2", torch.float32: "<f4", torch.float64: "<f8", torch.bool: "|b1", torch.uint8: "|u1",
    torch.int8: "|i1", torch.int16: "<i2", torch.int32: "<i4", torch.int64: "<i8",
}  # fmt: skip


class _OnHost:
    """An array of the host to torch.from_dlpack, of whatever type."""

    def __init__(self, array: Array) -> None:
        self._array = np.ascontiguousarray(array).reshape(array.shape)

    def __dlpack__(self, **_: Any) -> Any:
        array = self._array
        return dlpack.give(array.ctypes.data, array.shape, array.dtype, 0, array, kind=dlpack.CPU)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0


def _tensor(array: Array) -> torch.Tensor:
    """The array as a tensor over its memory."""
    if array.dtype.isbuiltin == 1 and array.flags.writeable:  # a tenth of the time
        return torch.from_numpy(array)
    return torch.from_dlpack(_OnHost(array))
