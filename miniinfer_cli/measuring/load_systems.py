"""What answers the requests of a load: contexts that take them from one queue, or a Batcher that puts them together."""

import contextlib
import gc
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from miniinfer_cli.errors import BatcherClosed, QueueFull
from miniinfer_cli.measuring.load import Answers
from miniinfer_cli.runtime.context import Context, Future
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.serving.batcher import Batcher
from miniinfer_cli.serving.guard import Sleeper
from miniinfer_cli.serving.request import BatchedFuture
from miniinfer_cli.shortage import start_thread

Inputs = Mapping[str, Any]


class WallClock(Sleeper):
    """The clock that requests, contexts and the Batcher go by; see load.Clock."""

    def now(self) -> float:
        """See load.Clock."""
        return time.perf_counter()


class Contexts:
    """Computes each request by itself, in ``streams`` contexts of each engine, each with a thread; see load.System.

    All take requests from one queue, in which ``max_queue`` wait at most. Request n has the inputs n of ``samples``, which
    begin anew at their end. On a GPU a context has two inferences under way, so that copies hide behind computation.
    Use it as a context manager. Raises what making contexts, or starting threads, raises.
    """

    def __init__(self, engines: Sequence[Engine], samples: Sequence[Inputs], *, streams: int, max_queue: int) -> None:
        self._samples = samples
        self._max_queue = max_queue
        self._waiting: queue.SimpleQueue[tuple[int, Answers] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._contexts: list[Context] = []
        with contextlib.ExitStack() as stack:
            for engine in (e for _ in range(streams) for e in engines):
                self._contexts.append(stack.enter_context(engine.create_context()))
            self._stack = stack.pop_all()

    @property
    def at_once(self) -> int:
        """See load.System."""
        return sum(c.depth for c in self._contexts)

    def warm_up(self, seconds: float) -> None:
        """Computes in each context in turn, so long in all, and at least until everything is captured."""
        for number, context in enumerate(self._contexts):
            until = time.perf_counter() + seconds / len(self._contexts)
            done = 0
            while done < 3 * context.depth or time.perf_counter() < until:
                context.run(self._samples[(number + done) % len(self._samples)])
                done += 1

    def submit(self, number: int, answers: Answers) -> bool:
        """See load.System."""
        if self._waiting.qsize() >= self._max_queue:
            return False
        if not self._threads:
            self._start()
        self._waiting.put((number, answers))
        return True

    def abandon(self) -> None:
        """See load.System."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._end()

    def _start(self) -> None:
        for number, context in enumerate(self._contexts):
            thread = threading.Thread(target=self._work, args=(context,), name=f"miniinfer-stream-{number}")
            start_thread(thread)
            self._threads.append(thread)

    def _end(self) -> None:
        threads, self._threads = self._threads, []
        for _ in threads:
            self._waiting.put(None)
        for thread in threads:
            thread.join()

    def _work(self, context: Context) -> None:
        """Takes requests and tells of their ends, until there will be no more; the oldest ends before one too many begins."""
        under_way: deque[tuple[int, Answers, float, Future]] = deque()
        is_over = False
        while not is_over or under_way:
            if len(under_way) < context.depth and not is_over:
                with contextlib.suppress(queue.Empty):
                    task = self._waiting.get(block=not under_way)
                    if task is None:
                        is_over = True
                        continue
                    number, answers = task
                    begun = time.perf_counter()
                    try:
                        future = context.enqueue(self._samples[number % len(self._samples)])
                    except BaseException as error:
                        answers.fail(error)
                        continue
                    under_way.append((number, answers, begun, future))
                    continue
            number, answers, begun, future = under_way.popleft()
            try:
                outputs = future.result()
            except BaseException as error:
                answers.fail(error)
                continue
            answers.end(number, begun, time.perf_counter(), outputs)

    def __enter__(self) -> "Contexts":
        return self

    def __exit__(self, *exc: object) -> None:
        self.abandon()
        self._stack.close()


class Batched:
    """Has a ``batcher`` compute the requests, which are like those of Contexts; see load.System."""

    def __init__(self, batcher: Batcher, samples: Sequence[Inputs]) -> None:
        self._batcher = batcher
        self._samples = samples

    @property
    def at_once(self) -> int:
        """See load.System."""
        return int(self._batcher.stats()["contexts"] * self._batcher.batch_sizes[-1])

    def warm_up(self, seconds: float) -> None:
        """Computes batches of every size in every context."""
        self._batcher.warm_up(self._samples[0], seconds=seconds)

    def submit(self, number: int, answers: Answers) -> bool:
        """See load.System."""

        def told(future: BatchedFuture) -> None:
            error = future.exception(0)
            if error is None:
                answers.end(number, future.begun, time.perf_counter(), future.result(0))
            elif not isinstance(error, BatcherClosed):  # abandoned
                answers.fail(error)

        try:
            future = self._batcher.submit(self._samples[number % len(self._samples)])
        except QueueFull:
            return False
        future.add_done_callback(told)
        return True

    def abandon(self) -> None:
        """See load.System."""
        self._batcher.close(drain=False)


@contextmanager
def frozen_collector() -> Iterator[None]:
    """While it lasts the garbage collector passes over what is there now: so has it a server that minds its slowest percent.

    Where somebody has had it pass over something before, it goes on with that, and with what is there now.
    """
    gc.collect()
    others = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not others:
            gc.unfreeze()
