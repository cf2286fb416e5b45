"""What the libraries chose, kept between runs: small files in one folder, named by digest.

Losing an entry costs time, never correctness, so one that is damaged or not to be trusted (``cache_files``) counts as absent,
and a folder that cannot be written leaves the cache in memory.

A file is ``magic, digest of the rest, length of the key, key, value``; lengths are little-endian 32-bit numbers.
"""

import contextlib
import hashlib
import re
import threading
from pathlib import Path

from miniinfer_cli.cache_files import CacheFolder

_MAGIC = b"MITACTC1"
_DIGEST_NBYTES = 16
_NAMES = re.compile(r"\w+-[0-9a-f]{32}")
LIMIT_NBYTES = 64 << 20
"""Bytes of files that a folder may hold by default."""


class TacticCache:
    """Bytes by kind and key, for several threads and several processes. ``folder`` None: in memory only.

    Of more than ``limit_nbytes`` in the folder, what was not used for longest goes.

    A key has to name all that the value depends on: the device, the library's version, the whole problem.
    """

    def __init__(self, folder: Path | None = None, limit_nbytes: int = LIMIT_NBYTES) -> None:
        self.folder = folder
        self._files = None if folder is None else CacheFolder(folder, limit_nbytes, _NAMES)
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], bytes] = {}

    def get(self, kind: str, key: str) -> bytes | None:
        """The value kept under ``key``, None where there is none or its file is damaged. Never raises for a file's sake."""
        with self._lock:
            value = self._known.get((kind, key))
        if value is None and self._files is not None:
            contents = self._files.read(_file_name(kind, key))
            value = None if contents is None else _parse(contents, f"{kind}\n{key}")
            if value is not None:
                with self._lock:
                    self._known[kind, key] = value
        return value

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Keeps ``value`` under ``key`` in place of what was there; readers see the old file or the new one, whole."""
        with self._lock:
            self._known[kind, key] = value
        if self._files is not None:
            # A full or read-only disk: the class's docstring says why that is no error.
            with contextlib.suppress(OSError):
                self._files.write(_file_name(kind, key), _format(f"{kind}\n{key}", value))


def _file_name(kind: str, key: str) -> str:
    digest = hashlib.blake2b(f"{kind}\n{key}".encode(), digest_size=_DIGEST_NBYTES).hexdigest()
    return f"{kind}-{digest}"


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
