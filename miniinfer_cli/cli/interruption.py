"""Ctrl-C and SIGTERM: both end the command by an exception, so that everything under way is cleaned up."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Terminated(BaseException):
    """SIGTERM came."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """A signal that ends the command: the exception that it becomes, what is told, and the exit code, 128 and its number."""

    number: signal.Signals
    becomes: type[BaseException]
    told: str

    @property
    def exit_code(self) -> int:
        """As a shell tells of a process that the signal ended."""
        return 128 + self.number


INTERRUPTED = Interruption(signal.SIGINT, KeyboardInterrupt, "interrupted")
TERMINATED = Interruption(signal.SIGTERM, Terminated, "terminated")


@contextmanager
def interruptible() -> Iterator[list[Interruption]]:
    """While it lasts, SIGINT raises KeyboardInterrupt and SIGTERM raises Terminated in the main thread.

    Gives the list of those that came: an exception may be another one when it arrives, if an import was interrupted say.
    A signal that is ignored (``nohup``, a job in the background), or that somebody else handles, is left as it is.
    """
    received: list[Interruption] = []
    before = {}

    def handler_of(interruption: Interruption) -> Callable[[int, FrameType | None], None]:
        def end(number: int, frame: FrameType | None) -> None:
            received.append(interruption)
            raise interruption.becomes

        return end

    try:
        if threading.current_thread() is threading.main_thread():  # others may not
            for interruption in (INTERRUPTED, TERMINATED):
                if signal.getsignal(interruption.number) in (signal.SIG_DFL, signal.default_int_handler):
                    before[interruption.number] = signal.signal(interruption.number, handler_of(interruption))
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
