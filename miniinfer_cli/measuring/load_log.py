"""What came of each request of a load: when it was due, sent, begun and ended.

In columns of numbers, which the garbage collector leaves alone.
"""

import math
import threading
from array import array
from collections.abc import Callable
from typing import Any


class LoadLog:
    """Requests by number, in the order in which they were sent; times in seconds, on the clock of who sends.

    One thread sends; any thread ends. ``wake`` wakes who sends: at an error, and as ``call_at`` says.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.due, self.sent, self.begun, self.ended = (array("d") for _ in range(4))
        """Of each request; NaN where it was not begun, or did not end with a result."""
        self.dropped = array("q")
        """The numbers of those that found no room."""
        self.completed = 0
        """Requests that ended with a result."""
        self.started = self.stopped = 0.0
        """When the first was to be sent at the earliest, and when the last had ended."""
        self.interrupted = False
        """No more was sent, and not all that was sent has ended."""
        self.error: BaseException | None = None
        self._wake = wake
        self._call_at = -1
        self._lock = threading.Lock()

    @property
    def sent_count(self) -> int:
        """Requests that were sent, also those that were dropped."""
        return len(self.due)

    @property
    def under_way(self) -> int:
        """Requests that have not ended, and may."""
        return len(self.due) - self.completed - len(self.dropped)

    @property
    def halted(self) -> bool:
        """Whether no more is to be sent, and nothing waited for."""
        return self.interrupted or self.error is not None

    def send(self, due: float, sent: float) -> int:
        """One more request, and its number."""
        self.begun.append(math.nan)
        self.ended.append(math.nan)
        self.sent.append(sent)
        self.due.append(due)
        return len(self.due) - 1

    def drop(self, number: int) -> None:
        """There was no room for this one."""
        self.dropped.append(number)

    def end(self, number: int, begun: float, ended: float, outputs: Any) -> None:
        """See load.Answers. What was computed is nobody's."""
        self.begun[number] = begun
        self.ended[number] = ended
        with self._lock:
            self.completed += 1
            calls = 0 <= self.under_way <= self._call_at
            if calls:
                self._call_at = -1
        if calls:
            self._wake()

    def fail(self, error: BaseException) -> None:
        """See load.Answers; the first error counts."""
        with self._lock:
            self.error = self.error or error
        self._wake()

    def interrupt(self) -> None:
        """Ends the sending; from any thread."""
        self.interrupted = True
        self._wake()

    def call_at(self, left: int) -> None:
        """Wakes who sends once no more than so many are under way; at once where that is so."""
        with self._lock:
            self._call_at = left
            calls = self.under_way <= left
            if calls:
                self._call_at = -1
        if calls:
            self._wake()
