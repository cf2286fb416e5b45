"""Memory for the bodies of requests: on the heap, or where the process that computes sees it as well."""

import mmap
from bisect import bisect_right, insort
from typing import Protocol

import numpy as np

_ALIGNED = 64  # where the bytes behind a request's JSON begin, for who computes with them
_LEAST_NBYTES = 16 << 10  # of a body in an arena: smaller ones are sent, which takes as long
_STEP_NBYTES = 64 << 10


class Body(Protocol):
    """The memory of one body."""

    memory: memoryview

    def release(self) -> None:
        """Who took it needs it no more."""


class Bodies(Protocol):
    """Where memory for bodies comes from."""

    def take(self, nbytes: int, ahead: int) -> Body:
        """Memory for so many bytes, aligned behind the first ``ahead``, which are JSON."""


class HeapBody:
    """Memory that goes when nobody looks at it any more."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory

    def release(self) -> None:
        """See Body."""


class Heap:
    """Memory of this process."""

    def take(self, nbytes: int, ahead: int) -> HeapBody:
        """See Bodies. Where they are small, tensors that do not lie aligned are copied in less time than this takes."""
        if nbytes < _LEAST_NBYTES:
            return HeapBody(memoryview(bytearray(nbytes)))
        whole = np.empty(nbytes + _ALIGNED, np.uint8)
        start = -(whole.ctypes.data + ahead) % _ALIGNED
        return HeapBody(whole.data[start : start + nbytes])


class ArenaBody:
    """A part of an arena; ``offset`` is where it begins. Each ``hold`` needs a ``release`` besides the first one."""

    def __init__(self, arena: "Arena", offset: int, room: int, memory: memoryview) -> None:
        self.offset = offset
        self.room = room
        self.memory = memory
        self._arena = arena
        self._holders = 1

    def hold(self) -> None:
        """One more needs it."""
        self._holders += 1

    def release(self) -> None:
        """See Body."""
        self._holders -= 1
        if self._holders == 0:
            self._arena.give_back(self)


class Arena:
    """The memory behind a descriptor, in which another process looks at bodies by their offsets. Small bodies are on the heap,
    and so are those that it has no room for.
    """

    def __init__(self, descriptor: int, nbytes: int) -> None:
        self._memory = memoryview(mmap.mmap(descriptor, nbytes))
        self._base = np.frombuffer(self._memory, np.uint8).ctypes.data
        self._nbytes = nbytes
        self._used = 0
        self._free: dict[int, list[int]] = {}
        self._offsets: list[int] = []
        self._bodies: dict[int, ArenaBody] = {}
        self._heap = Heap()

    def take(self, nbytes: int, ahead: int) -> Body:
        """See Bodies."""
        room = -(-(nbytes + _ALIGNED) // _STEP_NBYTES) * _STEP_NBYTES
        free = self._free.get(room)
        if nbytes < _LEAST_NBYTES or (not free and self._used + room > self._nbytes):
            return self._heap.take(nbytes, ahead)
        if free:
            offset = free.pop()
        else:
            offset, self._used = self._used, self._used + room
        start = offset + -ahead % _ALIGNED  # a page begins at offset 0
        body = ArenaBody(self, offset, room, self._memory[start : start + nbytes])
        self._bodies[offset] = body
        insort(self._offsets, offset)
        return body

    def find(self, address: int) -> tuple[ArenaBody, int] | None:
        """The body that has this address, and the address's offset in the arena; None where it is elsewhere."""
        at = address - self._base
        if not 0 <= at < self._nbytes:
            return None
        number = bisect_right(self._offsets, at) - 1
        return (self._bodies[self._offsets[number]], at) if number >= 0 else None

    def give_back(self, body: ArenaBody) -> None:
        """Nobody needs it any more."""
        del self._bodies[body.offset]
        del self._offsets[bisect_right(self._offsets, body.offset) - 1]
        self._free.setdefault(body.room, []).append(body.offset)
