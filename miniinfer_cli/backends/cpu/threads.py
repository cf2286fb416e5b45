"""The threads of the CPU backend: splits work over them while numpy computes without the interpreter lock.

The workers are one pool for the whole process, asleep when there is nothing to do. Parts are taken one by one by whoever is free,
the caller first of all, so that a worker that other processes keep from the processor holds up at most the part that it has.
"""

import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np

from miniinfer_cli.backends.cpu.blas import blas_threads
from miniinfer_cli.backends.cpu.thread_count import FEWER_THREADS
from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.ops.budget import Budget, current
from miniinfer_cli.ops.products import Stage
from miniinfer_cli.shortage import start_thread


class Threads:
    """``count`` threads: the caller's, and the others of the pool. See ``ops.products.ForEach``."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, parts: int, body: Callable[[int], object]) -> None:
        """Calls ``body(i)`` for every i below ``parts``, on at most ``self.count`` threads at once.

        Once a part has failed no more are begun. Raises the error of the first that failed when all that were begun have ended.
        """
        self.in_turn((parts, body))

    def in_turn(self, *stages: Stage) -> None:
        """The same for several: a stage begins when all parts of the one before are done."""
        budget = current()
        if budget is not None and any(parts > 1 for parts, _ in stages):
            stages = tuple((parts, _within(budget, body)) for parts, body in stages)  # workers have not got the caller's context
        stages = tuple(stage for stage in stages if stage[0])
        helpers = min(self.count, max((parts for parts, _ in stages), default=0)) - 1
        if helpers <= 0:
            for parts, body in stages:
                for i in range(parts):
                    body(i)
            return
        job = _Job(stages)
        try:
            _pool.help(job, helpers)
            job.work()
        finally:
            job.end()
        job.raise_fault()


def _within(budget: Budget, body: Callable[[int], object]) -> Callable[[int], object]:
    def checked(part: int) -> None:
        budget.check_time()
        body(part)

    return checked


class _Job:
    """Stages of parts to be done by the caller, and by workers that come while there are any.

    Who has to wait sleeps: looking whether the others are done takes the interpreter from them whenever they want it.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._stage = 0
        self._next = 0  # part of the stage to begin
        self._left = stages[0][0]  # parts of the stage that are not done
        self._ended = False  # no more parts are begun
        self._helping = 0  # workers that are at it
        self._faults: list[tuple[int, int, BaseException]] = []
        self._lock = threading.Lock()
        self._waiting: list[threading.Lock] = []  # each held by a thread that wants the next stage, or the end
        self._idle = threading.Lock()  # held while the caller has to wait

    def work(self) -> None:
        """Does parts until none is left to begin; waits, between two stages, for those who are still at the first."""
        while True:
            with self._lock:
                if self._ended:
                    return
                stage, number = self._stage, self._next
                count, body = self._stages[stage]
                if number < count:
                    self._next = number + 1
                elif stage + 1 == len(self._stages):
                    return
                else:
                    gate = threading.Lock()
                    gate.acquire()
                    self._waiting.append(gate)
            if number < count:
                self._do(stage, number, body)
            else:
                gate.acquire()

    def _do(self, stage: int, number: int, body: Callable[[int], object]) -> None:
        try:
            body(number)
        except BaseException as error:  # ``raise_fault`` raises it, on the thread that called
            with self._lock:
                self._faults.append((stage, number, error))
                self._end()
            return
        with self._lock:
            self._left -= 1
            if self._left == 0 and stage + 1 < len(self._stages):
                self._next, self._left = 0, self._stages[stage + 1][0]
                self._stage = stage + 1
                self._wake()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        for gate in self._waiting:
            gate.release()
        self._waiting.clear()

    def help(self) -> None:
        """What a worker does: ``work``, if the caller has not ended it."""
        with self._lock:
            if self._ended:
                return
            self._helping += 1
        self.work()
        with self._lock:
            self._helping -= 1
            if self._helping == 0 and self._idle.locked():
                self._idle.release()

    def end(self) -> None:
        """Lets nobody begin one more part, and waits for the workers, which write into the caller's arrays."""
        with self._lock:
            self._end()
            if self._helping:
                self._idle.acquire()
        try:
            with self._idle:
                pass
        except BaseException:  # Ctrl-C
            with self._idle:
                raise
        finally:
            self._stages = ()  # a worker that comes late must not keep the arrays

    def raise_fault(self) -> None:
        """Raises the error of the first part that failed, if any did: parts begin in order, so all before it were done."""
        if self._faults:
            raise min(self._faults, key=lambda fault: fault[:2])[2]


class _Pool:
    """Worker threads, as many as were ever asked for at once."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._workers = 0

    def help(self, job: _Job, helpers: int) -> None:
        """Lets so many workers help with ``job`` when they can. Raises OutOfMemoryError when they cannot be started."""
        if self._workers < helpers:
            self._grow(helpers)
        for _ in range(helpers):
            self._jobs.put(job)

    def _grow(self, workers: int) -> None:
        with self._lock:
            while self._workers < workers:
                # Daemons: they hold nothing between two jobs, and must not keep the process from ending.
                blas_threads().add_worker()
                thread = threading.Thread(target=self._work, name=f"miniinfer-cpu-{self._workers + 1}", daemon=True)
                try:
                    start_thread(thread)
                except MemoryError as error:
                    message = f"only {self._workers + 1} of {workers + 1} threads can be started: {error}"
                    raise OutOfMemoryError(message, hint=FEWER_THREADS) from None
                self._workers += 1

    def _work(self) -> None:
        np.seterr(all="ignore")  # numpy keeps this by thread; a worker has not got the caller's
        blas_threads().limit_worker()
        while True:
            self._jobs.get().help()


_pool = _Pool()


def _after_fork_in_child() -> None:
    global _pool
    _pool = _Pool()  # the workers of the parent are not there


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
