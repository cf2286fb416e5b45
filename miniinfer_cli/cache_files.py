"""Files of a cache: written whole or not at all, read only where no stranger can have written them, and not more than a limit.

Kernels and plans of libraries are machine code, so whoever can write such a file decides what runs here.
"""

import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from engine_format.replacing import replacing
from miniinfer_cli.trusted_files import is_trusted

_LIMIT = 64 << 20  # bytes of a file; more is none of ours


def read_trusted(path: Path) -> bytes | None:
    """The file's contents; None where it is absent, unreadable or too large, or it or its folder is not to be trusted.

    Whether they are sound is the caller's to check: a file that was written when the power failed may be empty.
    """
    try:
        if not is_trusted(path.parent.stat()):
            return None
        # A pipe is opened without waiting for a writer, and not read.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            # The open file is asked, for another one may take its name meanwhile.
            status = os.fstat(file.fileno())
            sound = stat.S_ISREG(status.st_mode) and is_trusted(status) and status.st_size <= _LIMIT
            return file.read() if sound else None
    except OSError:
        return None


def write_whole(path: Path, contents: bytes) -> None:
    """Puts ``contents`` at ``path``: readers see the file that was there or the new one, and one that fails leaves no rest.

    Makes the folder where it is missing. Folder and file are this account's alone. Raises OSError, also for a folder that is
    not to be trusted.
    """
    expect_own_folder(path.parent)
    with replacing(path, mode=0o600, durable=False) as file:
        file.write(contents)


def expect_own_folder(path: Path) -> None:
    """Makes the folder where it is missing, for this account alone. Raises OSError, also for one that is not to be trusted."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_trusted(path.stat()):
        raise OSError(errno.EPERM, "the folder is another account's, or everybody may write in it", str(path))


class CacheFolder:
    """Files of one cache in a folder; when they take more than ``limit_nbytes``, those go that were not used for longest.

    ``names`` is the form of their names: other files in the folder are left alone. Threads and processes may share it. Each looks
    at the whole folder when it first writes, and again whenever it wrote a sixteenth of the limit, so that many of them exceed it
    by no more than that each. A file that goes while somebody reads it is read to its end.
    """

    def __init__(self, path: Path, limit_nbytes: int, names: "re.Pattern[str]") -> None:
        self.path = path
        self._limit = limit_nbytes
        self._names = names
        self._lock = threading.Lock()
        self._unseen = limit_nbytes  # bytes written since the folder was looked at

    def read(self, name: str) -> bytes | None:
        """The file's contents, None as for ``read_trusted``; it counts as used now."""
        path = self.path / name
        contents = read_trusted(path)
        if contents is not None:
            with contextlib.suppress(OSError):  # another account's, or gone already
                os.utime(path)
        return contents

    def write(self, name: str, contents: bytes) -> None:
        """Like ``write_whole``; makes room by what was not used for longest. More than the limit by itself is not written."""
        if len(contents) > self._limit:
            return
        write_whole(self.path / name, contents)
        self._written(len(contents))

    def trusted_path(self, name: str) -> Path | None:
        """Where the file of this name is, for a reader that maps it; None as for ``read``. It counts as used now."""
        path = self.path / name
        try:
            status = path.lstat() if is_trusted(self.path.stat()) else None
            if status is None or not stat.S_ISREG(status.st_mode) or not is_trusted(status):
                return None
        except OSError:
            return None
        with contextlib.suppress(OSError):  # gone already
            os.utime(path)
        return path

    def write_by(self, name: str, write: Callable[[Path], None]) -> None:
        """Like ``write``, of a file of any size that ``write`` puts at the path that it is given, whole or not at all."""
        expect_own_folder(self.path)
        path = self.path / name
        write(path)
        self._written(path.stat().st_size)

    def _written(self, nbytes: int) -> None:
        with self._lock:
            self._unseen += nbytes
            if self._unseen > self._limit // 16:
                self._unseen = 0
                self._make_room()

    def _make_room(self) -> None:
        files: list[tuple[int, int, Path]] = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process made room meanwhile
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and self._names.fullmatch(entry.name):
                        files.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        excess = sum(size for _, size, _ in files) - self._limit
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                excess -= size
