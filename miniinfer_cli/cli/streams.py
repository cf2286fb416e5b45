"""Standard output and error of the command line: closed ones, readers that go away, and what they cannot show."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def lasting_streams() -> Iterator[None]:
    """While it lasts, nothing that is printed fails for want of a reader, or for a character that cannot be encoded.

    A stream that the caller closed goes nowhere. Once the reader of a pipe has gone away, the rest is dropped, and so is all that
    standard error cannot take. What standard output cannot take for another reason, as a full disk, raises RefusedOutput.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            sys.stdout, sys.stderr = before


def drop_output() -> None:
    """Lets what standard output still holds go nowhere, so that Python does not complain of it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class RefusedOutput(OSError):
    """The system refused what is printed: the disk is full, the file may not grow, the terminal is gone."""


class _WithoutReader(io.FileIO):
    """A file that takes everything, also when nobody reads it any more."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError) and self.fileno() == 1:
                raise RefusedOutput(error.errno, error.strerror, "standard output") from None
            return memoryview(data).nbytes


def _lasting(stream: Any, fd: int) -> Any:
    if stream is None:  # closed by the caller
        return open(fd, "w", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO:  # put there by somebody who catches what is printed
        stream.reconfigure(errors="backslashreplace")
        return stream
    stream.flush()
    file = _WithoutReader(raw.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        file if raw is stream.buffer else io.BufferedWriter(file),  # the former with python -u
        encoding=stream.encoding,
        errors="backslashreplace",  # a name that the terminal cannot show is no reason to fail
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _fill_descriptors() -> None:
    """No file of ours may take the number of a standard stream that the caller closed."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
