"""Streams, events and graphs in software; and when the work that streams hold is done: at once, as late as can be, or at random.

A real device promises an order within a stream, and between streams only where an event says so. Doing everything at once
hides a wait that is missing; doing everything as late as can be shows it. A programmatic launch may begin before what is in front
of it has ended: ``early`` begins the first block of such a kernel before the one in front, and before up to two more in front of
that, and lets it go on when its turn comes.
"""

import ctypes
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from miniinfer_cli.backends.cuda.contract.launch_attributes import NO_ATTRIBUTES, LaunchAttributes, LaunchLimits, launch_fault
from miniinfer_cli.backends.cuda.contract.parameters import Parameters
from miniinfer_cli.backends.cuda.contract.protocols import Captured, Device, Event, Function
from miniinfer_cli.backends.cuda.driver.collector_pause import CollectorPause
from miniinfer_cli.errors import DeviceError
from tests.emulation.compiler import NOWHERE

_FREE = [0, 1, 2]
"""Numbers under which the first block of a launch may be kept until its turn comes."""


class Schedule:
    """When enqueued work is done. ``mode``: ``at once``, ``late`` (when it is waited for), ``random``, by ``seed``, or ``early``.

    The last is ``late``, where programmatic launches begin as early as they may.
    """

    def __init__(self, mode: str = "at once", seed: int = 0) -> None:
        self._mode = mode
        self._random = random.Random(seed)
        self._streams: weakref.WeakSet[EmulatedStream] = weakref.WeakSet()
        self._closed: list[EmulatedStream] = []  # with work that is still to do
        self.lock = threading.RLock()
        self._thread = threading.local()
        self.begins_early = mode == "early"
        self.begun = 0
        """Launches that began before the work in front of them was done."""

    def add(self, stream: "EmulatedStream") -> None:
        self._streams.add(stream)

    def capturing(self) -> bool:
        """True when this thread is capturing."""
        return bool(getattr(self._thread, "capturing", 0))

    def capture(self, step: int) -> None:
        """A capture begins (1) or ends (-1) on this thread."""
        self._thread.capturing = getattr(self._thread, "capturing", 0) + step

    def enqueued(self, stream: "EmulatedStream") -> None:
        """Something was enqueued: perhaps something is done."""
        with self.lock:
            if self._mode == "at once":
                stream.run(len(stream.queue))
            elif self._mode == "random":
                for one in sorted(self._streams, key=lambda s: s.handle):
                    one.run(self._random.choice((0, 0, 1, 2)))

    def finish(self) -> None:
        """Does everything that is enqueued anywhere."""
        with self.lock:
            for stream in list(self._streams):
                stream.run(len(stream.queue))
            self._closed.clear()

    def closed(self, stream: "EmulatedStream") -> None:
        """A stream was given back: what it holds is done all the same, at some time."""
        self._closed.append(stream)


LIMITS = LaunchLimits(arch=90, shared_nbytes=227 << 10, priorities=range(-5, 1))
"""Those of a real device."""


def check_launch(
    grid: tuple[int, ...], block: tuple[int, ...], shared_nbytes: int, attributes: LaunchAttributes = NO_ATTRIBUTES
) -> None:
    """Raises AssertionError for what a real device would refuse."""
    wrong = launch_fault(grid, block, shared_nbytes, attributes, LIMITS)
    assert wrong is None, f"grid {grid}, block {block}, {shared_nbytes} bytes shared: {wrong}"


class EmulatedStream:
    """Work in order, noted instead while capturing."""

    _handles = iter(range(100, 1 << 40))

    def __init__(self, device: Any) -> None:
        self._device = device
        self.handle = next(self._handles)
        self.queue: deque[Callable[[], Any]] = deque()
        self._begun: deque[int] = deque()  # where the blocks of the first in the queue are kept, of those that began
        self.done = 0  # how much of what was ever enqueued
        self.busy = False  # something was enqueued since the last event that takes times
        self.foreign: list[int] = []  # streams of others that were waited for
        self._noted: list[Any] | None = None  # calls, and events that launches set
        self._capturer: int | None = None
        self._pause: CollectorPause | None = None
        self._closed = False
        device.alive["stream"] += 1
        device.schedule.add(self)

    # What the driver's has.

    def copy_to_device(self, target: int, source: int, nbytes: int, *, pinned: bool = False) -> None:
        assert not pinned or not nbytes or self._is_pinned(source, nbytes), "a copy from memory that is not pinned"
        self._copy("to device", target, source, nbytes)

    def copy_to_host(self, target: int, source: int, nbytes: int, *, pinned: bool = False) -> None:
        assert not pinned or not nbytes or self._is_pinned(target, nbytes), "a copy to memory that is not pinned"
        self._copy("to host", target, source, nbytes)

    def gather_to_device(self, target: int, sources: Sequence[int], sizes: Sequence[int]) -> None:
        for source, nbytes in zip(sources, sizes, strict=True):
            assert self._is_pinned(source, nbytes), "a piece in memory that is not pinned"
            self._copy("gathered to device", target, source, nbytes)
            target += nbytes

    def copy_on_device(self, target: int, source: int, nbytes: int) -> None:
        self._copy("on device", target, source, nbytes)

    def copy_from_peer(self, target: int, source: int, nbytes: int, peer: Device) -> None:
        assert isinstance(peer, type(self._device)) and peer is not self._device, "a copy from another device names that device"
        for at, device in ((target, self._device), (source, peer)):
            inside = any(start <= at and at + nbytes <= start + size for start, size in device.held.items())
            assert inside, f"{nbytes} bytes at {at:#x} are no memory of cuda:{device.ordinal}"
        self._copy("from peer", target, source, nbytes)

    def fill(self, target: int, byte: int, nbytes: int) -> None:
        self._enqueue(partial(ctypes.memset, target, byte, nbytes))

    def launch(
        self,
        function: Function,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        parameters: Parameters,
        attributes: LaunchAttributes = NO_ATTRIBUTES,
    ) -> None:
        self.launcher(function, grid, block, shared_nbytes, attributes)(parameters)

    def launcher(
        self,
        function: Function,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        attributes: LaunchAttributes = NO_ATTRIBUTES,
    ) -> Callable[[Parameters], None]:
        check_launch(grid, block, shared_nbytes, attributes)

        def launch(parameters: Parameters) -> None:
            self._enqueue(EmulatedLaunch(function, tuple(grid), tuple(block), shared_nbytes, parameters, attributes))

        return launch

    def record(self, event: Event) -> None:
        assert self._noted is None, "an event in a capture"
        self._set(event.raw)

    def note(self, event: Event) -> None:
        assert self._noted is not None, "an event is noted outside a capture"
        self._noted.append(event.raw)

    def wait(self, event: Event) -> None:
        assert self._noted is None, "an event in a capture"
        reached: EmulatedEvent = event.raw
        assert not reached.closed, "waiting for an event after it was closed"
        stream, point = reached.stream, reached.point
        self._enqueue(lambda: None if stream is None else stream.run_to(point))

    def wait_for_foreign(self, handle: int) -> None:
        self.foreign.append(handle)

    def synchronize(self) -> None:
        self._usable()
        if self._noted is not None:
            raise DeviceError("cuStreamSynchronize is not allowed during capture")
        with self._device.schedule.lock:
            self.run(len(self.queue))

    def is_done(self) -> bool:
        self._usable()
        return not self.queue

    def begin_capture(self) -> None:
        self._usable()
        self._noted = []
        self._capturer = threading.get_ident()
        self._device.schedule.capture(1)
        self._pause = CollectorPause()

    def end_capture(self) -> "EmulatedGraph":
        assert self._noted is not None and self._pause is not None
        noted, self._noted = self._noted, None
        self._device.schedule.capture(-1)
        self._pause.end()
        return EmulatedGraph(self._device, noted)

    def launch_graph(self, graph: Captured) -> None:
        captured: EmulatedGraph = graph.raw
        assert not captured.closed, "a graph was launched after it was closed"
        for call in captured.calls:
            if isinstance(call, EmulatedEvent):
                self._set(call)
            else:
                self._enqueue(call)

    def close(self) -> None:
        if not self._closed:
            self._device.schedule.closed(self)
            self._closed = True
            self._device.alive["stream"] -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # What the schedule uses.

    def run(self, count: int) -> None:
        """Does the next so many things."""
        try:
            for _ in range(min(count, len(self.queue))):
                if self._device.schedule.begins_early:
                    self._begin_those_behind()
                call = self.queue.popleft()
                kept = self._begun[0] if self._begun else NOWHERE
                if kept != NOWHERE:
                    assert isinstance(call, EmulatedLaunch)
                    call.end(kept)
                else:
                    call()
                if self._begun:
                    self._free(self._begun.popleft())
                self.done += 1
        except BaseException:
            while self._begun:
                self._free(self._begun.popleft())
            raise

    @staticmethod
    def _free(kept: int) -> None:
        if kept != NOWHERE:
            _FREE.append(kept)

    def run_to(self, point: int) -> None:
        """Does what was enqueued before a point."""
        self.run(point - self.done)

    def _begin_those_behind(self) -> None:
        """Begins the programmatic launches right behind the launch that is next, while there is room to keep their blocks.

        What they change in memory before their turn, nobody may see: there must be nothing.
        """
        if not self._begun:
            self._begun.append(NOWHERE)
        for at in range(len(self._begun), len(self.queue)):
            before, call = self.queue[at - 1], self.queue[at]
            if not (isinstance(before, EmulatedLaunch) and isinstance(call, EmulatedLaunch) and call.may_begin_early and _FREE):
                return
            contents = self._device.digest()
            self._begun.append(_FREE.pop())
            call.begin(self._begun[-1])
            assert self._device.digest() == contents, f"{call.name} writes before its turn"
            self._device.schedule.begun += 1

    def _copy(self, way: str, target: int, source: int, nbytes: int) -> None:
        staged = way == "to device" and self._noted is None and not self._device.reads_pageable_memory
        if staged and not self._is_pinned(source, nbytes):
            read: bytes | int = ctypes.string_at(source, nbytes)
        else:
            read = source

        def copy() -> None:
            assert way != "gathered to device" or self._is_pinned(source, nbytes), "a piece was registered no more as it was read"
            self._device.copies.append((way, nbytes))
            ctypes.memmove(target, read, nbytes)

        if nbytes:
            self._enqueue(copy)

    def _is_pinned(self, address: int, nbytes: int) -> bool:
        """True where the host's memory there was allocated as pinned memory, or registered."""
        pieces = (*self._device.pinned.items(), *self._device.registered.items())
        return any(at <= address and address + nbytes <= at + size for at, size in pieces)

    def _set(self, event: "EmulatedEvent") -> None:
        event.record(self)
        busy = self.busy
        self._enqueue(lambda: None)
        self.busy = busy

    def _enqueue(self, call: Callable[[], Any]) -> None:
        self._usable()
        if self._noted is not None:
            assert self._capturer == threading.get_ident(), "another thread's work in a capture"
            self._noted.append(call)
            return
        with self._device.schedule.lock:
            self.busy = True
            self.queue.append(call)
            self._device.schedule.enqueued(self)

    def _usable(self) -> None:
        assert not self._closed, "a stream was used after it was closed"
        self._device.expect_current()


@dataclass(frozen=True)
class EmulatedLaunch:
    """A launch, enqueued: called, it is done."""

    function: Any  # a device.EmulatedKernel, or what stands for one in a test
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_nbytes: int
    parameters: Parameters
    attributes: LaunchAttributes

    def __call__(self) -> None:
        self.function.raw(self.grid, self.block, self.shared_nbytes, self.parameters, self.attributes)

    @property
    def name(self) -> str:
        """The kernel's."""
        return str(self.function.name)

    @property
    def may_begin_early(self) -> bool:
        """True for a programmatic launch."""
        return self.attributes.programmatic

    def begin(self, kept: int) -> None:
        """Runs the first cluster as far as its turn."""
        address = ctypes.c_void_p(self.parameters.address)
        self.function.begin(self.grid, self.block, self.shared_nbytes, address, self.attributes, kept)

    def end(self, kept: int) -> None:
        """Does the rest."""
        self.function.raw(self.grid, self.block, self.shared_nbytes, self.parameters, self.attributes, kept)


class EmulatedGraph:
    """Captured work."""

    def __init__(self, device: Any, calls: list[Any]) -> None:
        self._device = device
        self.calls = calls
        self.closed = False
        device.alive["graph"] += 1

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._device.alive["graph"] -= 1

    @property
    def raw(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class EmulatedEvent:
    """A point of a stream; its times are made up: a microsecond from one event that takes times to the next, half a one where
    there was nothing to do between them.
    """

    def __init__(self, device: Any, timing: bool) -> None:
        self._device = device
        self.timing = timing
        self.stream: EmulatedStream | None = None
        self.point = 0
        self._tick = 0
        self.closed = False
        self.foreign: list[int] = []  # handles of streams that wait for it
        device.alive["event"] += 1

    @property
    def raw(self) -> Self:
        return self

    def record(self, stream: EmulatedStream) -> None:
        assert not self.closed, "an event was recorded after it was closed"
        self.stream, self.point = stream, stream.done + len(stream.queue)
        if self.timing:
            self._device.clock += 2 if stream.busy else 1
            self._tick, stream.busy = self._device.clock, False

    def synchronize(self) -> None:
        self._usable()
        if self.stream is not None:
            with self._device.schedule.lock:
                self.stream.run_to(self.point)

    def is_done(self) -> bool:
        self._usable()
        return self.stream is None or self.stream.done >= self.point

    def hold_foreign(self, handle: int) -> None:
        self._usable()
        self.foreign.append(handle)

    def elapsed_ms(self, since: Event) -> float:
        assert self.timing and since.raw.timing, "an event that takes no times"
        assert self.is_done() and since.is_done(), "the time of an event that is not reached"
        began: int = since.raw._tick
        return (self._tick - began) * 0.0005

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._device.alive["event"] -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _usable(self) -> None:
        assert not self.closed, "an event was used after it was closed"
        self._device.expect_current()
