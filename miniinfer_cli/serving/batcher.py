"""Batcher: many callers' requests, computed by one engine in batches. See docs/batching.md."""

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from miniinfer_cli.devices.several import Devices, device_names, open_beside
from miniinfer_cli.errors import MiniinferError, UsageError
from miniinfer_cli.runtime.at_once import at_once
from miniinfer_cli.runtime.calls import OneOfAKind
from miniinfer_cli.serving.assembling import Assembler
from miniinfer_cli.serving.batch_sizes import BatchSizes, choose_sizes
from miniinfer_cli.serving.copying import Copiers
from miniinfer_cli.serving.desk import Desk
from miniinfer_cli.serving.device_tally import DeviceTally
from miniinfer_cli.serving.layout import BatchedEngine, find_layout, layout_alone
from miniinfer_cli.serving.request import BatchedFuture
from miniinfer_cli.serving.waiting import Waiting
from miniinfer_cli.serving.workers import PHASES, Worker, start, watch_deadlines

Overload = Literal["reject", "block"]


class Asked(NamedTuple):
    """What ``submit`` takes, of one request among several. ``tag``: what its future has as ``tag``."""

    inputs: Mapping[str, Any]
    priority: int = 0
    deadline_s: float | None = None
    tag: Any = None


class Batcher(OneOfAKind):
    """Computes the requests of many callers in batches, in ``contexts`` contexts of ``engine``, each with a thread.

    ``devices``: several GPUs (``cuda:all``, ``cuda:0,cuda:1``, or a list), on each of which an engine of the plan has so many
    contexts: ``engine`` itself where its device is among them, and others that are opened beside it, with its options and its
    weights, and closed with the Batcher. A batch goes to the GPU where the fewest are under way.

    A request holds one row or several along the batch: the first dimension of all inputs, or ``batch_dim``. A batch begins when
    ``max_batch`` rows of one set of shapes wait, or the oldest of them has waited for ``max_delay_ms``. Its size is one of
    ``batch_sizes``; by default one that the plan was tuned for. ``max_queue`` requests wait at most: one more is rejected, or
    ``submit`` blocks until there is room, by ``overload``. ``priorities``: how many levels there are; a request that has waited
    for ``raise_after_ms`` counts as one level higher. ``pad``: sizes by dimension that requests are padded to, so that they share
    batches, with zeros or ``pad_values`` by input.

    ``copy_threads``: threads that help to put batches of 2 MiB and more together.

    ``alone``: each request is computed by itself, in the order of priorities, for plans without a batch.

    Raises UsageError for a plan without a batch, and for what is wrong with the arguments. Use it as a context manager, or
    ``close()`` it. The engine must stay open as long.
    """

    _instead = "make another Batcher of the engine"

    def __init__(
        self,
        engine: BatchedEngine,
        max_batch: int | None = None,
        max_delay_ms: float = 2.0,
        max_queue: int = 1024,
        contexts: int | None = None,
        overload: Overload = "reject",
        priorities: int = 1,
        pad: Mapping[str, Sequence[int]] | None = None,
        *,
        pad_values: Mapping[str, Any] | None = None,
        batch_dim: str | None = None,
        batch_sizes: Sequence[int] | None = None,
        raise_after_ms: float = 100.0,
        devices: Devices | None = None,
        alone: bool = False,
        copy_threads: int = 0,
    ) -> None:
        for name, value in (
            ("max_batch", max_batch),
            ("max_queue", max_queue),
            ("contexts", contexts),
            ("priorities", priorities),
        ):
            if value is not None or name not in ("max_batch", "contexts"):
                _expect_count(name, value)
        if type(copy_threads) is not int or copy_threads < 0:
            raise UsageError(
                f"copy_threads: expected a whole number from 0 on, got {copy_threads!r}", hint="copy_threads=0: none"
            )
        _expect_ms("max_delay_ms", max_delay_ms, max_delay_ms == 0)
        _expect_ms("raise_after_ms", raise_after_ms)
        if overload not in ("reject", "block"):
            raise UsageError(f"overload: expected 'reject' or 'block', got {overload!r}", hint="overload='block' waits for room")
        if alone and (pad or batch_dim is not None):
            raise UsageError("alone: requests share no batches, and there is nothing to pad", hint="leave pad and batch_dim out")
        self._layout = layout_alone(engine) if alone else find_layout(engine, batch_dim, {} if pad is None else pad)
        sizes = BatchSizes(choose_sizes(engine, self._layout, max_batch, batch_sizes))
        values = dict(pad_values or {})
        for name in values.keys() - {b.name for b in self._layout.inputs}:
            shown = ", ".join(map(str, self._layout.inputs))
            raise UsageError(f"pad_values: there is no input {name!r}", hint=f"the inputs are {shown}")
        self._engine = engine
        self._sizes = sizes
        self._priorities = priorities
        self._delay_s = max_delay_ms / 1e3
        self._blocks = overload == "block"
        self._desk = Desk(Waiting(sizes, priorities, self._delay_s, raise_after_ms / 1e3), max_queue)
        count = contexts or (1 if engine.device == "cpu" else 2)
        copiers = Copiers(copy_threads)
        self._staff = Staff(self._desk, copiers)
        try:
            for one in self._engines_on(engine, devices):
                tally = DeviceTally(one.device, in_turn=one.device != "cpu")
                self._staff.tallies.append(tally)
                for _ in range(count):
                    assembler = Assembler(one, self._layout, sizes.most, values, copiers)
                    worker = Worker(self._desk, tally, self._layout, sizes, assembler, one.create_context)
                    self._staff.workers.append(worker)
        except BaseException:
            self._staff.join()  # lets go the contexts that there are
            raise
        _alive.add(self._staff)
        self._let_go = weakref.finalize(self, _abandon, self._staff)
        self._let_go.atexit = False

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The sizes that batches are computed with, ascending."""
        return self._sizes.sizes

    def submit(self, inputs: Mapping[str, Any], *, priority: int = 0, deadline_s: float | None = None) -> BatchedFuture:
        """Puts a request of these ``inputs`` by name into the queue. Its outputs by name are the future's ``result()``.

        The arrays must stay as they are until it has ended. ``priority``: 0, or up to one less than there are; higher ones go
        first. ``deadline_s``: seconds from now after which it ends without a result, if it has none.
        Raises UsageError for inputs that do not fit, QueueFull where there is no room, and BatcherClosed.
        """
        request = self._request(inputs, priority, deadline_s)
        gate = self._desk.enter(request, block=self._blocks)
        if gate is not None:
            try:
                gate.acquire()
            except BaseException:  # an interruption: nobody will have its future
                request.cancel()
                raise
        return request

    async def asubmit(self, inputs: Mapping[str, Any], *, priority: int = 0, deadline_s: float | None = None) -> dict[str, Any]:
        """The outputs by name for a request like that of ``submit``. It waits for room without blocking the event loop.

        Arguments (``inputs``, ``priority``, ``deadline_s``) and errors are those of ``submit`` and ``result``. A task that is
        cancelled meanwhile cancels the request.
        """
        request = self._request(inputs, priority, deadline_s)
        self._desk.enter(request, block=self._blocks)
        return await request

    def submit_all(
        self, asked: Sequence[Asked], told: Callable[[list[BatchedFuture]], object]
    ) -> list[BatchedFuture | MiniinferError]:
        """Like ``submit`` of each, in one step; its error in the place of one that is refused. It waits for room as ``asubmit``.

        ``told`` is called with those of its futures that have ended together, from any thread, and must not raise.
        """
        made: list[BatchedFuture | MiniinferError] = []
        now = self._desk.clock()
        for one in asked:
            try:
                request = self._request(one.inputs, one.priority, one.deadline_s, now)
            except UsageError as error:
                made.append(error)
            else:
                request.told, request.tag = told, one.tag
                made.append(request)
        requests = [r for r in made if isinstance(r, BatchedFuture)]
        if requests:
            kept_out = iter(self._desk.enter_all(requests, block=self._blocks))
            made = [(next(kept_out) or r) if isinstance(r, BatchedFuture) else r for r in made]
        return made

    def warm_up(self, inputs: Mapping[str, Any], *, seconds: float = 0.0) -> None:
        """Computes a request of these ``inputs`` by name in batches of every size in every context, before callers come.

        It takes at least so many ``seconds``, and counts nowhere. Raises UsageError for inputs that do not fit, and once
        requests have come; otherwise what computing raises.
        """
        arrays, form = self._layout.read(self._engine, inputs, self._sizes.most)
        now = self._desk.clock()
        self._staff.warm_up(BatchedFuture(self._desk, arrays, form, 0, now, now, None), seconds)

    def stats(self) -> dict[str, Any]:
        """Figures for monitoring since it was made: ``requests`` by how they ended, batches, times; see docs/batching.md."""
        with self._desk.lock:
            devices = {t.device: {"batches": t.batches, "rows": t.rows, "under_way": t.under_way} for t in self._staff.tallies}
        phases = {phase: sum(w.phases_s[phase] for w in self._staff.workers) for phase in PHASES}
        own = {
            "batch_sizes": list(self.batch_sizes),
            "contexts": len(self._staff.workers),
            "devices": devices,
            "phases_s": phases,
        }
        return {**self._desk.stats(), **own}

    def close(self, drain: bool = True) -> None:
        """Takes in no more, and returns when all requests have ended; may be called twice.

        What waits is computed first, or, without ``drain``, ends as BatcherClosed. Requests that are being computed are computed.
        From a callback of a request it returns at once: the thread that it is called by may have more to compute.
        """
        self._desk.close(drain=drain)
        self._staff.join()
        self._let_go.detach()

    def __enter__(self) -> "Batcher":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.close(drain=kind is None)

    def __repr__(self) -> str:
        state = ", closed" if self._desk.closing else ""
        return f"<Batcher of {self._engine!r}: up to {self._sizes.most} rows{state}>"

    def _engines_on(self, engine: BatchedEngine, devices: Devices | None) -> list[BatchedEngine]:
        names = ("auto",) if devices is None else device_names(devices)
        if names == ("auto",):
            return [engine]
        opened = open_beside(engine, names, self._staff.engines)
        return [opened.get(name, engine) for name in names]

    def _request(
        self, inputs: Mapping[str, Any], priority: int, deadline_s: float | None, now: float | None = None
    ) -> BatchedFuture:
        """A request that came ``now``, or as this is called."""
        if type(priority) is not int or not 0 <= priority < self._priorities:
            told = f"priority: expected 0 to {self._priorities - 1}, got {priority!r}"
            raise UsageError(told, hint="make the Batcher with more levels: priorities=")
        if deadline_s is not None and (type(deadline_s) not in (int, float) or not deadline_s > 0):
            raise UsageError(
                f"deadline_s: expected seconds above 0, got {deadline_s!r}", hint="deadline_s=0.05 is 50 ms from now"
            )
        arrays, form = self._layout.read(self._engine, inputs, self._sizes.most)
        staff = self._staff
        if len(staff.threads) < len(staff.workers) and not self._desk.closing:
            staff.start()
        if now is None:
            now = self._desk.clock()
        if deadline_s is None:
            return BatchedFuture(self._desk, arrays, form, priority, now, now + self._delay_s, None)
        staff.watch_deadlines()
        due = now + min(self._delay_s, deadline_s / 2)  # it must not spend its time on waiting for others
        return BatchedFuture(self._desk, arrays, form, priority, now, due, now + deadline_s)


class Staff:
    """The threads of a batcher, begun at its first request, and once more in a forked child."""

    def __init__(self, desk: Desk, copiers: Copiers) -> None:
        self.desk = desk
        self.copiers = copiers
        self.workers: list[Worker] = []
        self.tallies: list[DeviceTally] = []
        self.engines = contextlib.ExitStack()
        """Closes those that were opened for the batcher."""
        self.threads: list[threading.Thread] = []
        self._timekeeper: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins what has not begun. Raises OutOfMemoryError when it cannot be begun."""
        with self._lock:
            for number in range(len(self.threads), len(self.workers)):
                self.threads.append(start(f"miniinfer-batch-{number}", partial(self._work, self.workers[number])))

    def warm_up(self, request: BatchedFuture, seconds: float) -> None:
        """Has every worker warm up in turn. Raises UsageError where a thread has begun."""
        with self._lock:
            if self.threads or self.desk.closing:
                told = "the batcher is closed" if self.desk.closing else "requests have come already"
                raise UsageError(f"warm_up: {told}", hint="call it before the first submit")
            teams = [[w for w in self.workers if w.tally is tally] for tally in self.tallies]

            def warm_up_one(number: int, *_: object) -> None:
                for worker in teams[number]:
                    worker.warm_up(request, seconds / len(teams[number]))

            at_once(len(teams), warm_up_one)  # GPUs beside each other, the contexts of one in turn

    def watch_deadlines(self) -> None:
        """Begins to watch them, with the first request that has one."""
        if self._timekeeper is None:
            with self._lock:
                if self._timekeeper is None:
                    desk = self.desk
                    self._timekeeper = start("miniinfer-deadlines", lambda: watch_deadlines(desk))

    def join(self) -> None:
        """Waits for all threads, unless it is called by one of them."""
        with self._lock:
            threads = list(self.threads)
            keepers = [] if self._timekeeper is None else [self._timekeeper]
        for worker in self.workers[len(threads) :]:  # those that have a thread close theirs themselves
            worker.close()
        if threading.current_thread() in (*threads, *keepers):
            return
        for thread in threads:
            thread.join()
        self.desk.timekeeper.wake()
        for thread in keepers:
            thread.join()
        self.copiers.close()
        self.engines.close()

    def _work(self, worker: Worker) -> None:
        """What a thread does; it holds the staff, which is ended with Python."""
        worker.work()

    def renew(self) -> None:
        """In a forked child: the threads did not come along."""
        self._lock = threading.Lock()
        self.threads = []
        self._timekeeper = None
        for tally in self.tallies:
            tally.under_way = 0
            tally.turns.clear()
        self.desk.renew()


_alive: "weakref.WeakSet[Staff]" = weakref.WeakSet()


def _abandon(staff: Staff) -> None:
    """The Batcher is gone: nobody can submit any more. From the garbage collector, so it takes no lock and waits for nobody."""
    staff.desk.abandon()
    staff.copiers.close()


def _for_all(act: Callable[[Staff], None]) -> None:
    for staff in list(_alive):
        act(staff)


def _end(staff: Staff) -> None:
    staff.desk.close(drain=False)
    staff.join()


def _end_all() -> None:
    """Before Python ends: threads that it would stop in the middle of an inference end by themselves."""
    _for_all(_end)


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _for_all(Staff.renew))


def _expect_count(name: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise UsageError(f"{name}: expected a whole number from 1 on, got {value!r}", hint=f"{name}=8 is one")


def _expect_ms(name: str, value: Any, may_be_zero: bool = False) -> None:
    if type(value) not in (int, float) or not (0 < value < 1e9 or may_be_zero):
        raise UsageError(f"{name}: expected milliseconds, got {value!r}", hint=f"{name}=5 is 5 ms")
