"""The errors a user may see, and the exit code of each.

    MiniinferError                  one line to show; never a traceback
    ├── CheckFailed          1      a comparison or an asked-for check did not hold
    ├── UsageError           2      a flag, an argument or an input array is wrong
    │   └── InputDataError   2      ... by its contents, which a node cannot take; a ModelError, too
    ├── ModelError           3      the ONNX model is malformed or cannot be built
    │   └── ModelTooLarge    3      ... since it is beyond a limit, which the caller may raise (docs/security.md)
    ├── PlanFileError        4      the plan file is malformed, too new or damaged (wraps engine_format.PlanError)
    ├── DeviceError          5      no such device, no driver, a failed device call
    ├── OutOfMemoryError     6      host, device or disk space ran out
    ├── LimitExceeded        6      an inference took more time or memory than it was allowed
    └── RequestError         6      a request to a Batcher ended without a result, for no fault of its inputs (docs/batching.md)
        ├── QueueFull        6      ... since max_queue others wait already
        ├── DeadlinePassed   6      ... since its time was over
        ├── BatcherClosed    6      ... since the batcher was closed
        └── BatchFailed      6      ... since its batch failed, which a plan that draws random numbers does not repeat

Anything else that escapes is a bug: the command line prints its traceback and exits with 70. Ctrl-C exits with 130,
SIGTERM with 143.
"""

import errno
from collections.abc import Sequence
from typing import ClassVar

from engine_format import NotDurable
from miniinfer_cli.visible import visible
from miniinfer_cli.wording import Wording, as_flags

_FULL = (errno.ENOSPC, errno.EDQUOT)
_RUN_OUT = (*_FULL, errno.ENOMEM)


class MiniinferError(Exception):
    """A fault worth one line to the user: what, where, got and expected; ``hint`` is the way out.

    ``where`` is filled from the inside out: the layer that knows the place (file, node, flag) prepends it by ``at()``.
    ``details`` are lines below the first. Names come out of files: shown, they can neither steer a terminal nor begin a line.
    ``own_hint`` is the way out that whoever raised it knew, "" where none; ``hint`` is that, or its class's ``way_out``.
    A message or a hint that names what callers may give is a ``Wording``: parameters in Python, flags on the command line.
    """

    exit_code = 70
    way_out: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if not cls.way_out:
            raise TypeError(f"{cls.__name__} has no way_out, the hint of those that are raised with none")

    def __init__(self, message: str, *, hint: str = "", where: tuple[str, ...] = (), details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.own_hint = hint
        self.where = where

    @property
    def hint(self) -> str:
        """The way out: names a parameter, a value or an action."""
        return self.own_hint or self.way_out

    def suggest(self, hint: str) -> None:
        """Gives the error ``hint`` where it has none of its own: of a layer that knows more than its class."""
        self.own_hint = self.own_hint or hint

    def at(self, place: str) -> "MiniinferError":
        """This error with ``place`` put before the places already known. Returns self, for ``raise error.at(...)``."""
        self.where = (place, *self.where)
        return self

    def __str__(self) -> str:
        return self._told(self.message, self.hint)

    def in_flags(self) -> str:
        """The text of the error as the command line shows it."""
        return self._told(as_flags(self.message), as_flags(self.hint))

    def _told(self, message: str, hint: str) -> str:
        lines = [": ".join((*self.where, message)), *(f"  {line}" for line in self.details)]
        lines += [f"  hint: {hint}"] if hint else []
        return "\n".join(visible(line) for line in lines)


class CheckFailed(MiniinferError):
    """A check that was asked for (``--verify``, ``--check``) did not hold."""

    exit_code = 1
    way_out = Wording(
        "opt_level=0 and disable_passes=[...] of build() tell whether a pass is to blame",
        flags="--json FILE writes the figures of the check; --opt-level 0 and --disable-pass NAME tell whether a pass is to"
        " blame",
    )


class UsageError(MiniinferError):
    """A flag, an argument or an input given by the caller is wrong."""

    exit_code = 2
    way_out = Wording(
        "engine.inputs has the inputs with their types and sizes; help(miniinfer_cli.build) and help(miniinfer_cli.load) tell the"
        " parameters and what they take",
        flags="miniinfer inspect FILE shows the inputs with their types and sizes, miniinfer COMMAND -h the flags and what they"
        " take",
    )


class ModelError(MiniinferError):
    """The ONNX model is malformed, or holds something that cannot be built."""

    exit_code = 3
    way_out = (
        "export the model again, or mend it with the onnx package: onnx.checker.check_model(model, full_check=True) may tell more"
    )


class ModelTooLarge(ModelError):
    """The ONNX model is beyond a limit of the build, whatever it means: no branch or body that may never run excuses it."""

    way_out = Wording(
        "if you trust the file, set the limit higher: limits={NAME: VALUE}",
        flags="if you trust the file, set the limit higher: --limit NAME=VALUE",
    )


class InputDataError(UsageError, ModelError):
    """What an input array holds is nothing that a node can take: a token beyond the vocabulary, a size that fits nothing.

    A fault of the caller, met where a node runs: whoever expects the one or the other class catches it.
    """

    exit_code = 2
    way_out = Wording(
        "give other values; engine.inputs tells what each input is",
        flags="give other values by --input NAME=FILE; miniinfer inspect PLAN shows what each input is",
    )


class PlanFileError(MiniinferError):
    """The plan file is malformed, damaged, or written by a newer release."""

    exit_code = 4
    way_out = Wording(
        "build the plan again from its model: miniinfer_cli.build(model, plan)",
        flags="build the plan again from its model: miniinfer build MODEL -o PLAN",
    )


class DeviceError(MiniinferError):
    """The device asked for is absent or refused a call."""

    exit_code = 5
    way_out = Wording(
        "miniinfer devices lists the devices that can be used here; load(plan, device='cpu') needs no GPU",
        flags="miniinfer devices lists the devices that can be used here; --device cpu needs no GPU",
    )


class OutOfMemoryError(MiniinferError):
    """Host memory, device memory or disk space ran out; the message has what was needed and what is free."""

    exit_code = 6
    way_out = Wording(
        "give smaller sizes, by shapes= or in the inputs, or free memory and disk space",
        flags="give smaller sizes by --shapes, or free memory and disk space",
    )


class LimitExceeded(MiniinferError):
    """An inference took more time or memory than ``time_limit`` or ``memory_limit`` allow. The engine goes on."""

    exit_code = 6
    way_out = Wording(
        "give more by load(time_limit=, memory_limit=), or run smaller sizes",
        flags="give more by --time-limit or --memory-limit, or run smaller sizes",
    )


class RequestError(MiniinferError):
    """A request to a Batcher ended without a result, and nothing is wrong with what it holds."""

    exit_code = 6
    way_out = "submit it again"


class QueueFull(RequestError):
    """As many requests wait as may."""

    way_out = "submit it later, or make the Batcher with overload='block', or with a larger max_queue"


class DeadlinePassed(RequestError):
    """A request was not computed within its deadline_s."""

    way_out = "give it a longer deadline_s, or a higher priority; stats() of the batcher tells how long requests wait"


class BatcherClosed(RequestError):
    """The batcher was closed before the request was computed."""

    way_out = "make another Batcher of the engine; close(drain=True) computes what waits"


class BatchFailed(RequestError):
    """The batch of a request failed, and one that draws random numbers is not run again to find whose fault it was."""

    way_out = "submit it again: in another batch it may succeed"


_ANOTHER_PLACE = "give another path, or rights to this one"


def unwritable(error: OSError, path: object, *, if_full: str = "") -> MiniinferError:
    """What to raise when writing ``path`` failed with ``error``: OutOfMemoryError for a full disk or memory, else UsageError.

    ``if_full`` is the hint of a full disk.
    """
    if isinstance(error, NotDurable):
        hint = "its folder could not be synced to the disk; look at the file system, and run it again"
        return refused(error, f"is written, but may not last through a power failure: {error.strerror}", path, hint=hint)
    if error.errno in _FULL:
        return OutOfMemoryError(
            "the disk is full", hint=if_full or "free space on that disk, or give a path on another", where=(str(path),)
        )
    hint = (
        "raise the limit on the size of files (ulimit -f), or give a path on a disk that takes them"
        if error.errno == errno.EFBIG
        else ""
    )
    return refused(error, f"cannot be written: {error.strerror or error}", path, hint=hint)


def refused(error: OSError, message: str, *where: object, hint: str = "") -> MiniinferError:
    """What to raise when the system refused a file with ``error``: OutOfMemoryError for want of memory or room."""
    kind = OutOfMemoryError if error.errno in _RUN_OUT else UsageError
    hint = hint or (_ANOTHER_PLACE if kind is UsageError else "")
    return kind(message, hint=hint, where=tuple(map(str, where)))


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
