"""Where requests come in, wait and end: everything that callers, workers and the timekeeper share, under one lock."""

import heapq
import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from miniinfer_cli.errors import BatcherClosed, DeadlinePassed, MiniinferError, QueueFull
from miniinfer_cli.serving.device_tally import DeviceTally
from miniinfer_cli.serving.guard import Guard, Sleeper
from miniinfer_cli.serving.request import (
    CANCELLED,
    CLOSED,
    DEADLINE,
    ERROR,
    OUTSIDE,
    QUEUED,
    RESULT,
    RUNNING,
    BatchedFuture,
    Ended,
    Outputs,
    call,
)
from miniinfer_cli.serving.tally import REJECTED, Tally
from miniinfer_cli.serving.waiting import Waiting

_SLACK = 64  # requests with a deadline that have ended, and are still among those that are watched


class WaitingWorker(Sleeper):
    """A worker, as it waits for batches for its device."""

    def __init__(self, tally: DeviceTally) -> None:
        super().__init__()
        self.tally = tally


class Desk:
    """The state of a batcher. It knows neither engine nor contexts.

    A batch goes to the device where the fewest are under way, of those that have an idle worker.
    """

    def __init__(self, waiting: Waiting, max_queue: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.lock = Guard()
        self.clock = clock
        self.tally = Tally()
        self.closing = False
        self.abandoned = False
        """Nobody can submit any more: set with no lock held, since the garbage collector comes at any time."""
        self.timekeeper = Sleeper()
        self._waiting = waiting
        self._max_queue = max_queue
        self._outside: OrderedDict[BatchedFuture, None] = OrderedDict()
        self._open: set[BatchedFuture] = set()
        """Requests that have not ended, wherever they are."""
        self._idle: list[WaitingWorker] = []
        self._coming: set[WaitingWorker] = set()
        """Workers that were woken and have not looked yet what there is."""
        self._watching: WaitingWorker | None = None
        """The idle worker that wakes by itself when the next request is due; one is enough."""
        self._watched_until = math.inf
        self._held_until = -math.inf
        """Until when what waits is left for the batches under way, unless it fills one; of the devices with idle workers."""
        self._deadlines: list[tuple[float, int, BatchedFuture]] = []
        self._timed = 0  # requests with a deadline that have not ended
        self._numbers = itertools.count()

    # What callers do.

    def enter(self, request: BatchedFuture, *, block: bool) -> Any:
        """Takes a request in. Where there is no room, raises QueueFull, or, to ``block``, gives a lock to wait for."""
        with self.lock:
            sooner = request.deadline is not None and request.deadline < (self._deadlines[0][0] if self._deadlines else math.inf)
            self._enter(request, block)
            gate = request.gate
        if sooner:
            self.timekeeper.wake()
        return gate

    def enter_all(self, requests: Sequence[BatchedFuture], *, block: bool) -> list[MiniinferError | None]:
        """Takes several in at once; for each what kept it out, or None. To ``block`` lets them wait where there is no room."""
        kept_out: list[MiniinferError | None] = []
        with self.lock:
            until = self._deadlines[0][0] if self._deadlines else math.inf
            if not self.closing and self._waiting.count + len(requests) <= self._max_queue:
                self._enter_together(requests)
                kept_out = [None] * len(requests)
            else:
                for request in requests:
                    try:
                        self._enter(request, block)
                        kept_out.append(None)
                    except (BatcherClosed, QueueFull) as error:
                        kept_out.append(error)
            sooner = bool(self._deadlines) and self._deadlines[0][0] < until
        if sooner:
            self.timekeeper.wake()
        return kept_out

    def cancel(self, request: BatchedFuture) -> bool:
        """Ends a request as cancelled; False when it had ended in another way."""
        with self.lock:
            if request.done():
                return request.cancelled()
            if self.lock.later(lambda: self.cancel(request)):  # a coroutine that is collected cancels what it awaits
                return True
            told = self._end(request, CANCELLED)
        call(told)
        return True

    def close(self, *, drain: bool) -> None:
        """Takes in no more. What waits is computed, at once, or ends without a result; both may be told again."""
        told: list[Ended] = []
        with self.lock:
            self.closing = True
            if not drain:
                for request in [*self._outside, *self._waiting.clear()]:
                    self._outside.pop(request, None)
                    request.state = RUNNING  # it is in no line any more
                    told += self._end(request, CLOSED, error=BatcherClosed("the batcher was closed while the request waited"))
            self._wake_all()
        call(told)

    def abandon(self) -> None:
        """Like ``close`` with ``drain``, from the garbage collector: takes no lock."""
        self.abandoned = True
        self._wake_all()

    def stats(self) -> dict[str, Any]:
        """The tally, and how many requests wait and are computed now."""
        with self.lock:
            queued, outside = self._waiting.count, len(self._outside)
            now = {"queued": queued, "outside": outside, "running": len(self._open) - queued - outside}
            return {**self.tally.snapshot(), **now}

    # What workers do.

    def next_batch(self, worker: WaitingWorker) -> list[BatchedFuture]:
        """Requests to be computed together; waits for them. Empty when there will be no more. What is late is none of them."""
        while True:
            self._end_late()
            with self.lock:
                self._is_awake(worker)
                self._coming.discard(worker)
                closing = self.closing = self.closing or self.abandoned
                now = self.clock()
                handed = not closing and self._hand_on(worker, now)
                begins_at = worker.tally.begins_at()
                batch = [] if handed else self._waiting.take(now, all_due=closing, ahead=not closing and begins_at > now)
                if batch:
                    self._begin(batch, now, worker.tally)
                    return batch
                if closing:
                    return []
                pause = math.inf
                self._idle.append(worker)
                if self._watching is None and not handed:
                    self._held_until = min(w.tally.begins_at() for w in self._idle)
                    self._watching, self._watched_until = worker, max(self._waiting.due(), self._held_until)
                    pause = self._watched_until - now
                if self.abandoned:  # since it was looked at above, by whom the list of idle workers did not have this one
                    pause = 0
            worker.sleep(pause)

    def batch_ahead(self, tally: DeviceTally) -> list[BatchedFuture]:
        """A full batch, for a worker that has one under way already; empty where there is none now, or another goes first.

        Another goes first, too, where a worker of a device with less under way has been woken for it.
        """
        self._end_late()
        with self.lock:
            now = self.clock()
            if any(w.tally.under_way < tally.under_way for w in self._coming):
                return []
            batch = self._waiting.take(now, ahead=True)
            if batch:
                self._begin(batch, now, tally)
            return batch

    def ended(self, tally: DeviceTally) -> None:
        """A batch that was taken for ``tally`` is no more under way."""
        with self.lock:
            tally.under_way -= 1
            if tally.in_turn:
                tally.end_turn(self._waiting.sizes, self.clock())

    def give(self, batch: list[BatchedFuture], outputs: Sequence[Outputs], size: int, seconds: float, tally: DeviceTally) -> None:
        """The outputs of a batch that was computed with ``size`` rows in so long."""
        told: list[Ended] = []
        latencies: list[float] = []
        rows = timed = 0
        with self.lock:
            now = self.clock()
            for request, own in zip(batch, outputs, strict=True):
                rows += request.form.rows
                if request.state == RUNNING:
                    request.ended = now
                    told += request.end(RESULT, own)
                    self._open.discard(request)
                    latencies.append(now - request.arrived)
                    if request.deadline is not None:
                        timed += 1
            self.tally.outcomes[RESULT] += len(latencies)
            self.tally.add_latencies(latencies)
            self.tally.count_batch(len(batch), rows, size, seconds)
            tally.batches += 1
            tally.rows += rows
            self._waiting.sizes.note(batch[0].form.bucket, size, seconds)
            if timed:
                self._forget_deadlines(timed)
        if told:
            call(told)

    def fail(self, batch: Iterable[BatchedFuture], error: BaseException) -> None:
        """The end of all of these that have not ended."""
        told: list[Ended] = []
        with self.lock:
            for request in batch:
                if not request.done():
                    told += self._end(request, ERROR, error=error)
        call(told)

    def leave(self) -> None:
        """A worker ends. What has ended needs no watching."""
        self.timekeeper.wake()

    # What the timekeeper does.

    def end_overdue(self) -> float | None:
        """Ends what is past its deadline. Gives the seconds until the next one; None when there will be none any more."""
        self._end_late()
        with self.lock:
            pause = self._deadlines[0][0] - self.clock() if self._deadlines else math.inf
            ended = (self.closing or self.abandoned) and not self._deadlines
        return None if ended else pause

    def _end_late(self) -> None:
        """Ends what is past its deadline, or forgets that it was, where it has ended otherwise."""
        if not self._deadlines:
            return
        told: list[Ended] = []
        with self.lock:
            now = self.clock()
            while self._deadlines and (self._deadlines[0][2].done() or self._deadlines[0][0] <= now):
                _, _, request = heapq.heappop(self._deadlines)
                if not request.done():
                    waited = f"{(now - request.arrived) * 1e3:.3g} ms"
                    where = "being computed" if request.state == RUNNING else "in the queue"
                    told += self._end(request, DEADLINE, error=DeadlinePassed(f"its time was over after {waited}, {where}"))
        call(told)

    # After a fork, in the child, where there is one thread.

    def renew(self) -> None:
        """Nothing waits, nobody works. Requests of the parent end here; who waited for them did not come along."""
        self.lock = Guard()
        requests = list(self._open)
        self._waiting.clear()
        for own in (self._open, self._outside, self._idle, self._coming, self._deadlines):
            own.clear()
        self._watching, self._timed, self.timekeeper = None, 0, Sleeper()
        for request in requests:
            if not request.done():
                request.gate = None
                request.end(CLOSED, error=BatcherClosed("the process was forked; the parent has the request"))
                self.tally.outcomes[CLOSED] += 1

    # Under the lock.

    def _enter(self, request: BatchedFuture, block: bool) -> None:
        """One more. Raises BatcherClosed, and QueueFull where there is no room and it is not to ``block``."""
        if self.closing:
            self.tally.outcomes[CLOSED] += 1
            raise BatcherClosed("the batcher is closed")
        outside = self._waiting.count >= self._max_queue
        if outside and not block:
            self.tally.outcomes[REJECTED] += 1
            raise QueueFull(f"{self._waiting.count} requests wait already")
        self._open.add(request)
        if request.deadline is not None:
            self._timed += 1
            heapq.heappush(self._deadlines, (request.deadline, next(self._numbers), request))
        if outside:
            request.state = OUTSIDE
            request.gate = threading.Lock()
            request.gate.acquire()
            self._outside[request] = None
        else:
            self._admit(request)

    def _enter_together(self, requests: Sequence[BatchedFuture]) -> None:
        """Several, for which there is room."""
        self._open.update(requests)
        full, due = False, math.inf
        for request in requests:
            if request.deadline is not None:
                self._timed += 1
                heapq.heappush(self._deadlines, (request.deadline, next(self._numbers), request))
            full = self._waiting.add(request) or full
            due = min(due, request.due)
        self._wake_for(full, due)

    def _admit(self, request: BatchedFuture) -> None:
        """Into the queue, and somebody is woken where one has to."""
        request.state = QUEUED
        self._wake_for(self._waiting.add(request), request.due)

    def _wake_for(self, full: bool, due: float) -> None:
        """Wakes an idle worker for what came, ``due`` then, where it has to look before it would by itself."""
        if self._idle:
            if full or self._watching is None:
                self._wake_one()
            elif (due := max(due, self._held_until)) < self._watched_until:
                self._watched_until = due
                self._watching.wake()

    def _begin(self, batch: list[BatchedFuture], now: float, tally: DeviceTally) -> None:
        """These are out of the queue, which has room for others, and may have another batch."""
        tally.under_way += 1
        waited = 0.0
        rows = 0
        for request in batch:
            request.state = RUNNING
            request.begun = now
            waited += now - request.arrived
            rows += request.form.rows
        if tally.in_turn:
            tally.begin_turn(self._waiting.sizes, batch[0].form.bucket, rows, now)
        self.tally.add_waited(waited)
        if self._outside:
            self._fill_up()
        if self._waiting.count and self._idle:
            self._wake_one()

    def _fill_up(self) -> None:
        while self._outside and self._waiting.count < self._max_queue:
            request, _ = self._outside.popitem(last=False)
            self._admit(request)
            request.admit()

    def _end(
        self, request: BatchedFuture, state: str, outputs: Outputs | None = None, error: BaseException | None = None
    ) -> list[Ended]:
        """Ends a request that has not ended, wherever it is."""
        where = request.state
        self.tally.outcomes[state] += 1
        told = request.end(state, outputs, error)
        self._open.discard(request)
        self._forget_deadlines(request.deadline is not None)
        if where == QUEUED:
            self._waiting.remove(request)
            self._fill_up()
        elif where == OUTSIDE:
            self._outside.pop(request, None)
        return told

    def _forget_deadlines(self, ended: int) -> None:
        """So many requests with a deadline have ended: they are watched no more once they are most of those that are."""
        self._timed -= ended
        if ended and len(self._deadlines) > 2 * self._timed + _SLACK:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done()]
            heapq.heapify(self._deadlines)

    def _hand_on(self, worker: WaitingWorker, now: float) -> bool:
        """Whether somebody is idle, and was woken, on a device with less under way than on that of ``worker``."""
        if not self._waiting.count or not any(w.tally.under_way < worker.tally.under_way for w in self._idle):
            return False
        if not self._waiting.is_ready(now):
            return False
        self._wake_one()
        return True

    def _is_awake(self, worker: WaitingWorker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        if self._watching is worker:
            self._watching = None

    def _wake_one(self) -> None:
        """Wakes an idle worker: where the fewest batches are under way, and there rather one that does not watch the time."""
        worker = min(self._idle, key=lambda w: (w.tally.under_way, w is self._watching))
        self._is_awake(worker)
        self._coming.add(worker)
        worker.wake()

    def _wake_all(self) -> None:
        for worker in tuple(self._idle):
            worker.wake()
        self.timekeeper.wake()
