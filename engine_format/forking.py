"""What a process that was forked must know of it: how often that happened, and locks that are open in the child.

A fork copies the memory and one thread. A lock that another thread held stays locked in the child for ever, since the thread that
would let it go is not there.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

_forks = 0  # between the process that loaded this module and this one
_renewing = threading.Lock()


def fork_count() -> int:
    """How many forks lie between the first process that loaded this module and this one."""
    return _forks


class ForkSafeLock:
    """A lock that a forked child finds open, whoever held it in the parent.

    What it guards must be sound between any two steps of Python, since the thread that was in the middle of it never ends it.
    ``make``: ``threading.Lock``, or ``threading.RLock`` for one that its holder may take again.
    """

    __slots__ = ("_forks", "_lock", "_make")

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self._lock = make()
        self._forks = _forks

    def acquire(self, blocking: bool = True) -> bool:
        """Takes the lock; False when it is held and this is not to wait."""
        if self._forks != _forks:
            self._renew()
        return bool(self._lock.acquire(blocking))

    def release(self) -> None:
        """Lets the lock go."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        with _renewing:  # of two threads of the child only the first
            if self._forks != _forks:
                self._lock = self._make()
                self._forks = _forks


def _after_fork_in_child() -> None:
    global _forks, _renewing
    _forks += 1
    _renewing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
