"""Several threads that do the same at once; an error in one ends all."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from miniinfer_cli.shortage import start_thread

Result = TypeVar("Result")


def at_once(count: int, run: Callable[[int, Callable[[], Any], threading.Event], Result]) -> list[Result]:
    """What ``run(number, ready, stop)`` gives for each number below ``count``, each in a thread; one alone in this one.

    ``ready`` waits until all have come so far; ``stop`` is set when they are to end before their time. Results come in the order
    in which they ended. An error in any of them ends all, and is raised.
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
            pass  # another thread failed first; its error is the one to show
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
