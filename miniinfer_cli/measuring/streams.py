"""Several contexts on one engine at once, each in a thread of its own; an error in one ends all."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.shortage import start_thread

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Lane:
    """One stream's place among the others: its ``number`` from 0 on, and its own ``context``.

    ``ready`` waits until all streams are; ``stop`` is set when they are to end before their time.
    """

    number: int
    context: Context
    ready: Callable[[], Any] = lambda: None
    stop: threading.Event = field(default_factory=threading.Event)


def on_streams(engine: Engine, streams: int, work: Callable[[Lane], Result]) -> list[Result]:
    """What ``work`` gives on each of ``streams`` contexts, in the order in which they ended; one runs in this thread.

    An error in any of them ends all, and is raised.
    """

    def run(number: int, ready: Callable[[], Any], stop: threading.Event) -> Result:
        with engine.create_context() as context:
            return work(Lane(number, context, ready, stop))

    return at_once(streams, run)


def at_once(count: int, run: Callable[[int, Callable[[], Any], threading.Event], Result]) -> list[Result]:
    """What ``run(number, ready, stop)`` gives for each number below ``count``, each in a thread; one alone in this one.

    ``ready`` and ``stop`` are those of a Lane. Results come in the order in which they ended. An error in any of them ends all,
    and is raised.
    """
    if count == 1:
        return [run(0, lambda: None, threading.Event())]
    results: list[Result] = []
    errors: list[BaseException] = []
    stop = threading.Event()
    ready = threading.Barrier(count)

    def guarded(number: int) -> None:
        try:
            results.append(run(number, ready.wait, stop))
        except threading.BrokenBarrierError:
            pass  # another stream failed first; its error is the one to show
        except BaseException as error:
            errors.append(error)
            stop.set()
            ready.abort()

    threads = [threading.Thread(target=guarded, args=(n,), name=f"miniinfer-stream-{n}") for n in range(count)]
    try:
        for thread in threads:
            start_thread(thread)
        for thread in threads:
            thread.join()
    except BaseException:  # Ctrl-C, or no more threads
        stop.set()
        ready.abort()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    if errors:
        raise errors[0]
    return results
