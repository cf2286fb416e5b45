"""Compiled kernels, kept in memory and in a folder, so that a kernel is compiled once per machine."""

import functools
import hashlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from miniinfer_cli.backends.cuda.driver.cache_files import read_trusted, write_whole
from miniinfer_cli.backends.cuda.driver.libraries import find_headers, nvrtc_wheel
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_cubin, compile_options, nvrtc_version

_LOG = logging.getLogger(__name__)
_MAGIC = b"MICUBIN2"
_DIGEST = 32  # bytes of SHA-256


@dataclass(frozen=True, slots=True)
class KernelSource:
    """A kernel to compile: the arguments of ``compile_cubin``."""

    text: str
    name: str
    arch: int
    headers: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


@dataclass(slots=True)
class CacheCounts:
    """What a cache was asked for: found in memory, found in the folder, compiled; and damaged files that were replaced."""

    memory_hits: int = 0
    folder_hits: int = 0
    compiles: int = 0
    damaged: int = 0


class KernelCache:
    """Cubins by the digest of everything that they depend on: source, headers, options, architecture, compiler.

    ``folder`` None keeps them in memory only; so does a folder that cannot be written, or that is not to be trusted
    (``cache_files``), which is logged once. Several threads and processes may share a folder: a file appears whole or not at
    all. A file's digest covers its key as well, so that one which was given another's name does not fit; then the kernel is
    compiled again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.counts = CacheCounts()
        self._lock = threading.Lock()
        self._cubins: dict[str, Future[bytes]] = {}
        self._writable = folder is not None

    def get_or_compile(self, text: str, name: str, arch: int, headers: Mapping[str, str], options: Sequence[str] = ()) -> bytes:
        """The cubin of a kernel; see ``compile_cubin``. A thread that asks for one in the making waits for it."""
        return self._get(KernelSource(text, name, arch, headers, tuple(options)))[0]

    def _get(self, kernel: KernelSource) -> tuple[bytes, bool]:
        """The cubin, and whether this call compiled it."""
        text, name, arch, headers, options = kernel.text, kernel.name, kernel.arch, kernel.headers, kernel.options
        key = self._key(text, name, arch, headers, options)
        with self._lock:
            cubin = self._cubins.get(key)
            if cubin is not None:
                self.counts.memory_hits += 1
            else:
                mine = self._cubins[key] = Future()
        if cubin is not None:
            return cubin.result(), False
        try:
            found = self._read(key)
            compiles = found is None
            if found is None:
                found = compile_cubin(text, name, arch, headers, options)
                with self._lock:
                    self.counts.compiles += 1
                self._write(key, found)
        except BaseException as error:
            with self._lock:
                del self._cubins[key]  # so that it can be tried again
            mine.set_exception(error)
            raise
        mine.set_result(found)
        return found, compiles

    def compile_many(
        self, kernels: Sequence[KernelSource], workers: int | None = None, compiled: set[int] | None = None
    ) -> list[bytes]:
        """The cubins of ``kernels``, in their order, compiled by several threads at once (``workers``; default one per core).

        ``compiled`` receives the numbers of those that were not there. Raises the first error in that order, once all are done.
        """
        if not kernels:
            return []
        with ThreadPoolExecutor(workers or min(len(kernels), os.cpu_count() or 1), "compile") as pool:
            jobs = [pool.submit(self._get, k) for k in kernels]
        results = [job.result() for job in jobs]
        if compiled is not None:
            compiled.update(number for number, (_, was_compiled) in enumerate(results) if was_compiled)
        return [cubin for cubin, _ in results]

    @functools.cached_property
    def _compiler(self) -> tuple[str, str]:
        """The versions of the compiler and of CUDA's headers."""
        headers = find_headers()
        # Loading the library takes longer than reading many kernels, so a wheel is asked for its version instead.
        version = nvrtc_wheel() or "{}.{}".format(*nvrtc_version())
        return version, headers[2] if headers else ""

    def _key(self, text: str, name: str, arch: int, headers: Mapping[str, str], options: Sequence[str]) -> str:
        digest = hashlib.sha256()
        # The version of CUDA's headers counts, not where they are.
        flags = [o for o in compile_options(arch, options) if not o.startswith("--include-path=") or o in options]
        parts = [*self._compiler, name, text, str(len(flags)), *flags]
        for part in [*parts, *(part for item in sorted(headers.items()) for part in item)]:
            raw = part.encode()
            digest.update(len(raw).to_bytes(8, "little") + raw)  # with lengths, other parts never run into the same bytes
        return digest.hexdigest()[:40]

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}.cubin"

    def _read(self, key: str) -> bytes | None:
        path = self._path(key)
        if path is None:
            return None
        contents = read_trusted(path)
        if contents is None:
            return None
        start = len(_MAGIC) + _DIGEST
        cubin = contents[start:]
        sound = cubin and contents[:start] == _MAGIC + _digest(key, cubin)
        with self._lock:
            if sound:
                self.counts.folder_hits += 1
            else:
                self.counts.damaged += 1
        return cubin if sound else None

    def _write(self, key: str, cubin: bytes) -> None:
        path = self._path(key)
        if path is None or not self._writable:
            return
        try:
            write_whole(path, _MAGIC + _digest(key, cubin) + cubin)
        except OSError as error:
            self._stop_writing(error)

    def _stop_writing(self, error: OSError) -> None:
        with self._lock:
            first, self._writable = self._writable, False
        if first:
            _LOG.info("kernels are not kept: %s: %s", self.folder, error.strerror or error)


def _digest(key: str, cubin: bytes) -> bytes:
    """What a file begins with; a key is always of the same length."""
    return hashlib.sha256(key.encode() + cubin).digest()
