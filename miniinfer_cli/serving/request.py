"""The future of a request: what a batcher gives who submits, and what it knows of the request itself."""

import contextlib
import math
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Protocol, cast

from miniinfer_cli.runtime.calls import OneOfAKind
from miniinfer_cli.serving.layout import Form

if TYPE_CHECKING:
    import asyncio
    from concurrent import futures

# Where a request stands, and how it ends.
OUTSIDE, QUEUED, RUNNING = "outside", "queued", "running"
RESULT, ERROR, CANCELLED, DEADLINE, CLOSED = "result", "error", "cancelled", "deadline", "closed"

Listener = Callable[[], object]


class Rows(Protocol):
    """The outputs of a batch, of which each request takes its own when it is asked for them."""

    def part(self, begin: int, end: int) -> dict[str, Any]:
        """These rows of all outputs, by name."""


Outputs = dict[str, Any] | tuple[Rows, int, int]
"""What a request is given: its outputs by name, or what has them, with the first of its rows and the one behind the last."""


class Desk(Protocol):
    """What ends requests; see ``desk.Desk``."""

    lock: Any

    def cancel(self, request: "BatchedFuture") -> bool:
        """See Desk."""


class BatchedFuture(OneOfAKind):
    """A request to a Batcher: any thread may wait for its result, a coroutine may await it, and it can be cancelled.

    It ends once, with the outputs by name, with an error, or cancelled.
    """

    _instead = "hand on what result() gives"

    def __init__(
        self, desk: Desk, arrays: list[Any], form: Form, priority: int, arrived: float, due: float, deadline: float | None
    ) -> None:
        self._desk = desk
        self.arrays = arrays
        self.form = form
        self.priority = priority
        self.arrived = arrived
        self.due = due
        """When it is to be computed at the latest, as fast as batches go; as ``arrived``, on the batcher's clock."""
        self.deadline = deadline
        self.begun = math.nan
        """When its batch began, by ``time.perf_counter()``; NaN as long as it waits."""
        self.ended = math.nan
        """When it was given its outputs, as ``begun``."""
        self.state = QUEUED
        self.rank = arrived
        """Of those that wait, the lowest goes first; see ``waiting``."""
        self.gate: Any = None
        """A lock that who submitted waits for, held while the request is outside."""
        self.tag: Any = None
        """What who submitted it knows it by."""
        self.told: Callable[[list[BatchedFuture]], object] | None = None
        """Called with all requests that have it and end together, in the place of a listener for each; see ``call``."""
        self._outputs: Any = {}
        self._error: BaseException | None = None
        self._listeners: list[Listener] = []

    def done(self) -> bool:
        """True when it has ended, in whatever way."""
        return self.state not in _UNDER_WAY

    def cancelled(self) -> bool:
        """True when it was cancelled."""
        return self.state == CANCELLED

    def cancel(self) -> bool:
        """Ends it as cancelled; False when it had ended in another way. What still waits is never computed."""
        return self._desk.cancel(self)

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """The outputs by name; waits until they are there, ``timeout`` seconds at most. May be called again.

        Raises the request's error, ``concurrent.futures.CancelledError`` when it was cancelled, TimeoutError after ``timeout``.
        """
        if self.state != RESULT:
            error = self.exception(timeout)
            if error is not None:
                raise error
        return self._own()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The request's error, None when it has outputs. ``timeout``, and what is raised, as of ``result``."""
        if not self.done():
            waiting = threading.Lock()
            waiting.acquire()
            self.listen(waiting.release)
            if not waiting.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
                raise TimeoutError(f"no result within {timeout} s")
        if self.state == CANCELLED:
            from concurrent.futures import CancelledError  # late: brings logging

            raise CancelledError
        return self._error

    def add_done_callback(self, callback: "Callable[[BatchedFuture], object]") -> None:
        """Calls ``callback`` with this future when it has ended, at once if it has; from any thread.

        What it raises is logged, and disturbs nobody.
        """
        self.listen(_Callback(self, callback))

    def as_concurrent(self) -> "futures.Future[dict[str, Any]]":
        """A ``concurrent.futures.Future`` of the same end, for ``wait`` and ``as_completed``.

        Cancelling what this gives ends the watching, not the request.
        """
        from concurrent import futures  # late: brings logging

        made: futures.Future[dict[str, Any]] = futures.Future()

        def told() -> None:
            if self.state == CANCELLED:
                made.cancel()
            if not made.set_running_or_notify_cancel():
                return
            if self._error is not None:
                made.set_exception(self._error)
            else:
                made.set_result(self._own())

        self.listen(told)
        return made

    def __await__(self) -> Generator[Any, None, dict[str, Any]]:
        """The outputs by name. A task that is cancelled while it awaits cancels the request, as of asyncio's own futures."""
        import asyncio  # late: only those who await have it loaded already

        if not self.done():
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            self.listen(LoopListener(loop, ended))
            try:
                yield from ended
            finally:
                if not self.done():
                    self.cancel()
        if self.state == CANCELLED:
            raise asyncio.CancelledError
        return self.result()

    def __repr__(self) -> str:
        return f"<BatchedFuture of {self.form.rows} row{'s' * (self.form.rows != 1)}: {self.state}>"

    def listen(self, listener: Listener) -> None:
        """Calls ``listener`` once, when the request has ended; at once if it has."""
        with self._desk.lock:
            if not self.done():
                self._listeners.append(listener)
                return
        call([listener])

    def end(self, state: str, outputs: Outputs | None = None, error: BaseException | None = None) -> "list[Ended]":
        """Ends it, under the desk's lock, and gives who is to be told once that is open again. It must not have ended."""
        if outputs is not None:
            self._outputs = outputs
        self._error = error
        self.arrays = []
        self.state = state
        listeners: list[Ended] = []
        if self._listeners:
            listeners += self._listeners
            self._listeners = []
        if self.told is not None:
            listeners.append(self)
        if self.gate is not None:
            self.admit()
        return listeners

    def admit(self) -> None:
        """Lets go who submitted it, under the desk's lock."""
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.release()

    def _own(self) -> dict[str, Any]:
        """The outputs by name, taken out of those of the batch when they are first asked for."""
        outputs = self._outputs
        if type(outputs) is tuple:
            rows, begin, end = outputs
            self._outputs = outputs = rows.part(begin, end)
        return cast("dict[str, Any]", outputs)


_UNDER_WAY = frozenset((OUTSIDE, QUEUED, RUNNING))


class _Callback:
    """A caller's function, to be called with the future."""

    def __init__(self, future: BatchedFuture, function: Callable[[BatchedFuture], object]) -> None:
        self._future = future
        self._function = function

    def __call__(self) -> None:
        try:
            self._function(self._future)
        except Exception:  # a caller's, which must end neither the other requests' telling nor the thread
            import logging  # late: few callbacks fail

            logging.getLogger("miniinfer").exception("a callback of a batched request failed")


class Waiting(Protocol):
    """What an event loop ends when a request has ended: its futures, and what is like them."""

    def done(self) -> bool:
        """True when it needs to be told no more."""

    def set_result(self, result: None, /) -> object:
        """Tells it, in the loop's thread."""


class LoopListener:
    """A future of an event loop that is to end; those of one loop are told together, since telling costs a system call."""

    def __init__(self, loop: "asyncio.AbstractEventLoop", future: Waiting) -> None:
        self.loop = loop
        self.future = future

    def __call__(self) -> None:
        """Tells the loop."""
        _tell_loop(self.loop, [self.future])


Ended = Listener | BatchedFuture
"""Who is to be told of a request that has ended: a listener, or, in its own place, what its ``told`` is."""


def call(listeners: Iterable[Ended]) -> None:
    """Tells all, with no lock held; those who share a loop, or a ``told``, in one call."""
    loops: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
    together: dict[Any, list[BatchedFuture]] = {}
    for listener in listeners:
        if isinstance(listener, BatchedFuture):
            together.setdefault(listener.told, []).append(listener)
        elif isinstance(listener, LoopListener):
            loops.setdefault(listener.loop, []).append(listener.future)
        else:
            listener()
    for told, ended in together.items():
        told(ended)
    for loop, futures in loops.items():
        _tell_loop(loop, futures)


def _tell_loop(loop: "asyncio.AbstractEventLoop", ended: list[Waiting]) -> None:
    def wake() -> None:
        for future in ended:
            if not future.done():  # whoever awaits may have been cancelled
                future.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
        loop.call_soon_threadsafe(wake)
