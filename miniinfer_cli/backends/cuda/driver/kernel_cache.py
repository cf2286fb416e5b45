"""Compiled kernels, kept in memory and in a folder, so that a kernel is compiled once per machine."""

import functools
import hashlib
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from miniinfer_cli.backends.cuda.driver.libraries import find_headers, nvrtc_wheel
from miniinfer_cli.backends.cuda.driver.nvrtc import CompiledKernel, compile_kernel, compile_options, nvrtc_version
from miniinfer_cli.cache_files import CacheFolder

_LOG = logging.getLogger(__name__)
_MAGIC = b"MICUBIN3"
_DIGEST = 32  # bytes of SHA-256
_NAMES = re.compile(r"[0-9a-f]{40}\.cubin")
LIMIT_NBYTES = 1 << 30
"""Bytes of files that a folder may hold by default."""


@dataclass(frozen=True, slots=True)
class KernelSource:
    """A kernel to compile: the arguments of ``compile_kernel``."""

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
    compiled again. Of more than ``limit_nbytes`` in the folder, what was not used for longest goes.

    A file is ``magic, digest of key and rest, length of the compiler's log (4 bytes, little-endian), log, cubin``.
    """

    def __init__(self, folder: Path | None, limit_nbytes: int = LIMIT_NBYTES) -> None:
        self.folder = folder
        self._files = None if folder is None else CacheFolder(folder, limit_nbytes, _NAMES)
        self.counts = CacheCounts()
        self._lock = threading.Lock()
        self._kernels: dict[str, Future[CompiledKernel]] = {}
        self._writable = folder is not None

    def get(self, kernel: KernelSource) -> CompiledKernel:
        """The kernel, with what the compiler said of it when it was compiled; see ``compile_kernel``.

        A thread that asks for one in the making waits for it.
        """
        return self._get(kernel)[0]

    def _get(self, kernel: KernelSource) -> tuple[CompiledKernel, bool]:
        """The kernel, and whether this call compiled it."""
        text, name, arch, headers, options = kernel.text, kernel.name, kernel.arch, kernel.headers, kernel.options
        key = self._key(text, name, arch, headers, options)
        with self._lock:
            known = self._kernels.get(key)
            if known is not None:
                self.counts.memory_hits += 1
            else:
                mine = self._kernels[key] = Future()
        if known is not None:
            return known.result(), False
        try:
            found = self._read(key)
            compiles = found is None
            if found is None:
                found = compile_kernel(text, name, arch, headers, options)
                with self._lock:
                    self.counts.compiles += 1
                _LOG.debug("%s for sm_%d: %s", name, arch, found.resources)
                self._write(key, found)
        except BaseException as error:
            with self._lock:
                del self._kernels[key]  # so that it can be tried again
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
        return [kernel.code for kernel, _ in results]

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

    def _read(self, key: str) -> CompiledKernel | None:
        contents = None if self._files is None else self._files.read(f"{key}.cubin")
        if contents is None:
            return None
        start = len(_MAGIC) + _DIGEST
        rest = contents[start:]
        code = 4 + int.from_bytes(rest[:4], "little")
        sound = len(rest) > code and contents[:start] == _MAGIC + _digest(key, rest)
        with self._lock:
            if sound:
                self.counts.folder_hits += 1
            else:
                self.counts.damaged += 1
        return CompiledKernel(rest[code:], rest[4:code].decode(errors="replace")) if sound else None

    def _write(self, key: str, kernel: CompiledKernel) -> None:
        if self._files is None or not self._writable:
            return
        log = kernel.log.encode()
        rest = len(log).to_bytes(4, "little") + log + kernel.code
        try:
            self._files.write(f"{key}.cubin", _MAGIC + _digest(key, rest) + rest)
        except OSError as error:
            self._stop_writing(error)

    def _stop_writing(self, error: OSError) -> None:
        with self._lock:
            first, self._writable = self._writable, False
        if first:
            _LOG.info("kernels are not kept: %s: %s", self.folder, error.strerror or error)


def _digest(key: str, rest: bytes) -> bytes:
    """What a file begins with; a key is always of the same length."""
    return hashlib.sha256(key.encode() + rest).digest()
