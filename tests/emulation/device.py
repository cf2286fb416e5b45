"""A device in software behind the driver's interface: memory with guards and poison, streams that do at once, graphs that replay."""

import ctypes
import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.steps import Kernel
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from tests.emulation.compiler import load

_GUARD = 256


class EmulatedDevice:
    """Like driver.device.Device. ``memory_limit``: bytes that can be allocated in all."""

    ordinal = 0
    name = "emulated"
    arch = 90
    multiprocessors = 4
    shared_nbytes = 227 << 10
    l2_nbytes = 1 << 20
    driver_version = (13, 0)

    def __init__(self, memory_limit: int = 4 << 30) -> None:
        self.allocations = 0
        self.held: dict[int, EmulatedMemory] = {}
        self.pinned = 0
        self.memory_limit = self.total_memory = memory_limit
        self.closed = False

    @property
    def used(self) -> int:
        """Bytes of device memory that are allocated now."""
        return sum(m.nbytes for m in self.held.values())

    def make_current(self) -> None:
        assert not self.closed, "the device is closed"

    def available_memory(self) -> int:
        return self.memory_limit - self.used

    def allocate(self, nbytes: int, what: str = "") -> "EmulatedMemory":
        if nbytes > self.available_memory():
            raise OutOfMemoryError(
                f"{nbytes / 2**20:.1f} MiB needed, {self.available_memory() / 2**20:.1f} MiB free on cuda:0", where=(what,)
            )
        self.allocations += 1
        memory = EmulatedMemory(self, nbytes)
        self.held[memory.address] = memory
        return memory

    def allocate_pinned(self, nbytes: int, what: str = "") -> "EmulatedMemory":
        self.allocations += 1
        self.pinned += 1
        return EmulatedMemory(self, nbytes)

    def create_stream(self, *, priority: int = 0) -> "EmulatedStream":
        return EmulatedStream()

    def create_event(self, *, timing: bool = False, blocking: bool = False) -> "EmulatedEvent":
        return EmulatedEvent()

    def close(self) -> None:
        self.closed = True


class EmulatedMemory:
    def __init__(self, device: EmulatedDevice, nbytes: int) -> None:
        self._device = device
        self._raw = np.full(nbytes + 2 * _GUARD + 256, 0xA5, np.uint8)
        self._start = _GUARD + -(self._raw.ctypes.data + _GUARD) % 256
        self.address = self._raw.ctypes.data + self._start
        self.nbytes = nbytes
        self.array = self._raw[self._start : self._start + nbytes]
        self.array[:] = 0xFB  # a NaN in every float type

    def check(self) -> None:
        """Raises AssertionError when something was written around the memory."""
        assert (self._raw[: self._start] == 0xA5).all(), "something wrote before the memory"
        assert (self._raw[self._start + self.nbytes :] == 0xA5).all(), "something wrote behind the memory"

    def close(self) -> None:
        self.check()
        self._device.held.pop(self.address, None)
        self.array[:] = 0xFD  # whoever still has the address reads this

    def __enter__(self) -> "EmulatedMemory":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class EmulatedStream:
    """Does everything at once, or notes it while capturing."""

    handle = 1

    def __init__(self) -> None:
        self._noted: list[Callable[[], Any]] | None = None

    def _do(self, call: Callable[[], Any]) -> None:
        if self._noted is None:
            call()
        else:
            self._noted.append(call)

    def copy_to_device(self, target: int, source: int, nbytes: int) -> None:
        self._do(partial(ctypes.memmove, target, source, nbytes))

    copy_to_host = copy_on_device = copy_to_device

    def fill(self, target: int, byte: int, nbytes: int) -> None:
        self._do(partial(ctypes.memset, target, byte, nbytes))

    def launch(self, function: Any, grid: Sequence[int], block: Sequence[int], shared_nbytes: int, parameters: Any) -> None:
        assert all(n >= 1 for n in (*grid, *block)), "an empty grid"
        assert shared_nbytes <= 227 << 10
        self._do(partial(function, tuple(grid), tuple(block), parameters))

    def record(self, event: "EmulatedEvent") -> None:
        assert self._noted is None, "an event in a capture"

    def wait(self, event: "EmulatedEvent") -> None:
        assert self._noted is None, "an event in a capture"

    def synchronize(self) -> None:
        if self._noted is not None:
            raise DeviceError("cuStreamSynchronize is not allowed during capture")

    def is_done(self) -> bool:
        return True

    def begin_capture(self) -> None:
        self._noted = []
        gc.disable()

    def end_capture(self) -> "EmulatedGraph":
        assert self._noted is not None
        noted, self._noted = self._noted, None
        gc.enable()
        return EmulatedGraph(noted)

    def launch_graph(self, graph: "EmulatedGraph") -> None:
        for call in graph.calls:
            call()

    def close(self) -> None:
        """Nothing to give back."""

    def __enter__(self) -> "EmulatedStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class EmulatedGraph:
    def __init__(self, calls: list[Callable[[], Any]]) -> None:
        self.calls = calls
        self.nodes = len(calls)

    def close(self) -> None:
        def gone() -> None:
            raise AssertionError("a graph was launched after it was closed")

        self.calls = [gone]


class EmulatedEvent:
    def synchronize(self) -> None:
        """All is done already."""

    def is_done(self) -> bool:
        return True

    def elapsed_ms(self, since: "EmulatedEvent") -> float:
        return 0.001

    def close(self) -> None:
        """Nothing to give back."""


class EmulatedFunctions:
    """Like backends.cuda.functions.Functions."""

    def __init__(self) -> None:
        self.prepared: set[Kernel] = set()

    def prepare(self, kernels: Sequence[Kernel]) -> None:
        self.prepared.update(kernels)
        for kernel in kernels:
            load(kernel)

    def get(self, kernel: Kernel, shared_nbytes: int = 0) -> Any:
        assert kernel in self.prepared
        function = load(kernel)
        return lambda grid, block, parameters: function(grid, block, ctypes.c_void_p(parameters.address))

    def close(self) -> None:
        """Nothing to give back."""
