"""What the libraries chose, kept between runs: small files in one folder, named by digest.

Entries are trusted as much as the account that wrote them, for a cuDNN plan holds machine code: a file that belongs to
someone else is not read. Losing an entry costs time, never correctness, so one that is damaged counts as absent, and a folder
that cannot be written leaves the cache in memory.

A file is ``magic, digest of the rest, length of the key, key, value``; lengths are little-endian 32-bit numbers.
"""

import contextlib
import hashlib
import os
import tempfile
import threading
from pathlib import Path

_MAGIC = b"MITACTC1"
_DIGEST_NBYTES = 16
_LIMIT = 64 << 20  # bytes of an entry; more is no tactic of ours


class TacticCache:
    """Bytes by kind and key, for several threads and several processes. ``folder`` None: in memory only.

    A key has to name all that the value depends on: the device, the library's version, the whole problem.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], bytes] = {}

    def get(self, kind: str, key: str) -> bytes | None:
        """The value kept under ``key``, None where there is none or its file is damaged. Never raises for a file's sake."""
        with self._lock:
            value = self._known.get((kind, key))
        if value is None and self.folder is not None:
            value = _parse(_read(self._path(self.folder, kind, key)), f"{kind}\n{key}")
            if value is not None:
                with self._lock:
                    self._known[kind, key] = value
        return value

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Keeps ``value`` under ``key`` in place of what was there; readers see the old file or the new one, whole."""
        with self._lock:
            self._known[kind, key] = value
        if self.folder is not None:
            # A full or read-only disk: the class's docstring says why that is no error.
            with contextlib.suppress(OSError):
                _write(self._path(self.folder, kind, key), _format(f"{kind}\n{key}", value))

    @staticmethod
    def _path(folder: Path, kind: str, key: str) -> Path:
        digest = hashlib.blake2b(f"{kind}\n{key}".encode(), digest_size=_DIGEST_NBYTES).hexdigest()
        return folder / f"{kind}-{digest}"


def _format(key: str, value: bytes) -> bytes:
    name = key.encode()
    rest = len(name).to_bytes(4, "little") + name + value
    return _MAGIC + hashlib.blake2b(rest, digest_size=_DIGEST_NBYTES).digest() + rest


def _parse(data: bytes, key: str) -> bytes | None:
    """The value of an entry, None unless it is whole and of this key."""
    start = len(_MAGIC) + _DIGEST_NBYTES
    rest = data[start:]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : start] != hashlib.blake2b(rest, digest_size=_DIGEST_NBYTES).digest():
        return None
    end = 4 + int.from_bytes(rest[:4], "little")
    return rest[end:] if rest[4:end] == key.encode() else None


def _read(path: Path) -> bytes:
    """The file's contents; nothing where it is absent, unreadable, too large, or another account's."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (os.geteuid(), 0) or status.st_size > _LIMIT:
                return b""
            return file.read()
    except OSError:
        return b""


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
