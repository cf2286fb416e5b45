"""What goes wrong with a request, as a status of HTTP, a line, and the outcome that it counts as."""

from dataclasses import dataclass

from miniinfer_cli.errors import (
    BatcherClosed,
    BatchFailed,
    DeadlinePassed,
    DeviceError,
    LimitExceeded,
    MiniinferError,
    OutOfMemoryError,
    QueueFull,
    UsageError,
)
from miniinfer_cli.server.figures import CLOSED, DEADLINE, ERROR, INVALID, REJECTED
from miniinfer_cli.shortage import memory_ran_out
from miniinfer_cli.wording import as_flags

_KNOWN: tuple[tuple[type[MiniinferError], int, str], ...] = (
    (QueueFull, 503, REJECTED),
    (DeadlinePassed, 504, DEADLINE),
    (BatcherClosed, 503, CLOSED),
    (BatchFailed, 503, ERROR),
    (UsageError, 400, INVALID),
    (LimitExceeded, 422, ERROR),
    (OutOfMemoryError, 503, ERROR),
)


class Refused(Exception):
    """A request that is answered by a status of HTTP and a line. ``closes``: and by the end of its connection."""

    def __init__(self, status: int, message: str, *, closes: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.closes = closes


def expect_method(method: str, expected: str, path: str) -> None:
    """Raises Refused where ``method`` is not the one that ``path`` knows; a body that comes with it is not read."""
    if method != expected:
        raise Refused(405, f"{method} means nothing here: {expected} {path}", closes=method == "POST")


@dataclass(frozen=True, slots=True)
class Fault:
    """``status`` of HTTP, what is told, how it counts; ``is_bug``: nobody foresaw it; ``of_device``: others will meet it too."""

    status: int
    message: str
    outcome: str
    is_bug: bool = False
    of_device: bool = False


class Answered(Exception):
    """What another process has found wrong with a request."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def fault_of(error: BaseException, *, in_flags: bool = True) -> Fault:
    """What a client is told of ``error``; of what nobody foresaw no more than its class.

    ``in_flags``: in the words of `miniinfer serve`; else in those of the Python functions, for servers that are set up by these.
    """
    if isinstance(error, Answered):
        return error.fault
    if isinstance(error, Refused):
        return Fault(error.status, str(error), INVALID)
    for kind, status, outcome in _KNOWN:
        if isinstance(error, kind):
            return Fault(status, _line(error, in_flags, hint=isinstance(error, UsageError)), outcome)
    if isinstance(error, MiniinferError):
        return Fault(500, _line(error, in_flags, hint=False), ERROR, of_device=isinstance(error, DeviceError))
    if memory_ran_out(error):
        return Fault(503, "the server's memory ran out", ERROR)
    return Fault(500, f"{type(error).__name__} in the server; its log has more", ERROR, is_bug=True)


def _line(error: MiniinferError, in_flags: bool, *, hint: bool) -> str:
    """The error's text in one line; the way out only where it is the client's."""
    message, way_out = (as_flags(error.message), as_flags(error.hint)) if in_flags else (str(error.message), str(error.hint))
    told = ": ".join((*error.where, message))
    return f"{told} ({way_out})" if hint and error.own_hint else told
