"""How threads of a batcher wait for each other: a lock that the garbage collector may meet held, and a sleep without a lock."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable


class Guard:
    """A lock. The garbage collector may run a finalizer in the middle of what its holder does, which then comes here again.

    ``later`` puts off what must not happen then; it is done when the lock is let go.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._postponed: deque[Callable[[], object]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *exception: object) -> None:
        self._depth -= 1
        outermost = self._depth == 0
        self._lock.release()
        while outermost and self._postponed:
            with contextlib.suppress(IndexError):  # another thread was faster
                self._postponed.popleft()()

    def later(self, act: Callable[[], object]) -> bool:
        """True when this thread holds the lock already, further out: then ``act`` is called when that is over.

        To be asked with the lock held.
        """
        if self._depth == 1:
            return False
        self._postponed.append(act)
        return True


class Sleeper:
    """A thread that can be woken without a lock: also by whoever came in the middle of what another thread does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self, seconds: float) -> None:
        """Returns when it was woken since it last returned, or after so long."""
        if seconds > 0:
            self._lock.acquire(timeout=-1 if seconds > threading.TIMEOUT_MAX else seconds)

    def wake(self) -> None:
        """Ends the sleep, or the next one."""
        with contextlib.suppress(RuntimeError):  # it is awake
            self._lock.release()
