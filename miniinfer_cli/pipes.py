"""Pipes in the place of files that are read: read to their end, and not waited for when nobody writes."""

import errno
import os
import select
import stat
from pathlib import Path

_WAIT_S = 2.0  # for somebody to open a named pipe for writing


def pipe_contents(path: Path) -> bytes | None:
    """All that comes out of the pipe at ``path``; None where ``path`` is a file or a folder.

    Raises OSError for what cannot be opened, for a pipe that nobody opens for writing within two seconds, and for
    devices and sockets.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    if not stat.S_ISFIFO(mode):
        raise OSError(errno.EINVAL, "neither a file nor a pipe", str(path))
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # which does not wait for a writer
    with os.fdopen(fd, "rb") as file:
        events = select.poll()
        events.register(fd, select.POLLIN)
        heard = events.poll(_WAIT_S * 1e3)
        try:
            first = os.read(fd, 1)
        except BlockingIOError:
            first = b""  # there is a writer, who has not written yet
        else:
            if not first and not heard:
                raise TimeoutError(errno.ETIMEDOUT, f"nobody opened this pipe for writing within {_WAIT_S:g} s", str(path))
        os.set_blocking(fd, True)
        return first + file.read()
