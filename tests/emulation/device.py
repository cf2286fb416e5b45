"""A device in software behind the driver's interface: memory with guards and poison, and kernels as functions.

What it shows: results; memory that is read and was never written (new buffers, and all shared memory anew for every block, are
NaN to every float type of 16 bits and more); writes around a buffer, or behind the dynamic shared memory of a launch; launches
over the limits of a device; barriers at which some threads never arrive; and, through the schedules of ``stream.py``, waits
between streams that are missing.

What it does not show:

- **Races.** One thread runs at a time, and goes on until it waits; clusters run one after the other, the blocks of each at once.
  Clusters take turns in running their threads forwards and backwards, so a missing barrier mostly leaves poison where it matters,
  but nothing looks for two threads at one address. ``make gpu-sanitize`` does. ``compiler.scheduled`` runs warps in random order.
- **Programmatic launches** in any way but these: all threads of such a launch must wait for their turn; and under the schedule
  ``early`` the first cluster of one runs as far as it gets without that before up to three kernels in front of it, and may have
  written nothing by then. The others begin when their turn has come.
- **Timing of warps.** Lanes are not in step: a warp meets only where it shuffles, votes or waits. Masks are not looked at, every
  lane that has not ended takes part, and lanes that ended give what they gave last. A lane that spins on what another will
  write hangs, and so does a cluster that waits for another one. Where all wait for each other, that is told.
- **The memory model.** Every write is seen at once by all, so a fence or a ``volatile`` that is missing is not missed (but for
  the one before matrix instructions). Atomics are plain operations. Copies arrive, and matrix instructions read, when nobody can
  go on without that, at once, or at random in between, as ``compiler.scheduled`` says.
- **Alignment.** Packs at odd addresses are read as this processor reads them. Buffers begin at multiples of 256, dynamic shared
  memory as well.
- **Reads out of bounds** that come to nothing, and jumps over a guard into other memory of the process, the host's included.
  One static shared array behind another is not guarded.
- **Registers, local memory, occupancy, speed.** A thread has 128 KiB of stack; nothing is counted.
- **The arithmetic of a GPU.** No multiplication and addition is contracted, ``__expf`` and its like are as exact as the others,
  functions are this machine's, small numbers are kept, and an overflow of a signed integer is the compiler's to use.
- **Inline PTX.** Where a kernel has some (conversions, tensor cores, asynchronous copies), plain code beside it runs here
  instead. That of ``kernels/sm90`` is in ``runtime/``: it decodes the same addresses, tensor maps and descriptors as the device
  does; ``tests/gpu/test_sm90_functions.py`` compares both. Nothing is compiled for a GPU either: ``test_kernel_files.py`` does
  that, and MINIINFER_NVRTC=1 does it in every test.
- **Bulk copies of pixels** (im2col), and what a map says of the L2 cache.
- **Copies and libraries.** Copies are whole and at once; cuBLASLt and cuDNN are absent, or numpy in their place.
"""

import contextlib
import ctypes
import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import xxhash

from engine_format import StoredKernel
from miniinfer_cli.backends.cuda.contract.architectures import is_for
from miniinfer_cli.backends.cuda.contract.cubin import Resources
from miniinfer_cli.backends.cuda.contract.launch_attributes import NO_ATTRIBUTES, LaunchAttributes
from miniinfer_cli.backends.cuda.contract.parameters import Encoded, Parameters
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from miniinfer_cli.ir import Array
from tests.emulation.compiler import NOWHERE, EmulatedFunction, load
from tests.emulation.poison import poison
from tests.emulation.stream import EmulatedEvent, EmulatedStream, Schedule
from tests.emulation.tensor_map import encode_readable

ALLOWED_SHARED = 48 << 10
"""Bytes of shared memory that a kernel may be launched with unasked."""

_GUARD = 256
_GRAVES = 256  # freed pieces whose addresses stay readable, and read as poison


class EmulatedDevice:
    """Like driver.device.Device. ``memory_limit``: bytes that can be allocated in all, ``schedule``: when work is done."""

    name = "emulated"
    arch = 90
    multiprocessors = 4
    shared_nbytes = 227 << 10
    l2_nbytes = 1 << 20
    driver_version = (13, 0)
    properties: Any = SimpleNamespace(pci_bus_id="ffff:00:00.0")  # which NVML knows nothing of

    def __init__(
        self,
        memory_limit: int = 4 << 30,
        schedule: Schedule | None = None,
        pinned_limit: int = 4 << 30,
        *,
        reads_pageable_memory: bool = True,
        ordinal: int = 0,
    ) -> None:
        self.ordinal = ordinal
        self.reads_pageable_memory = reads_pageable_memory
        """Whether copies read the host's memory when they are done, whatever memory it is; else all but pinned memory at once."""
        self.allocations = 0
        self.held: dict[int, int] = {}
        """Bytes of device memory by address."""
        self.pinned: dict[int, int] = {}
        """Bytes of pinned memory by address."""
        self.registered: dict[int, int] = {}
        """Bytes of registered memory by address."""
        self.memory_limit = self.total_memory = memory_limit
        self.pinned_limit = pinned_limit
        self.schedule = schedule or Schedule()
        self.alive: dict[str, int] = {"stream": 0, "event": 0, "graph": 0}
        """Streams, events and graphs that nobody closed yet."""
        self.refuse: deque[str | None] = deque()
        """What the next creations of streams and events are refused with, None for one that is not; for tests."""
        self.allowed: int | None = None
        """How many allocations succeed from here on; None for all that fit. For tests."""
        self.clock = 0
        """Half microseconds, as events have them."""
        """The device's clock: it moves on when an event takes the time."""
        self.copies: list[tuple[str, int]] = []
        """Direction and bytes of every copy that was done."""
        self.closed = False
        self._graves: deque[Any] = deque(maxlen=_GRAVES)
        self._thread = threading.local()

    @property
    def used(self) -> int:
        """Bytes of device memory that are allocated now."""
        gc.collect()  # what is dropped unclosed goes when it is collected
        return sum(self.held.values())

    @property
    def leftovers(self) -> dict[str, int]:
        """What was not given back: bytes of device and of pinned memory, and numbers of handles. Without those of 0."""
        registered = sum(self.registered.values())
        found = {"memory": self.used, "pinned": sum(self.pinned.values()), "registered": registered, **self.alive}
        return {k: n for k, n in found.items() if n}

    def make_current(self) -> None:
        assert not self.closed, "the device is closed"
        self._thread.current = True

    def expect_current(self) -> None:
        """Raises AssertionError on a thread that never made the device current."""
        assert getattr(self._thread, "current", False), "the device is not current on this thread"

    def available_memory(self) -> int:
        return self.memory_limit - sum(self.held.values())

    def allocate(self, nbytes: int, what: str = "") -> "EmulatedMemory":
        self._prepare()
        free = self.available_memory()
        if nbytes > free or self._refuses():
            raise OutOfMemoryError(f"{nbytes / 2**20:.1f} MiB needed, {free / 2**20:.1f} MiB free on cuda:0", where=(what,))
        return EmulatedMemory(self, nbytes, self.held)

    def allocate_pinned(self, nbytes: int, what: str = "") -> "EmulatedMemory":
        self._prepare()
        free = self.pinned_limit - sum(self.pinned.values())
        if nbytes > free or self._refuses():
            message = f"{nbytes / 2**20:.1f} MiB needed, {free / 2**20:.1f} MiB free on the host, to be pinned"
            raise OutOfMemoryError(message, where=(what,))
        return EmulatedMemory(self, nbytes, self.pinned)

    def register(self, memory: Array) -> "EmulatedRegistered":
        self._prepare()
        assert memory.flags.c_contiguous and memory.flags.writeable, "what is registered is in one piece, and can be written"
        if self._refuses():
            raise OutOfMemoryError(f"{memory.nbytes / 2**20:.1f} MiB cannot be pinned")
        return EmulatedRegistered(self, memory)

    def create_stream(self) -> EmulatedStream:
        self._prepare("stream")
        return EmulatedStream(self)

    def create_event(self, *, timing: bool = False) -> EmulatedEvent:
        self._prepare("event")
        return EmulatedEvent(self, timing)

    def digest(self) -> int:
        """Of all memory that is allocated: equal for equal contents."""
        found = xxhash.xxh3_64()
        for address, nbytes in self.held.items():
            found.update((ctypes.c_uint8 * nbytes).from_address(address))
        return found.intdigest()

    def encode(self, tensor: TensorMap[Any], address: int) -> Encoded:
        self.make_current()
        return encode_readable(tensor, address)

    def collect(self) -> None:
        """What is dropped is given back at once here."""
        self.make_current()

    def bury(self, raw: Any) -> None:
        """Keeps freed memory for a while, so that who still has its address reads poison."""
        raw[:] = 0xFD
        self._graves.append(raw)

    def close(self) -> None:
        self.schedule.finish()
        self.closed = True

    def _refuses(self) -> bool:
        if self.allowed is None:
            return False
        self.allowed -= 1
        return self.allowed < 0

    def _prepare(self, kind: str = "") -> None:
        self.make_current()
        assert not self.schedule.capturing(), "nothing may be made by a thread that is capturing"
        if kind and self.refuse and (why := self.refuse.popleft()) is not None:
            raise DeviceError(why)


class EmulatedMemory:
    """Memory on the device, or pinned memory of the host: where it is counted makes the difference."""

    def __init__(self, device: EmulatedDevice, nbytes: int, held: dict[int, int]) -> None:
        self._device = device
        self._raw = np.full(nbytes + 2 * _GUARD + 256, 0xA5, np.uint8)
        self._start = _GUARD + -(self._raw.ctypes.data + _GUARD) % 256
        self.address = self._raw.ctypes.data + self._start
        self.nbytes = nbytes
        self.array = self._raw[self._start : self._start + nbytes]
        self.array[:] = poison(nbytes)
        device.allocations += 1
        held[self.address] = nbytes
        # What is dropped unclosed is given back some time later, as the driver's handles are.
        self._end = weakref.finalize(self, _free, device, held, self.address, self._raw)
        self._end.atexit = False

    def check(self) -> None:
        """Raises AssertionError when something was written around the memory."""
        assert (self._raw[: self._start] == 0xA5).all(), "something wrote before the memory"
        assert (self._raw[self._start + self.nbytes :] == 0xA5).all(), "something wrote behind the memory"

    def close(self) -> None:
        if self._end.alive:
            self._device.schedule.finish()  # freeing waits for the device
            self.check()
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class EmulatedRegistered:
    """Memory of the process that the device copies from, for as long as this is there. Like driver.memory.RegisteredMemory."""

    def __init__(self, device: EmulatedDevice, memory: Array) -> None:
        self._device = device
        self.address = memory.ctypes.data
        self.nbytes = memory.nbytes
        assert self.address not in device.registered, "it is registered already"
        device.registered[self.address] = memory.nbytes
        self._end = weakref.finalize(self, _unregister, device, self.address, memory)
        self._end.atexit = False

    @property
    def closed(self) -> bool:
        return not self._end.alive

    def close(self) -> None:
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _unregister(device: EmulatedDevice, address: int, memory: Array) -> None:
    """``memory`` is kept up to here."""
    del device.registered[address]


def _free(device: EmulatedDevice, held: dict[int, int], address: int, raw: Any) -> None:
    with contextlib.suppress(AssertionError):  # work that fails was not waited for by anybody
        device.schedule.finish()
    held.pop(address, None)
    device.bury(raw)


class EmulatedFunctions:
    """Like backends.cuda.loading.functions.Functions."""

    def use_stored(self, kernels: Mapping[str, StoredKernel]) -> None:
        """Code for a GPU is of no use here."""

    def refuse(self, sources: frozenset[str], tell: Callable[[int, float], None]) -> None:
        """Nothing of a plan is compiled here."""

    def __init__(self) -> None:
        self.prepared: set[Kernel] = set()

    def prepare(self, kernels: Sequence[Kernel]) -> None:
        assert all(is_for(k.arch, EmulatedDevice.arch) for k in kernels), "a kernel for another GPU"
        self.prepared.update(kernels)  # compiled when they are bound: a program can be looked at without

    def code(self, kernels: Sequence[Kernel]) -> Sequence[bytes]:
        return [f"code of {k.name}".encode() for k in kernels]

    def get(self, kernel: Kernel, shared_nbytes: int = 0) -> "EmulatedKernel":
        assert kernel in self.prepared
        return EmulatedKernel(kernel.name, partial(_call, load(kernel), max(shared_nbytes, ALLOWED_SHARED)), load(kernel).begin)

    def close(self) -> None:
        """Nothing to give back."""


_RESOURCES = Resources(registers=32, local_nbytes=0, shared_nbytes=0)  # of every kernel: a processor has others than a GPU


@dataclass(frozen=True, slots=True)
class EmulatedKernel:
    """Like driver.module.Function: ``raw`` runs a grid, ``begin`` its first block up to its turn."""

    name: str
    raw: Callable[..., None]
    begin: Callable[..., None]
    resources: Resources = _RESOURCES


def _call(
    function: EmulatedFunction,
    allowed: int,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    shared_nbytes: int,
    parameters: Parameters,
    attributes: LaunchAttributes = NO_ATTRIBUTES,
    kept: int = NOWHERE,
) -> None:
    assert shared_nbytes <= allowed, f"{function.kernel.name} is launched with {shared_nbytes} bytes and was allowed {allowed}"
    function(grid, block, shared_nbytes, ctypes.c_void_p(parameters.address), attributes, kept)
