"""Rows copied one behind another by several threads: one processor copies 10 GB/s, and a GPU computes faster than that."""

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from engine_format.forking import fork_count
from miniinfer_cli.ir import Array
from miniinfer_cli.shortage import start_thread

_LEAST_NBYTES = 1 << 20  # that a thread is woken for: less takes as long as waking it


class Copiers:
    """``count`` threads that help whoever puts a batch together; they begin with the first batch that is worth it."""

    def __init__(self, count: int, least_nbytes: int = _LEAST_NBYTES) -> None:
        self._count = count
        self._least_nbytes = least_nbytes
        self._work: SimpleQueue[_Part | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._forks = fork_count()

    def gather(self, rows: Sequence[Array], target: Array) -> None:
        """Copies ``rows`` one behind another along the first dimension of ``target``, which holds just these."""
        count = min(self._count + 1, len(rows), target.nbytes // self._least_nbytes) if self._count else 1
        if count < 2 or not self._begin():
            np.concatenate(rows, axis=0, out=target)
            return
        parts = _split(rows, target, count)
        for part in parts[1:]:
            self._work.put(part)
        parts[0].copy()
        self._copy_what_waits()
        errors = [error for part in parts if (error := part.wait()) is not None]  # of all: what is copied to must be left alone
        if errors:
            raise errors[0]

    def _copy_what_waits(self) -> None:
        """Copies what no thread has taken yet: they may have been ended meanwhile, or have others' rows to copy."""
        for _ in range(self._work.qsize()):
            try:
                part = self._work.get_nowait()
            except Empty:
                return
            if part is None:
                self._work.put(None)
            else:
                part.copy()

    def close(self) -> None:
        """Ends the threads, once they have copied what they have; takes no lock, for the garbage collector."""
        self._count = 0
        for _ in self._threads:
            self._work.put(None)

    def _begin(self) -> bool:
        """False where there are no threads, since none can be started, or since a fork has left them behind."""
        if self._forks != fork_count():
            return False
        if len(self._threads) < self._count:
            with self._lock:
                while len(self._threads) < self._count:
                    thread = threading.Thread(target=_copy_until_told, args=(self._work,), name="miniinfer-copy", daemon=True)
                    try:
                        start_thread(thread)
                    except MemoryError:
                        self._count = len(self._threads)  # with those that there are
                        break
                    self._threads.append(thread)
        return bool(self._count)


class _Part:
    """Rows that one thread copies."""

    def __init__(self, rows: Sequence[Array], target: Array) -> None:
        self._rows = rows
        self._target = target
        self._error: BaseException | None = None
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def copy(self) -> None:
        """Copies them, in whatever thread."""
        try:
            np.concatenate(self._rows, axis=0, out=self._target)
        except BaseException as error:  # whoever waits has it
            self._error = error
        self._under_way.release()

    def wait(self) -> BaseException | None:
        """Waits until they are copied. What copying them raised, or None."""
        self._under_way.acquire()
        return self._error


def _split(rows: Sequence[Array], target: Array, count: int) -> list[_Part]:
    """So many parts of about as many arrays."""
    ends = [len(rows) * (n + 1) // count for n in range(count)]
    parts: list[_Part] = []
    first = begin = 0
    for last in ends:
        some = rows[first:last]
        end = begin + sum(len(array) for array in some)
        parts.append(_Part(some, target[begin:end]))
        first, begin = last, end
    return parts


def _copy_until_told(work: "SimpleQueue[Any]") -> None:
    while (part := work.get()) is not None:
        part.copy()
