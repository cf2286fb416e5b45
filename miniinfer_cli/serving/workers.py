"""The threads of a batcher: workers that compute batches, each in a context of its own, and the one that watches deadlines."""

import threading
import time
from collections.abc import Callable

from engine_format.forking import fork_count
from miniinfer_cli.errors import BatchFailed, DeviceError, MiniinferError, OutOfMemoryError
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.serving.assembling import Assembler
from miniinfer_cli.serving.batch_sizes import BatchSizes
from miniinfer_cli.serving.desk import Desk
from miniinfer_cli.serving.guard import Sleeper
from miniinfer_cli.serving.layout import Layout
from miniinfer_cli.serving.request import RUNNING, BatchedFuture
from miniinfer_cli.shortage import start_thread

_CAPTURED = 3  # inferences, in each I/O slot, from which on a GPU replays what it captured


class Worker:
    """What one thread computes batches with. ``context`` is this process's: a forked child makes another."""

    def __init__(
        self, desk: Desk, layout: Layout, sizes: BatchSizes, assembler: Assembler, make_context: Callable[[], Context]
    ) -> None:
        self._desk = desk
        self._layout = layout
        self._sizes = sizes
        self._assembler = assembler
        self._make_context = make_context
        self._context: Context | None = make_context()
        self._forks = fork_count()

    def work(self) -> None:
        """Computes batches until there will be no more."""
        sleeper = Sleeper()
        try:
            while batch := self._desk.next_batch(sleeper):
                try:
                    self._compute(batch)
                except BaseException as error:  # else these requests would never end, and no others be computed
                    self._desk.fail(batch, error)
        finally:
            self._desk.leave()
            self.close()

    def warm_up(self, request: BatchedFuture, seconds: float) -> None:
        """Computes ``request`` in batches of every size that holds it, so long in all, and until all is captured on a GPU.

        Nobody else may use the worker meanwhile.
        """
        context = self._own_context()
        sizes = [s for s in self._sizes.sizes if s >= request.form.rows]
        for size in sizes:
            until, left = time.perf_counter() + seconds / len(sizes), _CAPTURED * context.depth
            while left > 0 or time.perf_counter() < until:
                started = time.perf_counter()
                context.run_arrays(self._assembler.inputs(context, [request], [request.arrays], size))
                left -= 1
                with self._desk.lock:
                    self._sizes.note(request.form.bucket, size, time.perf_counter() - started)

    def close(self) -> None:
        """Lets the context go."""
        context, self._context = self._context, None
        if context is not None and self._forks == fork_count():
            context.close(wait=True)

    def _compute(self, batch: list[BatchedFuture]) -> None:
        """Gives each request of ``batch`` its outputs, or its own error.

        What fails is computed again by halves until whoever it is the fault of is alone; not where the device failed, and not
        where numbers are drawn.
        """
        with self._desk.lock:  # what ends lets go what it has
            batch = [r for r in batch if r.state == RUNNING]  # others were cancelled, or are late
            arrays = [r.arrays for r in batch]
        if not batch:
            return
        size = self._sizes.holding(sum(r.form.rows for r in batch))
        try:
            context = self._own_context()
            started = time.perf_counter()
            inputs = self._assembler.inputs(context, batch, arrays, size)
            results = context.run_arrays(inputs)
            outputs = self._assembler.outputs(results, batch, size)
        except DeviceError as error:
            self._desk.fail(batch, error)
        except Exception as error:  # of a plugin as well: it is one request's, like every other fault that is not the device's
            if len(batch) == 1:
                self._desk.fail(batch, error)
            elif self._layout.draws:
                told = str(error) if not isinstance(error, MiniinferError) else error.message
                self._desk.fail(batch, BatchFailed(f"one of the {len(batch)} requests of its batch failed: {told}"))
            else:
                self._compute(batch[: len(batch) // 2])
                self._compute(batch[len(batch) // 2 :])
        else:
            self._desk.give(batch, outputs, size, time.perf_counter() - started)

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
