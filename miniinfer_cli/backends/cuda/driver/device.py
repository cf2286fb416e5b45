"""GPUs: opening one, its context, and everything that is made on it."""

import contextlib
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, Self

from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchLimits
from miniinfer_cli.backends.cuda.contract.parameters import Encoded
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.driver.bindings import load_driver
from miniinfer_cli.backends.cuda.driver.check import DAMAGED, GONE, call, fault, values
from miniinfer_cli.backends.cuda.driver.event import Event
from miniinfer_cli.backends.cuda.driver.fork_guard import ForkGuard
from miniinfer_cli.backends.cuda.driver.handle import Handle
from miniinfer_cli.backends.cuda.driver.memory import Memory, PinnedMemory, RegisteredMemory
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.presence import device_count, driver_fault, expect_gpu, split_version
from miniinfer_cli.backends.cuda.driver.properties import DeviceProperties, read_properties
from miniinfer_cli.backends.cuda.driver.quick_calls import QuickCalls
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.driver.tensor_maps import encode_tensor_map
from miniinfer_cli.errors import DeviceError, MiniinferError
from miniinfer_cli.ir import Array

__all__ = ["Device", "device_count", "driver_fault", "open_device"]


def open_device(ordinal: int) -> "Device":
    """The GPU ``cuda:ordinal``. Raises DeviceError that says why when it cannot be used, with the way out as hint."""
    expect_gpu(ordinal)
    return Device(ordinal, load_driver())


class Device:
    """A GPU, and the maker of whatever lives on it. ``close()`` or ``with`` gives everything back, in reverse order.

    The context is the primary one, which other libraries of the process (torch, cupy) share. It is taken when it is first
    needed. Every thread that enqueues work calls ``make_current()`` first; the methods here that make something do it
    themselves. They may be called from any thread, but not on one that is capturing. Sizes in bytes; raises DeviceError.
    """

    def __init__(self, ordinal: int, driver: Any) -> None:
        """Use ``open_device``. ``driver`` is the module ``cuda.bindings.driver``."""
        self.ordinal = ordinal
        self.driver = driver
        self.allocations = 0
        """How many allocations of device and pinned memory were ever made here."""
        self.orphans: deque[tuple[Callable[..., Any], Any]] = deque()
        self._fork_guard = ForkGuard(f"cuda:{ordinal}")
        self._lock = threading.Lock()
        self._handles: weakref.WeakValueDictionary[int, Handle] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()
        self._thread = threading.local()
        self._context: Any = None
        self._context_address = 0
        self._closed = False
        call(driver.cuInit, 0)
        self.quick = QuickCalls(driver)
        self._raw = call(driver.cuDeviceGet, ordinal)
        self.driver_version: tuple[int, int] = split_version(int(call(driver.cuDriverGetVersion)))
        """The CUDA version that the driver supports."""

    @cached_property
    def properties(self) -> DeviceProperties:
        """Limits, clocks and names."""
        return read_properties(self.driver, call, self._raw)

    @property
    def name(self) -> str:
        """The product's name."""
        return self.properties.name

    @property
    def arch(self) -> int:
        """Compute capability as 10 * major + minor: 90 for sm_90."""
        return self.properties.arch

    @property
    def multiprocessors(self) -> int:
        """How many streaming multiprocessors it has."""
        return self.properties.multiprocessors

    @property
    def shared_nbytes(self) -> int:
        """Dynamic shared memory that a block may ask for."""
        return self.properties.shared_nbytes

    @property
    def l2_nbytes(self) -> int:
        """Size of the L2 cache."""
        return self.properties.l2_nbytes

    @property
    def reads_pageable_memory(self) -> bool:
        """True where memory of the host that is not pinned has to stay as it is until a copy from there is done.

        Other devices have read it when the call returns, as tests/gpu/driver/test_pageable_copies.py asks them; CUDA's manual
        only says that a copy may be staged.
        """
        return self.properties.reads_pageable_memory

    @property
    def total_memory(self) -> int:
        """Size of the memory, used or not."""
        return self.properties.total_memory

    @cached_property
    def launch_limits(self) -> LaunchLimits:
        """What a launch may ask for here."""
        self.make_current()
        least, greatest = map(int, self.call(self.driver.cuCtxGetStreamPriorityRange))  # the greatest is the lowest number
        return LaunchLimits(self.arch, self.shared_nbytes, range(greatest, least + 1))

    def make_current(self) -> None:
        """Makes the device current on this thread; costs one small call when it is already.

        The driver is asked rather than a note of ours: other libraries in the process change the current context as well.
        Raises DeviceError in a forked child, which nothing of this device belongs to.
        """
        self._fork_guard.check()
        if self._context is None:
            self._retain()
        status, current = self.quick.current_context()
        if status or current != self._context_address:
            self.call(self.driver.cuCtxSetCurrent, self._context)

    def set_scheduling(self, mode: Literal["auto", "spin", "blocking"]) -> None:
        """How the host waits: as the driver thinks best, spinning (quickest) or asleep (leaves the processor to others).

        Before anything is made on the device; the driver may refuse it once the context is in use.
        """
        flags = self.driver.CUctx_flags
        kinds = {
            "auto": flags.CU_CTX_SCHED_AUTO,
            "spin": flags.CU_CTX_SCHED_SPIN,
            "blocking": flags.CU_CTX_SCHED_BLOCKING_SYNC,
        }
        self.call(self.driver.cuDevicePrimaryCtxSetFlags, self._raw, int(kinds[mode]))

    def available_memory(self) -> int:
        """Bytes free now, of all processes' share."""
        self.make_current()
        free, _ = self.call(self.driver.cuMemGetInfo)
        return int(free)

    def allocate(self, nbytes: int, what: str = "") -> Memory:
        """Device memory for ``what``. Raises OutOfMemoryError with what is needed and what is free."""
        self._prepare()
        memory = Memory(self, nbytes, what)
        self._count_allocation()
        return memory

    def allocate_pinned(self, nbytes: int, what: str = "") -> PinnedMemory:
        """Pinned host memory for ``what``. Raises OutOfMemoryError with what is needed and what is free."""
        self._prepare()
        memory = PinnedMemory(self, nbytes, what)
        self._count_allocation()
        return memory

    def register(self, memory: Array) -> RegisteredMemory:
        """Pins ``memory``, which somebody else holds: copies from and to it then need no detour, on every device of the process.

        Raises DeviceError where the driver does not take it, OutOfMemoryError where so much cannot be pinned.
        """
        self._prepare()
        return RegisteredMemory(self, memory)

    def create_stream(self) -> Stream:
        """A stream of its own, that does not wait for the default stream."""
        self._prepare()
        return Stream(self)

    def create_event(self, *, timing: bool = False) -> Event:
        """An event that takes no times unless asked."""
        self._prepare()
        return Event(self, timing=timing)

    def load(self, cubin: bytes) -> Module:
        """The kernels of a cubin. Raises DeviceError when it is for another architecture or damaged."""
        self._prepare()
        return Module(self, cubin)

    def encode(self, tensor: TensorMap[Any], address: int) -> Encoded:
        """The tensor map of what lies at ``address``, as a parameter. Raises DeviceError for what this device cannot have."""
        self.make_current()
        return encode_tensor_map(self, self.arch, tensor, address)

    def collect(self) -> None:
        """Gives back what was dropped unclosed; it would be with the next thing that is made here."""
        self._prepare()

    def synchronize(self) -> None:
        """Waits until the device has done everything that was enqueued on it."""
        self.make_current()
        self.call(self.driver.cuCtxSynchronize)

    def close(self) -> None:
        """Gives back everything that was made here and is still open, then the context; may be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._context is None or self._fork_guard.is_child:
            return
        with contextlib.ExitStack() as stack:  # which goes on when one of them fails, and raises that at its end
            stack.callback(self._release)
            for handle in list(self._handles.values()):
                stack.callback(handle.close)
            stack.callback(self._collect_orphans)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # What streams, events, memory, modules and graphs use.

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Like ``check.call``, on this device: what spoils a capture is kept for the message at its end."""
        result = function(*arguments)
        if result[0]:
            raise self.fault(result[0], function.__name__)
        return values(result)

    def fault(self, status: Any, call: str) -> MiniinferError:
        """Like ``check.fault``, on this device."""
        error = fault(status, call)
        if "CAPTURE" in status.name and getattr(self._thread, "capture_fault", None) is None:
            self._thread.capture_fault = error.message
        return error

    def forget_capture_fault(self) -> str | None:
        """The first call on this thread that was refused because of a capture, forgotten with this; None when none was."""
        found: str | None = getattr(self._thread, "capture_fault", None)
        self._thread.capture_fault = None
        return found

    def is_ready(self, query: Callable[..., Any], raw: Any) -> bool:
        """What a query of an event or stream says."""
        status = query(raw)[0]
        if status and status != self.driver.CUresult.CUDA_ERROR_NOT_READY:
            raise self.fault(status, query.__name__)
        return not status

    def adopt(self, handle: Handle) -> None:
        """Notes ``handle``, to close it with the device at the latest."""
        self._handles[next(self._numbers)] = handle

    def destroy(self, destroy: Callable[..., Any], raw: Any) -> None:
        """Gives ``raw`` back to the driver; a forked child has nothing to give back."""
        if self._fork_guard.is_child:
            return
        self.make_current()
        self._give_back(destroy, raw)

    def _give_back(self, function: Callable[..., Any], *arguments: Any) -> None:
        # What a damaged context owns goes with the process, and that it is damaged is said by every other call.
        status = function(*arguments)[0]
        if status and status.name not in DAMAGED | GONE:
            raise self.fault(status, function.__name__)

    def _prepare(self) -> None:
        self.make_current()
        self._collect_orphans()

    def _collect_orphans(self) -> None:
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while True:
                self.destroy(*self.orphans.popleft())

    def _count_allocation(self) -> None:
        with self._lock:
            self.allocations += 1

    def _retain(self) -> None:
        with self._lock:
            if self._closed:
                raise DeviceError(f"cuda:{self.ordinal} is closed")
            if self._context is None:
                context = call(self.driver.cuDevicePrimaryCtxRetain, self._raw)
                self._context_address = int(context)
                self._context = context

    def _release(self) -> None:
        status, current = self.quick.current_context()
        if not status and current == self._context_address:
            # Else this thread would go on with a context that may be gone.
            self._give_back(self.driver.cuCtxSetCurrent, self.driver.CUcontext(0))
        self._context = None
        self._give_back(self.driver.cuDevicePrimaryCtxRelease, self._raw)
