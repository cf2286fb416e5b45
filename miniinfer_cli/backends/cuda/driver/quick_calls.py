"""Calls of the driver that take microseconds, made without letting go of the interpreter.

cuda.bindings lets other threads have the interpreter during every call. Where several threads compute in Python, as in a server,
the caller then waits for it after each: as long as whoever took it does not let go. An inference is ten such calls. What waits
for the device is no quick call, and neither is a copy of memory that is not pinned.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

Quick = Callable[..., int]
"""Gives the status as a number."""

_SINCE = 13000  # the version of CUDA whose forms of these functions are meant
_HANDLE, _ADDRESS, _SIZE = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
TYPES: dict[str, tuple[Any, ...]] = {
    "cuCtxGetCurrent": (_HANDLE,),
    "cuEventRecord": (_HANDLE, _HANDLE),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuMemcpyBatchAsync": (_HANDLE, _HANDLE, _HANDLE, _SIZE, _HANDLE, _HANDLE, _SIZE, _HANDLE),
    "cuMemcpyDtoHAsync": (_HANDLE, _ADDRESS, _SIZE, _HANDLE),
    "cuMemcpyHtoDAsync": (_ADDRESS, _HANDLE, _SIZE, _HANDLE),
    "cuStreamWaitEvent": (_HANDLE, _HANDLE, ctypes.c_uint),
}
"""Arguments of each; an address of a handle, an array or a structure is a handle here."""
FORMS = {name: ctypes.PYFUNCTYPE(ctypes.c_int, *types) for name, types in TYPES.items()}
"""What calls a function at an address and keeps the interpreter."""


class QuickCalls:
    """The functions of ``driver``, a module ``cuda.bindings.driver``. Each gives a status as a number; 0 is success."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.record = self._required("cuEventRecord")
        self.launch_graph = self._required("cuGraphLaunch")
        self.to_host = self._required("cuMemcpyDtoHAsync")
        self.to_device = self._required("cuMemcpyHtoDAsync")
        self.wait = self._required("cuStreamWaitEvent")
        self._current = self._found("cuCtxGetCurrent")
        self._batch = self._found("cuMemcpyBatchAsync")
        self._attributes: Any = None
        if self._batch is not None:
            self._attributes = driver.CUmemcpyAttributes()
            self._attributes.srcAccessOrder = driver.CUmemcpySrcAccessOrder.CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
            self._attributes_at = int(self._attributes.getPtr())
        self._first = _Numbers(_SIZE, [0])

    @property
    def copies_batches(self) -> bool:
        """True where ``batch_to_device`` is there: with drivers of CUDA 13 and later."""
        return self._batch is not None

    def current_context(self) -> tuple[int, int]:
        """The status, and this thread's current context, 0 for none."""
        if self._current is None:
            status, context = self._driver.cuCtxGetCurrent()
            return int(status), int(context)
        found = ctypes.c_void_p()
        return self._current(ctypes.addressof(found)), found.value or 0

    def batch_to_device(self, targets: Sequence[int], sources: Sequence[int], sizes: Sequence[int], stream: int) -> int:
        """Copies so many bytes from each source to each target, in whatever order, within the stream's."""
        assert self._batch is not None
        to, source, size = _Numbers(_ADDRESS, targets), _Numbers(_ADDRESS, sources), _Numbers(_SIZE, sizes)
        return self._batch(to.at, source.at, size.at, len(sizes), self._attributes_at, self._first.at, 1, stream)

    def _required(self, name: str) -> Quick:
        return self._found(name) or self._slow(name)

    def _found(self, name: str) -> Quick | None:
        """The function; None where the driver has none of the form that is meant."""
        flags = self._driver.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_DEFAULT
        status, address, *_ = self._driver.cuGetProcAddress(name.encode(), _SINCE, flags)
        return None if status or not address else FORMS[name](int(address))

    def _slow(self, name: str) -> Quick:
        """The function of the bindings, which lets the interpreter go."""
        call = getattr(self._driver, name)
        return lambda *arguments: int(call(*arguments)[0])


class _Numbers:
    """Numbers one behind another in memory, ``at`` an address, for as long as this lives."""

    __slots__ = ("_array", "at")

    def __init__(self, kind: Any, values: Sequence[int]) -> None:
        self._array = (kind * len(values))(*values)
        self.at = ctypes.addressof(self._array)
