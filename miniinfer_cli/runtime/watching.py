"""Threads that wait for a context's futures, so that an event loop need not; none until somebody asks for one."""

from typing import TYPE_CHECKING, Any, Protocol

from engine_format.forking import ForkSafeLock
from miniinfer_cli.errors import MiniinferError

if TYPE_CHECKING:
    from concurrent import futures


class Watched(Protocol):
    """What is waited for; see ``context.Future``."""

    def done(self) -> bool:
        """See Future."""

    def result(self) -> dict[str, Any]:
        """See Future."""


class Watchers:
    """At most ``depth`` threads, since no more inferences than that can be under way. They end with the context."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._lock = ForkSafeLock()
        self._threads: futures.ThreadPoolExecutor | None = None
        self._closed = False

    def watch(self, watched: Watched) -> "futures.Future[dict[str, Any]]":
        """A future with the result, or the error, of what is watched."""
        from concurrent import futures  # late: brings logging, and few wait this way

        with self._lock:
            # A context that is closed has waited for all that it had under way.
            if not self._closed and not watched.done():
                if self._threads is None:
                    self._threads = futures.ThreadPoolExecutor(self._depth, "miniinfer-watch")
                return self._threads.submit(watched.result)
        ended: futures.Future[dict[str, Any]] = futures.Future()
        try:
            ended.set_result(watched.result())
        except MiniinferError as error:
            ended.set_exception(error)
        return ended

    def close(self) -> None:
        """No more threads; those that wait end with what they wait for. May be called twice."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)
