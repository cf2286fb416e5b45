"""One call that fails: the n-th of all that were counted, at the lowest level that Python has, as the system would say it.

What is counted: the system calls of files and mappings, threads that start, arenas, and the calls of the emulated device.
"""

import builtins
import errno
import fcntl
import io
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np

from miniinfer_cli.backends.cpu import memory
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from tests.emulation.device import EmulatedDevice, EmulatedFunctions
from tests.emulation.stream import EmulatedEvent, EmulatedStream

# What the system says when it runs out of something, and when it is broken or forbids it.
FILES = {
    "open": (errno.EMFILE, errno.EACCES),
    "read": (errno.ENOMEM, errno.EIO),
    "write": (errno.ENOSPC, errno.EIO),
    "truncate": (errno.ENOSPC, errno.EIO),
    "fsync": (errno.ENOSPC, errno.EIO),
    "replace": (errno.ENOSPC, errno.EACCES),
    "stat": (errno.ENOMEM, errno.EACCES),
    "listing": (errno.ENOMEM, errno.EACCES),
    "owner": (errno.EDQUOT, errno.EPERM),
    "lock": (errno.ENOLCK, errno.EOPNOTSUPP),
    "copy": (errno.ENOSPC, errno.EIO),
    "map": (errno.ENOMEM, errno.EACCES),
}
_OF_OS = {
    "open": "open", "read": "read", "pread": "read", "preadv": "read", "write": "write", "pwrite": "write", "fsync": "fsync",
    "replace": "replace", "rename": "replace", "stat": "stat", "fstat": "stat", "lstat": "stat", "scandir": "listing",
    "listdir": "listing", "fchmod": "owner", "fchown": "owner", "copy_file_range": "copy", "dup": "open",
}  # fmt: skip
_DRIVER: tuple[tuple[type, tuple[str, ...]], ...] = (
    (EmulatedDevice, ("allocate", "allocate_pinned", "register", "create_stream", "create_event")),
    (
        EmulatedStream,
        (
            "copy_to_device", "copy_to_host", "copy_on_device", "gather_to_device", "fill", "launch", "record", "note", "wait",
            "synchronize", "is_done", "begin_capture", "end_capture", "launch_graph",
        ),
    ),
    (EmulatedEvent, ("synchronize", "is_done", "elapsed_ms")),
    (EmulatedFunctions, ("prepare", "get")),
)  # fmt: skip


class Injector:
    """Counts calls, on all threads; number ``fail_at``, from 1, fails. ``kind``: 0 for exhausted, 1 for broken or forbidden."""

    def __init__(self, fail_at: int, kind: int = 0) -> None:
        self.fail_at = fail_at
        self.kind = kind
        self.failed = ""
        """What failed; empty when nothing did."""
        self._count = 0
        self._lock = threading.Lock()

    def hits(self, what: str) -> bool:
        """Counts one call, and tells whether it is the one to fail."""
        with self._lock:
            self._count += 1
            if self._count != self.fail_at:
                return False
            self.failed = what
            return True

    def expect(self, what: str, name: str = "", path: Any = None) -> None:
        """Raises the OSError of a kind of call on files, when this is the one to fail."""
        if self.hits(name or what):
            code = FILES[what][self.kind]
            raise OSError(code, os.strerror(code), None if path is None else os.fspath(path))

    @contextmanager
    def files(self) -> Iterator[None]:
        """Counts what is done to files, mappings, threads and arenas."""
        with ExitStack() as stack:
            for name, what in _OF_OS.items():
                stack.enter_context(mock.patch.object(os, name, self._failing(getattr(os, name), what, name)))
            opened = self._opening(io.open)
            for owner, name, new in (
                (io, "open", opened),
                (builtins, "open", opened),
                (fcntl, "flock", self._failing(fcntl.flock, "lock", "flock")),
                (mmap, "mmap", self._failing(mmap.mmap, "map", "mmap")),
                (np, "fromfile", self._failing(np.fromfile, "read", "fromfile")),
                (threading.Thread, "start", self._starting(threading.Thread.start)),
                (memory.np, "empty", self._allocating(np.empty)),
            ):
                stack.enter_context(mock.patch.object(owner, name, new))
            yield

    @contextmanager
    def driver(self, *, currents: bool = False) -> Iterator[None]:
        """Counts the calls of emulated devices, and with ``currents`` those that make one current, which are half of all.

        Allocations run out; every other call is refused.
        """
        with ExitStack() as stack:
            for owner, names in (*_DRIVER, (EmulatedDevice, ("make_current",) if currents else ())):
                for name in names:
                    stack.enter_context(mock.patch.object(owner, name, self._refusing(getattr(owner, name), name)))
            yield

    def _failing(self, original: Callable[..., Any], what: str, name: str) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            self.expect(what, name, words[0] if words and isinstance(words[0], (str, os.PathLike)) else None)
            return original(*words, **named)

        return call

    def _opening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``open`` whose files count reads and writes as they reach the system, behind the buffers."""

        def call(file: Any, mode: str = "r", buffering: int = -1, *words: Any, **named: Any) -> Any:
            if not isinstance(file, int):  # a descriptor is open already
                self.expect("open", path=file)
            if "b" not in mode or buffering == 0:
                return original(file, mode, buffering, *words, **named)
            raw = _Raw(file, mode.replace("b", ""), named.get("closefd", True), named.get("opener"))
            raw.injector = self
            made = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
            return made(raw, io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering)

        return call

    def _starting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def start(thread: threading.Thread) -> None:
            if self.hits("thread"):
                raise RuntimeError("can't start new thread")
            original(thread)

        return start

    def _allocating(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def empty(*words: Any, **named: Any) -> Any:
            if self.hits("empty"):
                raise MemoryError("Unable to allocate an array")
            return original(*words, **named)

        return empty

    def _refusing(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            if not self.hits(name):
                return original(*words, **named)
            if name == "end_capture":
                original(*words, **named).close()  # a capture that fails has ended
            if name.startswith("allocate"):
                raise OutOfMemoryError("1.0 MiB needed, 0.0 MiB free on cuda:0")
            raise DeviceError(f"{name} failed: CUDA_ERROR_UNKNOWN (999)")

        return call


class _Raw(io.FileIO):
    injector: Injector

    def readinto(self, buffer: Any) -> int | None:
        self.injector.expect("read")
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self.injector.expect("read")
        return super().readall()

    def write(self, data: Any) -> int | None:
        self.injector.expect("write")
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self.injector.expect("truncate")
        return super().truncate(size)
