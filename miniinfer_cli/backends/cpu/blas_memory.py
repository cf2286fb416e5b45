"""The memory that OpenBLAS takes for each product under way: asked for beforehand, since it ends the process where there is none.

OpenBLAS keeps its buffers: one for each product that was ever computed at the same time as others. Where the system has no room
for one more it prints a line and calls exit(1), in the middle of a product.
"""

import mmap
import threading
from collections.abc import Callable
from ctypes import c_int, c_void_p
from typing import Any

from miniinfer_cli.backends.cpu.thread_count import FEWER_THREADS
from miniinfer_cli.errors import OutOfMemoryError

_BUFFER_NBYTES = 32 << 20  # as numpy's wheels have it built (BUFFERSIZE=20)
_PROBE_NBYTES = _BUFFER_NBYTES + (1 << 20)
_MOST = 64  # products at once; OpenBLAS has places for some hundreds of buffers


class ProductMemory:
    """The buffers of one OpenBLAS. ``allocate`` gives the address of one that is free, and ``free`` takes it back."""

    def __init__(self, allocate: Callable[[int], int | None], free: Callable[[int], Any]) -> None:
        self._allocate = allocate
        self._free = free
        self._there = 0
        self._lock = threading.Lock()

    def expect(self, products: int) -> None:
        """Sees to it that so many products at once have their buffers. Raises OutOfMemoryError when there is no room."""
        wanted = min(products, _MOST)
        if wanted <= self._there:
            return
        with self._lock:
            taken: list[int] = []
            try:
                for _ in range(wanted):
                    _expect_room(wanted)
                    buffer = self._allocate(0)
                    if buffer is None:
                        raise _too_little(wanted)
                    taken.append(buffer)
            finally:
                for buffer in taken:
                    self._free(buffer)
            self._there = max(self._there, wanted)

    def after_fork_in_child(self) -> None:
        """A thread that is not there may have held the lock."""
        self._lock = threading.Lock()


def product_memory(library: Any) -> ProductMemory | None:
    """The buffers of an OpenBLAS that was loaded by ctypes; None for one that does not give access to them."""
    try:
        allocate, free = library.blas_memory_alloc, library.blas_memory_free
    except AttributeError:
        return None
    allocate.restype, allocate.argtypes = c_void_p, [c_int]
    free.restype, free.argtypes = None, [c_void_p]
    return ProductMemory(allocate, free)


def _expect_room(products: int) -> None:
    try:
        mmap.mmap(-1, _PROBE_NBYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise _too_little(products) from None


def _too_little(products: int) -> OutOfMemoryError:
    each = f"{_BUFFER_NBYTES >> 20} MiB"
    return OutOfMemoryError(
        f"memory for matrix products: {each} needed for each of {products} at once, and not given",
        hint=FEWER_THREADS if products > 1 else "",
    )
