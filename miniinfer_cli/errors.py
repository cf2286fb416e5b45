"""The errors a user may see, and the exit code of each.

    MiniinferError                  one line to show; never a traceback
    ├── CheckFailed          1      a comparison or an asked-for check did not hold
    ├── UsageError           2      a flag, an argument or an input array is wrong
    │   └── InputDataError   2      ... by its contents, which a node cannot take; a ModelError, too
    ├── ModelError           3      the ONNX model is malformed or cannot be built
    ├── PlanFileError        4      the plan file is malformed, too new or damaged (wraps engine_format.PlanError)
    ├── DeviceError          5      no such device, no driver, a failed device call
    └── OutOfMemoryError     6      host, device or disk space ran out

Anything else that escapes is a bug: the command line prints its traceback and exits with 70. Ctrl-C exits with 130,
SIGTERM with 143.
"""

import errno
from collections.abc import Sequence

from engine_format import NotDurable
from miniinfer_cli.visible import visible

_FULL = (errno.ENOSPC, errno.EDQUOT)
_RUN_OUT = (*_FULL, errno.ENOMEM)


class MiniinferError(Exception):
    """A fault worth one line to the user: what, where, got and expected; ``hint`` is the way out.

    ``where`` is filled from the inside out: the layer that knows the place (file, node, flag) prepends it by ``at()``.
    ``details`` are lines below the first. Names come out of files: shown, they can neither steer a terminal nor begin a line.
    """

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "", where: tuple[str, ...] = (), details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.hint = hint
        self.where = where

    def at(self, place: str) -> "MiniinferError":
        """This error with ``place`` put before the places already known. Returns self, for ``raise error.at(...)``."""
        self.where = (place, *self.where)
        return self

    def __str__(self) -> str:
        lines = [": ".join((*self.where, self.message)), *(f"  {line}" for line in self.details)]
        lines += [f"  hint: {self.hint}"] if self.hint else []
        return "\n".join(visible(line) for line in lines)


class CheckFailed(MiniinferError):
    """A check that was asked for (``--verify``, ``--check``) did not hold."""

    exit_code = 1


class UsageError(MiniinferError):
    """A flag, an argument or an input given by the caller is wrong."""

    exit_code = 2


class ModelError(MiniinferError):
    """The ONNX model is malformed, or holds something that cannot be built."""

    exit_code = 3


class InputDataError(UsageError, ModelError):
    """What an input array holds is nothing that a node can take: a token beyond the vocabulary, a size that fits nothing.

    A fault of the caller, met where a node runs: whoever expects the one or the other class catches it.
    """

    exit_code = 2


class PlanFileError(MiniinferError):
    """The plan file is malformed, damaged, or written by a newer release."""

    exit_code = 4


class DeviceError(MiniinferError):
    """The device asked for is absent or refused a call."""

    exit_code = 5


class OutOfMemoryError(MiniinferError):
    """Host memory, device memory or disk space ran out; the message has what was needed and what is free."""

    exit_code = 6


def unwritable(error: OSError, path: object, *, if_full: str = "") -> MiniinferError:
    """What to raise when writing ``path`` failed with ``error``: OutOfMemoryError for a full disk or memory, else UsageError.

    ``if_full`` is the hint of a full disk.
    """
    if isinstance(error, NotDurable):
        return refused(error, f"is written, but may not last through a power failure: {error.strerror}", path)
    if error.errno in _FULL:
        return OutOfMemoryError("the disk is full", hint=if_full, where=(str(path),))
    return refused(error, f"cannot be written: {error.strerror or error}", path)


def refused(error: OSError, message: str, *where: object) -> MiniinferError:
    """What to raise when the system refused a file with ``error``: OutOfMemoryError for want of memory or room."""
    kind = OutOfMemoryError if error.errno in _RUN_OUT else UsageError
    return kind(message, where=tuple(map(str, where)))


def unmappable(path: object) -> OutOfMemoryError:
    """What to raise when there is no address space left to map the file at ``path`` into (ENOMEM)."""
    hint = "raise the limit of this process (ulimit -v), or let go what else it holds"
    return OutOfMemoryError("there is not memory enough to map it", hint=hint, where=(str(path),))


def nearest(word: str, known: Sequence[str]) -> str:
    """A question for a hint, ``did you mean ...?``, when one of the known words is close to ``word``; else nothing."""
    import difflib  # late: only those who mistype pay for it

    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]}?" if close else ""


def unknown_option(call: str, name: str, known: Sequence[str], elsewhere: str = "") -> UsageError:
    """What to raise when the function ``call`` is given an option that it does not have.

    ``elsewhere`` is the way to what the option means to others, where that is known.
    """
    close = nearest(name, known)
    before = f"{elsewhere}; the" if elsewhere else f"{close} The" if close else "the"
    return UsageError(f"{call}: there is no option {name!r}", hint=f"{before} options of {call} are {', '.join(known)}")
