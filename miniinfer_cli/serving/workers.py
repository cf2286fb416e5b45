"""The threads of a batcher: workers that compute batches, each in a context of its own, and the one that watches deadlines."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from engine_format.forking import fork_count
from miniinfer_cli.errors import BatchFailed, DeviceError, MiniinferError, OutOfMemoryError
from miniinfer_cli.runtime.context import Context, Future
from miniinfer_cli.serving.assembling import Assembler
from miniinfer_cli.serving.batch_sizes import BatchSizes
from miniinfer_cli.serving.desk import Desk, WaitingWorker
from miniinfer_cli.serving.device_tally import DeviceTally
from miniinfer_cli.serving.layout import Layout
from miniinfer_cli.serving.request import RUNNING, BatchedFuture
from miniinfer_cli.shortage import start_thread

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A batch that is computed with ``size`` rows, ``started`` then (time.perf_counter)."""

    batch: list[BatchedFuture]
    size: int
    started: float
    future: Future


PHASES = ("assemble", "enqueue", "wait", "give")
"""What a worker does with a batch, in order: puts its inputs together, enqueues it, waits for it, and gives out its results."""
_CAPTURED = 3  # inferences, in each I/O slot, from which on a GPU replays what it captured


class Worker:
    """What one thread computes batches with, on the device of ``tally``.

    ``context`` is this process's: a forked child makes another.
    """

    def __init__(
        self,
        desk: Desk,
        tally: DeviceTally,
        layout: Layout,
        sizes: BatchSizes,
        assembler: Assembler,
        make_context: Callable[[], Context],
    ) -> None:
        self._desk = desk
        self.tally = tally
        self._layout = layout
        self._sizes = sizes
        self._assembler = assembler
        self._make_context = make_context
        self._context: Context | None = make_context()
        self._depth = self._context.depth
        self._forks = fork_count()
        self.phases_s = dict.fromkeys(PHASES, 0.0)
        """Seconds that each of PHASES took, of all batches."""

    def work(self) -> None:
        """Computes batches until there will be no more.

        On a GPU the next one is put together, and copied, while one is computed; as many are under way as the context takes.
        """
        sleeper = WaitingWorker(self.tally)
        under_way: deque[_UnderWay] = deque()
        try:
            while True:
                batch = self._desk.batch_ahead(self.tally) if under_way else self._desk.next_batch(sleeper)
                if not batch and not under_way:
                    return
                begun = self._guarded(batch, self._begin, batch) if batch else None
                if begun is not None:
                    under_way.append(begun)
                elif batch:
                    self._desk.ended(self.tally)
                if under_way and (not batch or len(under_way) >= self._depth):
                    oldest = under_way.popleft()
                    self._guarded(oldest.batch, self._finish, oldest)
                    self._desk.ended(self.tally)
        finally:
            self._desk.leave()
            self.close()

    def _guarded(self, batch: list[BatchedFuture], act: Callable[[_Given], _Made], given: _Given) -> _Made | None:
        """What ``act`` makes. Whatever it raises ends ``batch``: else its requests would never end, and no others be computed."""
        try:
            return act(given)
        except BaseException as error:
            self._desk.fail(batch, error)
            return None

    def warm_up(self, request: BatchedFuture, seconds: float) -> None:
        """Computes ``request`` in batches of every size that holds it, so long in all, and until all is captured on a GPU.

        Nobody else may use the worker meanwhile.
        """
        context = self._own_context()
        sizes = [s for s in reversed(self._sizes.sizes) if s >= request.form.rows]
        for size in sizes:  # buffers that grow drop what was captured, and a small size may need more than a large one
            self._warm_up(context, request, size)
        for size in sizes:
            until, left = time.perf_counter() + seconds / len(sizes), _CAPTURED * context.depth
            while left > 0 or time.perf_counter() < until:
                self._warm_up(context, request, size)
                left -= 1

    def _warm_up(self, context: Context, request: BatchedFuture, size: int) -> None:
        started = time.perf_counter()
        context.run_arrays(self._assembler.inputs(context, [request], [request.arrays], size))
        with self._desk.lock:
            self._sizes.note(request.form.bucket, size, time.perf_counter() - started)

    def close(self) -> None:
        """Lets the context go."""
        context, self._context = self._context, None
        if context is not None and self._forks == fork_count():
            context.close(wait=True)

    def _begin(self, batch: list[BatchedFuture]) -> _UnderWay | None:
        """Puts the requests of ``batch`` together and begins to compute them; none where none are left, or they failed."""
        with self._desk.lock:  # what ends lets go what it has
            batch = [r for r in batch if r.state == RUNNING]  # others were cancelled, or are late
            arrays = [r.arrays for r in batch]
        if not batch:
            return None
        size = self._sizes.holding(sum(r.form.rows for r in batch))
        started = time.perf_counter()
        try:
            context = self._own_context()
            inputs = self._assembler.inputs(context, batch, arrays, size)
            assembled = time.perf_counter()
            future = context.enqueue_arrays(inputs)
        except Exception as error:
            self._failed(batch, error)
            return None
        self.phases_s["assemble"] += assembled - started
        self.phases_s["enqueue"] += time.perf_counter() - assembled
        return _UnderWay(batch, size, started, future)

    def _finish(self, computed: _UnderWay) -> None:
        """Gives each request of the batch its outputs, when they are there, or its own error."""
        batch, size = computed.batch, computed.size
        asked = time.perf_counter()
        try:
            results = tuple(computed.future.result().values())
            there = time.perf_counter()
            outputs = self._assembler.outputs(results, batch, size)
        except Exception as error:
            self._failed(batch, error)
        else:
            self._desk.give(batch, outputs, size, there - computed.started, self.tally)
            self.phases_s["wait"] += there - asked
            self.phases_s["give"] += time.perf_counter() - there

    def _failed(self, batch: list[BatchedFuture], error: Exception) -> None:
        """Gives the requests of ``batch`` this error, or each its own.

        What fails is computed again by halves until whoever it is the fault of is alone: also what a plugin raises is one
        request's fault. Not where the device failed, and not where numbers are drawn.
        """
        if len(batch) == 1 or isinstance(error, DeviceError):
            self._desk.fail(batch, error)
        elif self._layout.draws:
            told = str(error) if not isinstance(error, MiniinferError) else error.message
            self._desk.fail(batch, BatchFailed(f"one of the {len(batch)} requests of its batch failed: {told}"))
        else:
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                begun = self._begin(half)
                if begun is not None:
                    self._finish(begun)

    def _own_context(self) -> Context:
        if self._context is None or self._forks != fork_count():
            self._context = self._make_context()
            self._forks = fork_count()
        return self._context


def watch_deadlines(desk: Desk) -> None:
    """Ends requests that are late, until there will be none."""
    timekeeper = desk.timekeeper
    while (pause := desk.end_overdue()) is not None:
        timekeeper.sleep(pause)


def start(name: str, target: Callable[[], None]) -> threading.Thread:
    """A thread that keeps no process alive: ``batcher`` ends it with Python. Raises OutOfMemoryError where it does not start."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        start_thread(thread)
    except MemoryError as error:
        hint = "let the process start more threads (ulimit -u, ulimit -v), or give the Batcher fewer contexts"
        raise OutOfMemoryError(f"a thread of the batcher cannot be started: {error}", hint=hint) from None
    return thread
