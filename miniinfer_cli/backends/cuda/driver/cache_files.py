"""Files of a cache: written whole or not at all, and read only where no stranger can have written them.

Kernels and plans of libraries are machine code, so whoever can write such a file decides what runs here.
"""

import errno
import os
import stat
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
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_trusted(path.parent.stat()):
        raise OSError(errno.EPERM, "the folder is another account's, or everybody may write in it", str(path.parent))
    with replacing(path, mode=0o600, durable=False) as file:
        file.write(contents)
