"""Python's cyclic garbage collector, off as long as anything in this process captures.

What it collects may belong to a library whose destructors call the driver, which spoils a capture on the same thread. The
collector is the process's, and so is the count of captures: engines and threads capture beside each other.
"""

import gc
import os

from engine_format.forking import ForkSafeLock

_lock = ForkSafeLock()
_going_on: set["CollectorPause"] = set()
_was_enabled = False


class CollectorPause:
    """Holds the collector off from here to ``end()``. The last of all pauses to end leaves it as the first found it."""

    def __init__(self) -> None:
        global _was_enabled
        with _lock:
            if not _going_on:
                _was_enabled = gc.isenabled()
                gc.disable()
            _going_on.add(self)

    def end(self) -> None:
        """Ends this pause; may be called twice."""
        with _lock:
            if self in _going_on:
                _going_on.remove(self)
                _restore()


def _restore() -> None:
    if not _going_on and _was_enabled:
        gc.enable()


def _after_fork_in_child() -> None:
    """The captures are the parent's."""
    if _going_on:
        _going_on.clear()
        _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
