"""The files that a command writes: checked before it begins, never one that it reads, and each whole or as it was."""

import fcntl
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from engine_format.replacing import expect_writable, replacing, resolved
from miniinfer_cli.errors import UsageError, unwritable

_DESCRIPTORS = re.compile(r"/proc/\d+(/task/\d+)?/fd")
_MOST_LINKS = 40  # as the kernel follows


@dataclass(frozen=True, slots=True)
class Output:
    """A file to be written, and the flag that named it; ``path`` is None when it is not wanted.

    ``json``: it is JSON, so ``-`` stands for standard output. ``seekable``: it can only be a file, no pipe and no device.
    """

    flag: str
    path: Path | None
    json: bool = False
    seekable: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A file that the command reads. ``what`` it is (``the data of the model``); empty for what the command is about."""

    path: Path
    what: str = ""


class Sink(Protocol):
    """What is written to, from front to end; a file can also be sought in."""

    def write(self, data: Any, /) -> Any:
        """Writes bytes."""

    def flush(self) -> None:
        """Hands on what was written."""

    def close(self) -> None:
        """Ends it."""


def check_outputs(outputs: Sequence[Output], sources: Iterable[Source]) -> None:
    """Raises UsageError when an output cannot be written, is one of ``sources``, or is the same file as another output.

    ``sources`` are only looked at when there is a file that could be one. To be called before any work is done.
    """
    wanted = [(o, o.path) for o in outputs if o.path is not None]
    places = {o.flag: _place(o, path) for o, path in wanted}
    files = {place: path for o, path in wanted if (place := places[o.flag]) is not None}
    if any(is_regular(path) for path in files.values()):
        for source in sources:
            found = files.get(_identity_of_file(source.path))
            if found is not None:
                flag = next(o.flag for o, path in wanted if path is found)
                hint = f"{f'it is {source.what}; ' if source.what else ''}give another file by {flag}"
                raise UsageError(f"{flag} would overwrite the file that is read", hint=hint).at(str(found))
    seen = {_printed_to(fd): name for fd, name in ((2, "standard error"), (1, "standard output"))}
    for output, path in wanted:
        place = places[output.flag]
        if place is None:
            continue
        other = seen.get(place)
        if other is not None and not (other.startswith("standard") and _own_descriptor(path) is not None):
            raise UsageError(f"{output.flag} is the same file as {other}", hint="give each a file of its own").at(str(path))
        seen[place] = output.flag


@contextmanager
def opened_for_writing(path: Path) -> Iterator[Sink]:
    """Gives what writes ``path``. A regular file is replaced when the block ends without an error.

    Pipes, devices and descriptors (``/dev/stdout``) are written directly and cannot be sought in; when the reader of a pipe
    goes away, the rest is dropped. Raises UsageError when it cannot be written, OutOfMemoryError when the disk is full.
    """
    try:
        number = _own_descriptor(path)
        if number is None and (is_regular(path) or not path.exists()):
            with replacing(resolved(path)) as file:
                yield file
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what was printed so far stands before
        try:
            with path.open("wb") if number is None else os.fdopen(os.dup(number), "wb") as file:
                yield _Straight(file)
        except BrokenPipeError:
            pass
    except OSError as error:
        raise unwritable(error, path) from None


class _Straight:
    """A file that only goes forward. Without ``tell``, zipfile does not take a device for one that it could go back in."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _place(output: Output, path: Path) -> Any:
    """What is equal for two names of one file, present or future; None for pipes and devices.

    Raises UsageError when it cannot be written.
    """
    flag = output.flag
    if str(path) == "-":
        if not output.json:
            raise UsageError(f"{flag} -: only JSON goes to standard output", hint=f"give {flag} a file")
        return "-"
    try:
        if path.is_dir():
            raise UsageError(f"{flag} names a folder, not a file", hint=f"give {flag} FILE").at(str(path))
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
            _expect_folder(path, flag)
        number = _own_descriptor(path)
        straight = not stat.S_ISREG(mode) or number is not None
        if number is not None and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise UsageError("cannot be written: it is open for reading").at(str(path))
        if (output.seekable and straight) or stat.S_ISSOCK(mode):
            hint = "--dry-run builds without writing" if flag == "--output" else f"give {flag} FILE" if output.seekable else ""
            raise UsageError(f"{flag} must be a file, no pipe, device or socket", hint=hint).at(str(path))
        if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise UsageError("cannot be written: Permission denied").at(str(path))
        if not straight:
            _expect_writable(path)
        return _identity(path) if stat.S_ISREG(mode) else None
    except OSError as error:
        raise unwritable(error, path) from None


def _expect_folder(path: Path, flag: str) -> None:
    missing = [folder for folder in (path.parent, Path(os.path.realpath(path)).parent) if not folder.exists()]
    if missing:
        folder = missing[0].absolute()
        raise UsageError(f"cannot be written: there is no folder {str(folder)!r}", hint=f"make it, or change {flag}").at(
            str(path)
        )


def _expect_writable(path: Path) -> None:
    try:
        expect_writable(os.path.realpath(path))
    except PermissionError as error:
        hint = "its folder must take a new file, which then takes the place of the old one"
        raise UsageError(f"cannot be written: {error.strerror}", hint=hint).at(str(path)) from None


def _identity(path: Path) -> tuple[int, int] | tuple[int, int, str]:
    """The same for every name of a file; for one that is not there yet, its folder and the name that it will have there."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except FileNotFoundError:
        target = Path(os.path.realpath(path))
        folder = target.parent.stat()
        return folder.st_dev, folder.st_ino, target.name


def _printed_to(fd: int) -> Any:
    """The identity of the regular file that a standard stream goes to, else None."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _identity_of_file(path: Path) -> tuple[int, int] | None:
    """The same for every name of a regular file; None for anything else, and for what cannot be looked at."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def is_regular(path: Path) -> bool:
    """Whether a file is there: no folder, pipe or device, and nothing that cannot be looked at."""
    return _identity_of_file(path) is not None


def _own_descriptor(path: Path) -> int | None:
    """The number of the open file of this process that ``path`` stands for, as /dev/stdout and /dev/fd/3 do."""
    for _ in range(_MOST_LINKS):
        folder = Path(os.path.realpath(path.parent))
        if _DESCRIPTORS.fullmatch(str(folder)):
            return int(path.name) if path.name.isdigit() and folder.parts[2] == str(os.getpid()) else None
        path = folder / path.name
        if not path.is_symlink():
            return None
        path = folder / path.readlink()
    return None
