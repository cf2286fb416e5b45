"""Ctrl-C and SIGTERM: both end the command by an exception, so that everything under way is cleaned up.

The first thing that a command loads, and therefore small: until its handlers stand, an interruption is a traceback.
"""

import signal
from types import FrameType, TracebackType


class Terminated(BaseException):
    """SIGTERM came."""


class Interruptions:
    """While it lasts, as a context, SIGINT raises KeyboardInterrupt and SIGTERM raises Terminated in the main thread.

    ``received`` are the numbers of those that came: an exception may be another one when it arrives, if an import was
    interrupted say. A signal that is ignored (``nohup``, a job in the background), or that somebody else handles, is left as
    it is.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._before: list[tuple[int, object]] = []

    def __enter__(self) -> "Interruptions":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before.append((number, signal.signal(number, self._end)))
        except ValueError:
            pass  # not in the main thread, where signals arrive
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def exit_code(self) -> int:
        """As a shell tells of a process that the signal ended: 128 and its number."""
        return 128 + (self.received[-1] if self.received else signal.SIGINT)

    @property
    def told(self) -> str:
        """What the user is told."""
        return f"miniinfer: {'terminated' if self.received and self.received[-1] == signal.SIGTERM else 'interrupted'}"

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated
