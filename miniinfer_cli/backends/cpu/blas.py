"""The matrix library behind numpy is held to one thread for each product while a program runs.

Products are split over threads of our own. The library's own threads spin where they wait for each other, so that a product
takes many times as long when other processes hold the processors. What the caller had set is there again once nothing runs.
"""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

from miniinfer_cli.backends.cpu.blas_memory import ProductMemory, product_memory


@dataclass(frozen=True, slots=True)
class Library:
    """A matrix library's number of threads. ``by_thread``: each thread has its own number, else it is the process's.

    ``memory``: what it takes for each product, where that must be seen to.
    """

    get: Callable[[], int]
    set: Callable[[int], Any]
    by_thread: bool
    memory: ProductMemory | None = None


class BlasThreads:
    """``with`` this, each matrix product takes one thread; for several threads at once, and within each other.

    Where the number is the process's, the first that comes notes what was set, and the last that goes sets it again. Raises
    OutOfMemoryError, on entering, when the library has no memory for one product of each run and worker.
    """

    def __init__(self, libraries: Sequence[Library]) -> None:
        self._shared = [library for library in libraries if not library.by_thread]
        self._own = [library for library in libraries if library.by_thread]
        self._memories = [library.memory for library in libraries if library.memory is not None]
        self._lock = threading.Lock()
        self._runs = 0
        self._workers = 0
        self._before: list[int] = []
        self._local = threading.local()

    def __enter__(self) -> None:
        with self._lock:
            self._expect_memory(self._runs + 1 + self._workers)
            if self._runs == 0:
                self._before = _limit(self._shared)
            self._runs += 1
        if self._own:
            self._local.__dict__.setdefault("before", []).append(_limit(self._own))

    def __exit__(self, *exception: object) -> None:
        if self._own:
            _restore(self._own, self._local.before.pop())
        with self._lock:
            if self._runs > 0:  # else the process was forked within
                self._runs -= 1
                if self._runs == 0:
                    _restore(self._shared, self._before)

    def add_worker(self) -> None:
        """One more thread is to compute products. Raises OutOfMemoryError when the library has no memory for that."""
        with self._lock:
            self._expect_memory(self._runs + self._workers + 1)
            self._workers += 1

    def limit_worker(self) -> None:
        """One thread for each product on this thread, for good."""
        _limit(self._own)

    def after_fork_in_child(self) -> None:
        """The threads that were in the middle of something are not there."""
        self._lock = threading.Lock()
        self._workers = 0
        for memory in self._memories:
            memory.after_fork_in_child()
        if self._runs:
            self._runs = 0
            _restore(self._shared, self._before)

    def _expect_memory(self, products: int) -> None:
        for memory in self._memories:
            memory.expect(products)


@cache
def blas_threads() -> BlasThreads:
    """The matrix libraries of this process; looking for them takes some milliseconds, the first time."""
    found = BlasThreads([library for c in ThreadpoolController().lib_controllers if (library := _library(c)) is not None])
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=found.after_fork_in_child)
    return found


def _library(controller: Any) -> Library | None:
    """What threadpoolctl found, when it is a matrix library."""
    if controller.user_api != "blas":
        return None
    if controller.internal_api != "openblas":
        return Library(controller.get_num_threads, controller.set_num_threads, by_thread=controller.internal_api == "mkl")
    # threadpoolctl 3.8 does nothing for OpenBLAS but in the first thread that asked, and takes ten times as long as the call.
    library = controller.dynlib
    if controller.threading_layer == "openmp":
        return Library(library.omp_get_max_threads, library.omp_set_num_threads, by_thread=True, memory=product_memory(library))
    for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
        setter = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
        if setter is not None:
            getter = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
            return Library(getter, setter, by_thread=False, memory=product_memory(library))
    return None


def _limit(libraries: Sequence[Library]) -> list[int]:
    """Sets one thread; gives what was set."""
    before = [library.get() for library in libraries]
    for library, threads in zip(libraries, before, strict=True):
        if threads != 1:
            library.set(1)
    return before


def _restore(libraries: Sequence[Library], before: Sequence[int]) -> None:
    for library, threads in zip(libraries, before, strict=True):
        if threads != 1 and library.get() == 1:  # else the caller has set another number meanwhile, and keeps it
            library.set(threads)
