"""A file becomes whole or stays as it was: it is written under another name in its folder, and renamed when complete.

While it is written, the partial file is locked (flock). One that nobody locks was left by a process that was killed, and
the next writer in that folder removes it.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from engine_format.errors import NotDurable

_PARTIAL = re.compile(r"\.miniinfer-[0-9a-f]+\.partial")
_BUFFER_NBYTES = 1 << 20
_UNABLE_TO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # what file systems say that sync no folders


@contextmanager
def replacing(path: "str | os.PathLike[str]", *, mode: int | None = None, durable: bool = True) -> Iterator[BinaryIO]:
    """Gives an empty file to fill; at the end of the block it takes the place of ``path``, which may be there or not.

    After an error in the block, ``path`` is as it was, and nothing else is left behind. A link at ``path`` itself would be
    replaced: resolve it first. The new file has ``mode``; by default the mode and owner of the file that was there, or what
    the umask leaves. ``durable``: it lasts through a power failure, where its folder may be read. Raises OSError (``ENOSPC``,
    ``EROFS``, ``EACCES`` ...): NotDurable when the file is in its place all the same.
    """
    target = Path(path)
    _remove_abandoned(target.parent)
    temporary = target.with_name(_partial_name())
    folder: int | None = None
    try:
        if durable:  # opened before the file has its place: what fails from then on is told apart
            folder = _opened_folder(target.parent)
        while (file := _create(temporary, target, mode)) is None:
            temporary = target.with_name(_partial_name())
        with file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            temporary.replace(target)  # while it is locked, so that nobody takes it for abandoned
        if folder is not None:
            _sync_folder(folder, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (os.fspath(temporary), os.fspath(target.parent)):
            error.filename = os.fspath(path)
        raise
    finally:
        if folder is not None:
            os.close(folder)


def resolved(path: "str | os.PathLike[str]") -> str:
    """The file that ``path`` leads to, links followed. Raises the OSError of a folder on the way that is not there.

    To the system ``gone/../file`` is no name of ``file``; realpath alone would make it one.
    """
    try:
        Path(path).parent.stat()
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    return os.path.realpath(path)


def expect_writable(path: "str | os.PathLike[str]") -> None:
    """Raises the OSError that ``replacing(path)`` would meet at once: a folder that is missing or takes no new file."""
    trial = Path(path).with_name(_partial_name())
    try:
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()


def _partial_name() -> str:
    return f".miniinfer-{secrets.token_hex(6)}.partial"


def _create(path: Path, target: Path, mode: int | None) -> BinaryIO | None:
    """The new file, locked; None where another process took it for abandoned before it was."""
    old = None
    if mode is None:
        with contextlib.suppress(OSError):
            old = target.stat()
    # Nobody may read in the partial file what they could not read in the old one.
    allowed = 0o600 if old is not None else 0o666 if mode is None else mode
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, allowed)
    file = os.fdopen(fd, "r+b", buffering=_BUFFER_NBYTES)
    try:
        if not _lock(fd) or not os.fstat(fd).st_nlink:
            file.close()
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if old is not None:
            with contextlib.suppress(OSError):  # only root may give a file away
                os.fchown(fd, old.st_uid, old.st_gid)
            os.fchmod(fd, stat.S_IMODE(old.st_mode))
    except BaseException:
        file.close()
        raise
    return file


def _lock(fd: int) -> bool:
    """False when another process has locked the file. A file system without locks has no other that could."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _remove_abandoned(folder: Path) -> None:
    """Removes partial files that nobody writes any more. One that cannot be opened, locked or removed stays."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _PARTIAL.fullmatch(e.name)]
    except OSError:
        return  # what is wrong with the folder is told by whoever writes there
    for name in names:
        with contextlib.suppress(OSError):
            fd = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(fd).st_nlink:  # else its writer renamed or removed it meanwhile
                        (folder / name).unlink()
            finally:
                os.close(fd)


def _opened_folder(folder: Path) -> int | None:
    """The open folder; None for one that takes new files, but may not be read: then it cannot be synced either."""
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return None


def _sync_folder(folder: int, path: "str | os.PathLike[str]") -> None:
    """Makes the rename to ``path`` last through a power failure. Raises NotDurable when the file system fails to."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _UNABLE_TO_SYNC:
            raise NotDurable(error.errno, error.strerror, os.fspath(path)) from None
